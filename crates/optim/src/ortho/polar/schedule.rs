//! The phases of the exact polar factor, as data made by `oracles/make_polar_schedule.py`.
//!
//! A phase is a few odd quintics, each the one nearest to 1 on the interval that the one before leaves (Polar Express,
//! Amsel et al. 2025, arXiv 2505.16932). With all singular values in `[l, 1]`, the largest above 0.35:
//!
//! | phase | maps | lifts the smallest |
//! |---|---|---|
//! | close | `[0.08, 1]` to 1 within 7e-4 | 25-fold |
//! | lift | `[0, 1]` into `[.., 1.8]`, from 0.024 on above 0.18 | 31-fold |
//! | close after lift | `[0.18, 1.8]` to 1 within 2e-4 | 12-fold |
//!
//! A phase rounds `R` to eps of its norm, and Q makes up to the lift times that of it: so no phase lifts more than
//! 31-fold (of three lifts, 127-fold, the asymmetry was 5e-5). Nor does any map a singular value far below a smaller one,
//! which would blow up what products round away (Nakatsukasa and Higham 2012).

/// One phase, and whether all may be done after it.
pub(super) struct Phase {
    pub(super) steps: &'static [[f64; 3]],
    pub(super) may_end: bool,
}

/// The phases, in order. Matrices of condition up to 5 to 10 are done after the first, up to 1e3 after the third, up to
/// 1e4 after the fourth, up to 1e6 after the fifth. In all they lift 6e6-fold.
pub(super) const PHASES: [Phase; 5] = [
    Phase { steps: &CLOSE, may_end: true },
    Phase { steps: &LIFT, may_end: false },
    Phase { steps: &CLOSE_AFTER_LIFT, may_end: true },
    Phase { steps: &CLOSE, may_end: true },
    Phase { steps: &CLOSE, may_end: true },
];

const CLOSE: [[f64; 3]; 3] = [
    [5.950_269_232_619_686, -15.001_374_867_376_954, 10.440_675_926_007_186],
    [2.240_850_259_026_762, -1.614_711_642_245_296, 0.412_969_549_248_931],
    [1.885_912_067_516_194, -1.262_071_805_340_574, 0.376_209_216_333_340],
];

const LIFT: [[f64; 3]; 2] = [
    [7.492_822_519_477_943, -20.916_398_681_161_76, 15.034_211_611_497_858],
    [4.119_942_179_339_732, -3.477_154_092_828_85, 0.755_629_727_797_047],
];

const CLOSE_AFTER_LIFT: [[f64; 3]; 3] = [
    [3.050_694_735_723_745, -2.240_153_714_502_155, 0.465_464_584_122_936],
    [2.130_611_565_141_587, -1.511_647_532_356_161, 0.401_983_721_792_184],
    [1.879_156_175_748_287, -1.254_610_259_965_119, 0.375_461_324_362_049],
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
