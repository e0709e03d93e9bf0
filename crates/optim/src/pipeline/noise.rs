//! The noise stage: `eps_t Q` with `eps_t = alpha_t norm_F(G)` on what will be orthogonalised, or on the momentum itself.

use tensor::{DType, Tensor};

use crate::error::Result;
use crate::noise::{self, Kind};
use crate::settings::{Default, Key, Settings};
use crate::{kernels, spectrum};

/// The keys of the rules with noise.
pub(crate) const KEYS: [Key; 6] = [
    Key::new("alpha", Default::Number(1e-2), "size of the noise, in Frobenius norms of the gradient"),
    Key::new(
        "anneal",
        Default::Choice { words: &["constant", "linear", "exponential"], default: "linear" },
        "how alpha falls: not, in a line to a tenth, or tenfold every anneal_steps",
    ),
    Key::new("anneal_steps", Default::Count(1000), "steps over which alpha falls tenfold"),
    Key::new("adaptive", Default::Switch(true), "noise only where the momentum's effective rank is low"),
    Key::new("rank_threshold", Default::Number(0.5), "low: below this share of the smaller side"),
    Key::new(
        "noise_target",
        Default::Choice { words: &["update", "momentum"], default: "update" },
        "whether the noise stays in the buffer",
    ),
];

/// How `alpha` changes with the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Anneal {
    Constant,
    Linear,
    Exponential,
}

/// The stage.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Noise {
    kind: Kind,
    alpha: f64,
    anneal: Anneal,
    steps: usize,
    /// The least effective rank, as a share of the smaller side, that needs no noise.
    threshold: Option<f64>,
    /// Whether the noise stays in the buffer.
    pub in_momentum: bool,
    /// Orthogonalising steps after the noise, before the projection.
    pub reorthogonalize: usize,
}

impl Noise {
    pub fn new(settings: &Settings, kind: Kind, reorthogonalize: usize) -> Self {
        Noise {
            kind,
            alpha: f64::from(settings.number("alpha")),
            anneal: match settings.word("anneal") {
                "constant" => Anneal::Constant,
                "exponential" => Anneal::Exponential,
                _ => Anneal::Linear,
            },
            steps: settings.count("anneal_steps").max(1),
            threshold: settings.switch("adaptive").then(|| f64::from(settings.number("rank_threshold"))),
            in_momentum: settings.word("noise_target") == "momentum",
            reorthogonalize,
        }
    }

    /// `alpha` in step `number`, from 1: the first step has the full value.
    fn alpha(&self, number: u64) -> f64 {
        let t = (number - 1) as f64 / self.steps as f64;
        self.alpha
            * match self.anneal {
                Anneal::Constant => 1.0,
                Anneal::Linear => 1.0 - 0.9 * t.min(1.0),
                Anneal::Exponential => 0.1f64.powf(t),
            }
    }

    /// The noise for a bank of matrices `[K, m, n]`; none if no matrix gets any.
    pub fn draw(&self, place: &Place) -> Result<Option<Drawn>> {
        let [count, m, n] = *place.momenta.shape() else { panic!("{:?} is no bank", place.momenta) };
        let chosen: Vec<usize> = match self.threshold {
            None => (0..count).collect(),
            Some(share) => {
                let bound = share * m.min(n) as f64;
                let spectra = spectrum::spectrum(place.momenta)?;
                (0..count).filter(|&i| spectra[i].erank < bound).collect()
            }
        };
        if chosen.is_empty() {
            return Ok(None);
        }
        let keys: Vec<u64> = chosen.iter().map(|&i| place.keys[i]).collect();
        let device = place.momenta.device();
        let drawn =
            noise::draw(self.kind, device, [m, n], place.transposed, place.seed, place.number, &keys)?;
        let alpha = self.alpha(place.number);
        let noise = device.zeros(&[count, m, n], DType::F32)?;
        let squares = kernels::member_squares(place.gradients)?;
        for (drawn_at, &i) in chosen.iter().enumerate() {
            let eps = alpha * squares[i].sqrt();
            kernels::axpby(&noise.slot(i), 0.0, &drawn.slot(drawn_at), eps as f32)?;
        }
        Ok(Some(Drawn { noise, members: chosen }))
    }
}

/// Noise, scaled.
pub(crate) struct Drawn {
    /// `[K, m, n]`, zeros for matrices that get none.
    pub noise: Tensor,
    /// Those that get some.
    pub members: Vec<usize>,
}

/// The matrices that noise is drawn for: their streams are `keys`; `transposed` where they are stored `[in, out]`.
pub(crate) struct Place<'a> {
    pub momenta: &'a Tensor,
    pub gradients: &'a Tensor,
    pub transposed: bool,
    pub seed: u64,
    pub number: u64,
    pub keys: &'a [u64],
}
