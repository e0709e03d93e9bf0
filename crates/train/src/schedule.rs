//! The learning-rate schedule: a warm-up, then one of four shapes. Pure arithmetic; both rates of a recipe follow it.
//!
//! With `N` steps, `W` of them warm-up, final share `f` and decay share `d`, step `t = 1..=N` runs at the peak rate times
//! `warm(t) * decay(t)`:
//!
//! | | |
//! |---|---|
//! | `warm(t)` | `min(1, t / W)`, 1 where `W = 0` |
//! | `constant` | `1`, as published |
//! | `cosine` | `f + (1 - f) (1 + cos(pi p)) / 2`, `p = max(0, t - W) / (N - W)` |
//! | `linear` | `f + (1 - f) (1 - p)` |
//! | `wsd` | `f + (1 - f) (1 - max(0, t - N + D) / D)`, `D = min(round(d N), N - W)` |
//!
//! A shape that decays begins at the peak, which step `W` has, and gives step `N` exactly the share `f`. Warm-up, stable
//! phase and decay (WSD) are those of Hu et al. 2024 (arXiv 2404.06395), the decay linear as in Hägele et al. 2024
//! (arXiv 2405.18392). A warm-up that outlasts the run leaves no room to decay.
//!
//! ```
//! use train::schedule::{Schedule, Shape};
//!
//! let wsd = Schedule { shape: Shape::Wsd, steps: 10, warmup: 2, final_share: 0.0, decay_share: 0.4 };
//! let shares: Vec<f64> = (1..=10).map(|step| wsd.share(step)).collect();
//! assert_eq!(shares, [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]);
//! ```

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// What the rate does after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// It stays.
    Constant,
    /// It falls along half a cosine.
    Cosine,
    /// It falls in a straight line.
    Linear,
    /// It stays, then falls in a straight line: warm-up, stable, decay.
    Wsd,
}

impl Shape {
    /// The names in recipes.
    pub const NAMES: &[&str] = &["constant", "cosine", "linear", "wsd"];
}

/// A schedule: the share of the peak rate that each step runs at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// What it does after the warm-up.
    pub shape: Shape,
    /// Steps of the run.
    pub steps: u64,
    /// Steps of the warm-up.
    pub warmup: u64,
    /// Share of the peak at the last step, for shapes that decay.
    pub final_share: f64,
    /// Share of the steps over which `wsd` decays.
    pub decay_share: f64,
}

impl Schedule {
    /// Share of the peak rate at a step, from 1.
    pub fn share(&self, step: u64) -> f64 {
        self.warm(step) * self.decay(step)
    }

    /// The same without the warm-up.
    pub fn decay(&self, step: u64) -> f64 {
        let room = self.steps.saturating_sub(self.warmup);
        // How far the last `length` steps are through at this one.
        let progress = |length: u64| match step.saturating_sub(self.steps - length) {
            0 => 0.0,
            done => done as f64 / length as f64,
        };
        let fall = 1.0 - self.final_share;
        match self.shape {
            Shape::Constant => 1.0,
            Shape::Cosine => self.final_share + fall * f64::midpoint(1.0, (PI * progress(room)).cos()),
            Shape::Linear => self.final_share + fall * (1.0 - progress(room)),
            Shape::Wsd => {
                let length = (self.decay_share * self.steps as f64).round() as u64;
                self.final_share + fall * (1.0 - progress(length.min(room)))
            }
        }
    }

    fn warm(&self, step: u64) -> f64 {
        if step < self.warmup { step as f64 / self.warmup as f64 } else { 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(shape: Shape, steps: u64, warmup: u64, final_share: f64) -> Vec<f64> {
        let schedule = Schedule { shape, steps, warmup, final_share, decay_share: 0.2 };
        (1..=steps).map(|step| schedule.share(step)).collect()
    }

    #[test]
    fn every_shape_at_exact_values() {
        assert_eq!(shares(Shape::Constant, 5, 2, 0.0), [0.5, 1.0, 1.0, 1.0, 1.0]);
        assert_eq!(shares(Shape::Constant, 3, 0, 0.5), [1.0, 1.0, 1.0]);
        assert_eq!(shares(Shape::Linear, 6, 2, 0.0), [0.5, 1.0, 0.75, 0.5, 0.25, 0.0]);
        assert_eq!(shares(Shape::Linear, 4, 0, 0.5), [0.875, 0.75, 0.625, 0.5]);
        // 20 % of ten steps are the last two.
        assert_eq!(shares(Shape::Wsd, 10, 1, 0.0)[6..], [1.0, 1.0, 0.5, 0.0]);
        assert_eq!(shares(Shape::Wsd, 10, 1, 0.5)[6..], [1.0, 1.0, 0.75, 0.5]);
        let cosine = shares(Shape::Cosine, 5, 1, 0.2);
        let half = std::f64::consts::FRAC_1_SQRT_2;
        for (got, want) in cosine.iter().zip([1.0, 0.6 + 0.4 * half, 0.6, 0.6 - 0.4 * half, 0.2]) {
            assert!((got - want).abs() < 1e-15, "{cosine:?}");
        }
    }

    #[test]
    fn the_decay_never_begins_inside_the_warm_up() {
        let schedule =
            Schedule { shape: Shape::Wsd, steps: 10, warmup: 8, final_share: 0.0, decay_share: 1.0 };
        assert_eq!((7..=10).map(|t| schedule.share(t)).collect::<Vec<_>>(), [0.875, 1.0, 0.5, 0.0]);
        for shape in [Shape::Constant, Shape::Cosine, Shape::Linear, Shape::Wsd] {
            assert_eq!(shares(shape, 2, 4, 0.0), [0.25, 0.5], "{shape:?}");
            assert_eq!(shares(shape, 2, 2, 0.0), [0.5, 1.0], "{shape:?}");
        }
    }

    #[test]
    fn a_run_of_no_decay_stays_at_the_peak() {
        let schedule =
            Schedule { shape: Shape::Wsd, steps: 10, warmup: 0, final_share: 0.0, decay_share: 0.0 };
        assert_eq!((1..=10).map(|t| schedule.share(t)).collect::<Vec<_>>(), [1.0; 10]);
    }

    #[test]
    fn the_names_are_those_of_recipes() {
        for (shape, name) in
            [Shape::Constant, Shape::Cosine, Shape::Linear, Shape::Wsd].into_iter().zip(Shape::NAMES)
        {
            assert_eq!(toml::Value::try_from(shape).unwrap().as_str(), Some(*name));
        }
    }
}
