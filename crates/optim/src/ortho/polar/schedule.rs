//! The phases of the exact polar factor, as data made by `oracles/make_polar_schedule.py`.
//!
//! A phase is a few odd quintics, each the one nearest to 1 on the interval that the one before leaves (Polar Express,
//! Amsel et al. 2025, arXiv 2505.16932). With all singular values in `[l, 1]`, the largest above 0.35:
//!
//! | phase | maps | lifts the smallest |
//! |---|---|---|
//! | close | `[0.08, 1]` to 1 within 7e-4 | 25-fold |
//! | lift | `[0, 1]` into `[.., 1.8]`, from 0.024 on above 0.18 | 127-fold |
//! | close after lift | `[0.15, 1.8]` to 1 within 7e-4 | 14-fold |
//! | last | `[0.35, 1]` to 1 within 3e-4 | 6-fold |
//!
//! No step maps a singular value far below a smaller one, which would blow up what products round away (Nakatsukasa and
//! Higham 2012).

/// One phase, and whether all may be done after it.
pub(super) struct Phase {
    pub(super) steps: &'static [[f64; 3]],
    pub(super) may_end: bool,
}

/// The phases, in order. Matrices of condition up to 5 to 10 are done after the first, up to 1e4 after the third, up to
/// 1e5 after the fourth, up to 1e6 after the fifth. In all they lift 7e6-fold.
pub(super) const PHASES: [Phase; 5] = [
    Phase { steps: &CLOSE, may_end: true },
    Phase { steps: &LIFT, may_end: false },
    Phase { steps: &CLOSE_AFTER_LIFT, may_end: true },
    Phase { steps: &CLOSE, may_end: true },
    Phase { steps: &LAST, may_end: true },
];

const CLOSE: [[f64; 3]; 3] = [
    [5.950_269_232_619_69, -15.001_374_867_377, 10.440_675_926_007_2],
    [2.240_850_259_026_76, -1.614_711_642_245_3, 0.412_969_549_248_931],
    [1.885_912_067_516_19, -1.262_071_805_340_57, 0.376_209_216_333_34],
];

const LIFT: [[f64; 3]; 3] = [
    [7.492_822_519_477_94, -20.916_398_681_161_8, 15.034_211_611_497_9],
    [4.119_942_179_339_73, -3.477_154_092_828_85, 0.755_629_727_797_047],
    [4.119_942_179_339_73, -3.477_154_092_828_85, 0.755_629_727_797_047],
];

const CLOSE_AFTER_LIFT: [[f64; 3]; 3] = [
    [3.271_766_430_630_12, -2.493_837_147_268_53, 0.524_755_491_797_949],
    [2.240_850_259_026_76, -1.614_711_642_245_3, 0.412_969_549_248_931],
    [1.885_912_067_516_19, -1.262_071_805_340_57, 0.376_209_216_333_34],
];

const LAST: [[f64; 3]; 2] = [
    [3.181_972_872_909_87, -4.886_422_477_831_98, 2.755_926_589_995_19],
    [1.881_090_169_337_06, -1.256_750_334_155_27, 0.375_675_672_183_893],
];

/// `X <- (2.5 A - 1.5 A^2) X`, without a linear term: sends singular values below 0.816 to 0 and those above to 1.
pub(super) const PURIFY: [f64; 3] = [0.0, 2.5, -1.5];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phases_send_every_singular_value_down_to_a_millionth_to_one() {
        for condition in [1e0, 5.0, 1e2, 1e4, 1e6] {
            for top in [0.4, 1.0] {
                let end = (0..=1000).map(|i| {
                    let start = top * f64::powf(condition, -f64::from(i) / 1000.0);
                    let step = |x: f64, [a, b, c]: &[f64; 3]| a * x + b * x.powi(3) + c * x.powi(5);
                    PHASES.iter().flat_map(|phase| phase.steps).fold(start, step)
                });
                let worst = end.map(|x| (x - 1.0).abs()).fold(0.0, f64::max);
                assert!(worst < 2e-3, "condition {condition:e}, largest {top}: off by {worst:.1e}");
            }
        }
    }
}
