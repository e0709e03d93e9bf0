//! Losses that stand out upwards.
//!
//! With `m` the median of the last `train.spike_window` finite losses before a step and `d` the median of their distances
//! from `m`, the step's loss is a spike where
//!
//! ```text
//! loss > m + train.spike_deviations * max(1.4826 d, 0.001 |m|)
//! ```
//!
//! `1.4826 d` is the standard deviation of normally distributed losses, which a few outliers do not move. The window counts
//! from its half on. Spikes are part of it, so that a loss which stays high is none any more once it is the usual one. What
//! is not finite is no spike: its step is skipped and counted as such.

use std::collections::VecDeque;

use runs::{Row, Spike};

use crate::recipe::Train;

/// The deviation is taken to be at least so much of the median: losses that hardly vary have no spikes of no size.
const LEAST: f64 = 1e-3;
/// Of a normal distribution: standard deviation over median distance from the median.
const NORMAL: f64 = 1.4826;

/// The losses before a step.
pub(crate) struct Spikes {
    window: usize,
    deviations: f64,
    losses: VecDeque<f64>,
}

impl Spikes {
    pub(crate) fn new(plan: &Train) -> Self {
        let window = usize::try_from(plan.spike_window).unwrap_or(usize::MAX);
        Spikes { window, deviations: plan.spike_deviations, losses: VecDeque::new() }
    }

    /// Takes in the loss of a step; tells whether it is a spike.
    pub(crate) fn record(&mut self, row: &Row) -> Option<Spike> {
        let (step, loss) = (row.step, row.loss);
        if self.window == 0 || !loss.is_finite() {
            return None;
        }
        let spike = (2 * self.losses.len() >= self.window).then(|| {
            let median = median(self.losses.iter().copied());
            let spread = NORMAL * self::median(self.losses.iter().map(|x| (x - median).abs()));
            let most = median + self.deviations * spread.max(LEAST * median.abs());
            (loss > most).then_some(Spike { step, loss, median })
        });
        if self.losses.len() == self.window {
            self.losses.pop_front();
        }
        self.losses.push_back(loss);
        spike.flatten()
    }
}

/// The median of at least one number; of an even count the mean of the two in the middle.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    let middle = values.len() / 2;
    let (below, &mut upper, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    let lower = below.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if values.len().is_multiple_of(2) { f64::midpoint(lower, upper) } else { upper }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spikes(window: usize, losses: impl IntoIterator<Item = f64>) -> Vec<u64> {
        let mut spikes = Spikes { window, deviations: 6.0, losses: VecDeque::new() };
        let rows = (1..).zip(losses).map(|(step, loss)| Row { step, loss, ..Row::default() });
        rows.filter_map(|row| Some(spikes.record(&row)?.step)).collect()
    }

    /// Losses that fall and vary.
    fn falling(step: u64) -> f64 {
        3.0 + 4.0 * (-(step as f64) / 40.0).exp() + 0.05 * (step as f64 * 2.4).sin()
    }

    #[test]
    fn medians_are_exact() {
        for (values, expected) in
            [(&[3.0][..], 3.0), (&[4.0, 1.0], 2.5), (&[9.0, 1.0, 2.0], 2.0), (&[8.0, 1.0, 2.0, 4.0], 3.0)]
        {
            assert!((median(values.iter().copied()) - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn a_loss_that_stands_out_is_a_spike_and_falling_losses_are_none() {
        let with =
            |at: u64, loss: f64| (1..300).map(move |step| if step == at { loss } else { falling(step) });
        assert_eq!(spikes(50, with(0, 0.0)), [0; 0]);
        assert_eq!(spikes(50, with(200, 5.0)), [200]);
        assert_eq!(spikes(50, with(200, 1.0)), [0; 0], "downwards is no spike");
        assert_eq!(spikes(50, with(200, f64::NAN)), [0; 0]);
        assert_eq!(spikes(0, with(200, 5.0)), [0; 0], "switched off");
        assert_eq!(spikes(50, with(25, 1e3)), [0; 0], "less than half of the window is there");
        assert_eq!(spikes(50, with(26, 1e3)), [26]);
    }

    #[test]
    fn a_loss_that_stays_high_becomes_the_usual_one() {
        let found = spikes(20, (1..200).map(|step| falling(step) + if step < 100 { 0.0 } else { 5.0 }));
        assert!(found.first() == Some(&100) && found.len() <= 11, "{found:?}");
    }

    #[test]
    fn losses_that_hardly_vary_have_no_spikes_of_no_size() {
        assert_eq!(spikes(20, (1..60).map(|step| if step == 50 { 2.001 } else { 2.0 })), [0; 0]);
        assert_eq!(spikes(20, (1..60).map(|step| if step == 50 { 2.1 } else { 2.0 })), [50]);
    }
}
