//! `OrthoNoise`: Muon on the momentum plus a random semi-orthogonal matrix `Q`.
//!
//! ```text
//! X = M + eps_t Q,  eps_t = alpha_t norm_F(G),  Q Haar-distributed, of W's shape
//! X <- 1.5 X - 0.5 X X^T X   three times, on X scaled to norm_F(X) = 1
//! W <- W - rate polar(X)
//! ```
//!
//! In the adaptive mode only matrices with `erank(M) < r min(m, n)` get noise. With an exact polar factor the cubic
//! steps change nothing but rounding: `polar(NS(X)) = polar(X)`.

use crate::noise::Kind;
use crate::pipeline::{NOISE_KEYS, Noise, Plan};
use crate::settings::{Default, Key};
use crate::{Build, LrHint, Row};

/// The row of `orthonoise`.
pub(crate) const ROW: Row = Row {
    name: "orthonoise",
    about: "Muon with a random semi-orthogonal matrix added to the momentum",
    own: &{
        let [a, b, c, d, e, f] = NOISE_KEYS;
        let steps = "cubic Newton-Schulz steps after the noise; an exact polar factor undoes their effect";
        [a, b, c, d, e, f, Key::new("reorthogonalize", Default::Count(3), steps)]
    },
    lr: LrHint::Spectral,
    state_bytes: 4,
    build: Build::Matrices(|settings| {
        let noise = Noise::new(settings, Kind::Orthogonal, settings.count("reorthogonalize"));
        Ok(Plan { noise: Some(noise), ..Plan::shared(settings)? })
    }),
};
