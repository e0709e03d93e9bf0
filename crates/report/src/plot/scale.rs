//! From values to pixels, and where the ticks go.

use crate::format;

/// An axis: a range of values on a range of pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    /// The range of values, logarithms of them on a logarithmic axis.
    low: f64,
    high: f64,
    /// The pixels of `low` and `high`.
    from: f64,
    to: f64,
    log: bool,
}

impl Scale {
    /// An axis over the `values`, all drawable, with `margin` (a share of the range) free at either end. A range of no
    /// extent is widened; none at all gives 0 to 1 (1 to 10 on a logarithmic axis).
    pub(super) fn new(values: impl Iterator<Item = f64>, margin: f64, log: bool, pixels: (f64, f64)) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values {
            let value = if log { value.log10() } else { value };
            low = low.min(value);
            high = high.max(value);
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        } else if high - low <= 1e-9 * low.abs().max(high.abs()) {
            let half = if log { 0.1 } else { (0.1 * low.abs()).max(f64::MIN_POSITIVE.sqrt()) };
            let half = if low == 0.0 { 1.0 } else { half };
            (low, high) = (low - half, high + half);
        } else {
            let free = margin * (high - low);
            // A loss is never below zero, so neither is its axis.
            let least = if log || low < 0.0 { f64::NEG_INFINITY } else { 0.0 };
            (low, high) = ((low - free).max(least), high + free);
        }
        Self { low, high, from: pixels.0, to: pixels.1, log }
    }

    /// The pixel of a value.
    pub(super) fn pixel(&self, value: f64) -> f64 {
        let value = if self.log { value.log10() } else { value };
        self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    /// Ticks with their labels, about `wanted` of them, at round values.
    pub(super) fn ticks(&self, wanted: usize) -> Vec<(f64, String)> {
        if !self.log {
            return even(self.low, self.high, wanted, 0.0);
        }
        let (first, last) = (self.low.floor() as i32, self.high.ceil() as i32);
        let decades = self.high - self.low;
        let stride = (decades / wanted as f64).ceil().max(1.0) as usize;
        let steps: &[f64] = if decades < wanted as f64 / 2.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let mut ticks: Vec<f64> = (first..=last)
            .step_by(stride)
            .flat_map(|decade| steps.iter().map(move |step| step * 10f64.powi(decade)))
            .filter(|tick| (self.low..=self.high).contains(&tick.log10()))
            .collect();
        if ticks.len() < 3 {
            return even(10f64.powf(self.low), 10f64.powf(self.high), wanted, 0.0);
        }
        ticks.drain(..).map(|tick| (tick, label(tick, tick))).collect()
    }

    /// Ticks at whole numbers only, for steps.
    pub(super) fn whole_ticks(&self, wanted: usize) -> Vec<(f64, String)> {
        even(self.low, self.high, wanted, 1.0)
    }
}

/// Multiples of the least round step, `least` or more, that gives at most `wanted` ticks.
fn even(low: f64, high: f64, wanted: usize, least: f64) -> Vec<(f64, String)> {
    let rough = ((high - low) / wanted as f64).max(least);
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|step| *step >= 0.999 * rough);
    let step = step.unwrap_or(10.0 * power);
    let (first, last) = ((low / step).ceil() as i64, (high / step).floor() as i64);
    (first..=last).map(|n| (n as f64 * step, label(n as f64 * step, step))).collect()
}

/// A tick's label: as many decimals as the step has, large and tiny numbers short.
fn label(value: f64, step: f64) -> String {
    let decimals = (-step.log10() - 1e-9).ceil().max(0.0) as usize;
    if value == 0.0 {
        "0".to_owned()
    } else if step < 1e-5 || value.abs() >= 1e13 {
        format!("{value:e}")
    } else if decimals > 0 {
        format!("{value:.decimals$}")
    } else if step >= 1000.0 {
        short_exact(value)
    } else {
        let sign = if value < 0.0 { "-" } else { "" };
        format!("{sign}{}", format::count(value.abs().round() as u64))
    }
}

/// A round number with its suffix and no idle zeros: `2.5k`, `1M`.
fn short_exact(value: f64) -> String {
    let (unit, suffix) = [(1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")]
        .into_iter()
        .find(|(unit, _)| value.abs() >= *unit)
        .unwrap_or((1.0, ""));
    // Round away the error of the multiplication, as in 3 * 0.1.
    let scaled = (value / unit * 1e6).round() / 1e6;
    format!("{scaled}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(low: f64, high: f64, log: bool) -> Vec<String> {
        let scale = Scale::new([low, high].into_iter(), 0.0, log, (0.0, 100.0));
        scale.ticks(6).into_iter().map(|tick| tick.1).collect()
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(labels(0.0, 10.0, false), ["0", "2", "4", "6", "8", "10"]);
        assert_eq!(labels(1.87, 6.9, false), ["2", "3", "4", "5", "6"]);
        assert_eq!(
            labels(2.0, 2.012, false),
            ["2.000", "2.002", "2.004", "2.006", "2.008", "2.010", "2.012"]
        );
        assert_eq!(labels(0.0, 1e6, false), ["0", "200k", "400k", "600k", "800k", "1M"]);
        assert_eq!(labels(0.0, 2600.0, false), ["0", "500", "1,000", "1,500", "2,000", "2,500"]);
        assert_eq!(labels(-1.0, 1.0, false), ["-1.0", "-0.5", "0", "0.5", "1.0"]);
    }

    #[test]
    fn logarithmic_ticks_suit_the_range() {
        assert_eq!(labels(1.0, 1e6, true), ["1", "10", "100", "1k", "10k", "100k", "1M"]);
        assert_eq!(labels(1.5, 60.0, true), ["2", "5", "10", "20", "50"]);
        assert_eq!(labels(2.1, 4.9, true), ["2.5", "3.0", "3.5", "4.0", "4.5"]);
    }

    #[test]
    fn any_range_gives_an_axis() {
        for values in [
            vec![],
            vec![3.0],
            vec![0.0],
            vec![2.0, 2.0 + 1e-15],
            vec![-5.0],
            vec![1e-300],
            vec![-1e30, 1e30],
        ] {
            let scale = Scale::new(values.iter().copied(), 0.05, false, (0.0, 100.0));
            for &value in &values {
                assert!((-1e-9..=100.0 + 1e-9).contains(&scale.pixel(value)), "{values:?}");
            }
            assert!((1..=12).contains(&scale.ticks(6).len()), "{values:?}: {:?}", scale.ticks(6));
        }
    }

    #[test]
    fn steps_are_whole() {
        let scale = Scale::new([1.0, 3.0].into_iter(), 0.0, false, (0.0, 100.0));
        let labels: Vec<String> = scale.whole_ticks(8).into_iter().map(|tick| tick.1).collect();
        assert_eq!(labels, ["1", "2", "3"]);
    }
}
