//! Making long series drawable: thinning that keeps every spike, and smoothing that does not lag.

/// A value beyond this is treated as not finite: no axis can show it.
const BEYOND: f64 = 1e30;

/// Points a drawn line may have, about.
pub(super) const LIMIT: usize = 2000;

/// The share of a series that one point of the smoothed line looks at, each way.
const REACH: f64 = 0.04;

/// The fewest points that are worth smoothing.
const WORTH_SMOOTHING: usize = 20;

/// Whether a point can be drawn.
pub(super) fn drawable((x, y): (f64, f64), log_y: bool) -> bool {
    x.abs() < BEYOND && y.abs() < BEYOND && (!log_y || y > 0.0)
}

/// The unbroken lines through `points` (at most [`LIMIT`] points and a few), broken at gaps.
///
/// A longer series is cut into `LIMIT / 2` stretches of equal length, of which each gives its least and its greatest value in their
/// order; a stretch with nothing to draw is a gap.
pub(super) fn lines(points: &[(f64, f64)], log_y: bool) -> Vec<Vec<(f64, f64)>> {
    let mut lines = vec![Vec::new()];
    let size = if points.len() <= LIMIT { 1 } else { points.len().div_ceil(LIMIT / 2) };
    for stretch in points.chunks(size) {
        let mut extremes: Option<(usize, usize)> = None;
        for (at, &point) in stretch.iter().enumerate().filter(|&(_, &point)| drawable(point, log_y)) {
            let (low, high) = extremes.unwrap_or((at, at));
            extremes = Some((
                if point.1 < stretch[low].1 { at } else { low },
                if point.1 > stretch[high].1 { at } else { high },
            ));
        }
        let line = lines.last_mut().expect("there is always a line");
        match extremes {
            None if line.is_empty() => {}
            None => lines.push(Vec::new()),
            Some((low, high)) => {
                line.push(stretch[low.min(high)]);
                if low != high {
                    line.push(stretch[low.max(high)]);
                }
            }
        }
    }
    lines.retain(|line| !line.is_empty());
    lines
}

/// The smoothed lines through `points`, `LIMIT / 2` points at most, broken at gaps; none where there are too few to smooth.
///
/// Locally weighted linear regression with tricube weights (Cleveland 1979, without the robust iterations): unlike an
/// exponential average it follows a falling curve without lag and ends at its end. On a logarithmic axis it smooths log y. A long
/// series is averaged over stretches of equal length first.
pub(super) fn smooth(points: &[(f64, f64)], log_y: bool) -> Vec<Vec<(f64, f64)>> {
    let size = points.len().div_ceil(LIMIT / 2).max(1);
    let means: Vec<Option<(f64, f64)>> = points.chunks(size).map(|stretch| mean(stretch, log_y)).collect();
    if means.iter().flatten().count() < WORTH_SMOOTHING {
        return Vec::new();
    }
    let reach = ((means.len() as f64 * REACH).round() as usize).max(4);
    let fitted: Vec<Option<(f64, f64)>> = (0..means.len())
        .map(|at| {
            let (x, _) = means[at]?;
            let y = fit(&means[at.saturating_sub(reach)..means.len().min(at + reach + 1)], x);
            Some((x, if log_y { y.exp() } else { y }))
        })
        .collect();
    let lines = fitted.split(Option::is_none).filter(|line| line.len() > 1);
    lines.map(|line| line.iter().copied().flatten().collect()).collect()
}

/// The mean of the drawable points, of log y on a logarithmic axis.
fn mean(stretch: &[(f64, f64)], log_y: bool) -> Option<(f64, f64)> {
    let (mut count, mut x, mut y) = (0.0, 0.0, 0.0);
    for &point in stretch.iter().filter(|&&point| drawable(point, log_y)) {
        count += 1.0;
        x += point.0;
        y += if log_y { point.1.ln() } else { point.1 };
    }
    (count > 0.0).then(|| (x / count, y / count))
}

/// The weighted least-squares line through the points of `near`, read at `x`.
fn fit(near: &[Option<(f64, f64)>], x: f64) -> f64 {
    let span = near.iter().flatten().map(|point| (point.0 - x).abs()).fold(0.0, f64::max) * 1.001;
    let (mut w, mut wx, mut wy, mut wxx, mut wxy) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for &(at, y) in near.iter().flatten() {
        let d = if span > 0.0 { (at - x) / span } else { 0.0 };
        let weight = (1.0 - d.abs().powi(3)).powi(3);
        w += weight;
        wx += weight * d;
        wy += weight * y;
        wxx += weight * d * d;
        wxy += weight * d * y;
    }
    // The line's value at d = 0; the plain mean where all x are one.
    let determinant = w * wxx - wx * wx;
    if determinant > 1e-12 * w * w { (wxx * wy - wx * wxy) / determinant } else { wy / w }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(n: usize, f: impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
        (0..n).map(|at| (at as f64, f(at as f64))).collect()
    }

    #[test]
    fn thinning_keeps_every_spike_and_the_order() {
        let mut points = series(1_000_000, |x| 5.0 - x * 1e-6);
        points[123_456].1 = 99.0;
        points[777_777].1 = -99.0;
        let lines = lines(&points, false);
        assert_eq!(lines.len(), 1);
        assert!(lines[0].len() <= LIMIT, "{}", lines[0].len());
        assert!(lines[0].contains(&(123_456.0, 99.0)) && lines[0].contains(&(777_777.0, -99.0)));
        assert!(lines[0].windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!((lines[0][0].0, lines[0].last().unwrap().0), (0.0, 999_999.0));
    }

    #[test]
    fn gaps_break_the_line() {
        let mut points = series(10, |x| x);
        points[0].1 = f64::NAN;
        points[4].1 = f64::INFINITY;
        points[5].1 = 1e40;
        points[7].1 = f64::NAN;
        let found: Vec<usize> = lines(&points, false).iter().map(Vec::len).collect();
        assert_eq!(found, [3, 1, 2]);
        assert!(lines(&[(0.0, f64::NAN)], false).is_empty());
        assert_eq!(lines(&series(10, |x| x - 5.0), true)[0].len(), 4);
    }

    #[test]
    fn smoothing_keeps_straight_lines_and_does_not_lag() {
        let line = series(5000, |x| 3.0 - 0.25 * x);
        for (x, y) in smooth(&line, false).concat() {
            assert!((y - (3.0 - 0.25 * x)).abs() < 1e-6, "at {x}: {y}");
        }
        let noisy = series(400, |x| 2.0 + if (x as u64).is_multiple_of(2) { 0.5 } else { -0.5 });
        let smoothed = smooth(&noisy, false).concat();
        assert!(smoothed[20..380].iter().all(|point| (point.1 - 2.0).abs() < 0.03), "{smoothed:?}");
        assert!(smooth(&line[..19], false).is_empty());
        let mut gap = noisy;
        gap[200..230].fill((0.0, f64::NAN));
        let lengths: Vec<usize> = smooth(&gap, false).iter().map(Vec::len).collect();
        assert_eq!(lengths, [200, 170]);
    }

    #[test]
    fn equal_abscissae_are_averaged() {
        let points: Vec<(f64, f64)> = (0..40).map(|at| (7.0, f64::from(at % 2))).collect();
        assert!(smooth(&points, false).concat().iter().all(|point| (point.1 - 0.5).abs() < 0.1));
    }
}
