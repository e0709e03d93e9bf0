//! Coefficients of odd quintics, as data.

use super::refused;
use crate::error::Result;

/// `[a, b, c]` of each step.
pub type Coefficients = Vec<[f64; 3]>;

/// Named sets: steps, of which the last is repeated, and how many there are by default.
pub const SETS: &[(&str, &[[f64; 3]], usize)] = &[
    // Jordan 2024, <https://kellerjordan.github.io/posts/muon/>: lifts small singular values 3.4-fold a step, and leaves
    // them between 0.7 and 1.2.
    ("jordan", &[[3.4445, -4.7750, 2.0315]], 5),
    // You 2025, as in modded-nanogpt: one set a step, which leave less scatter.
    (
        "you",
        &[
            [4.0848, -6.8946, 2.9270],
            [3.9505, -6.3029, 2.6377],
            [3.7418, -5.5913, 2.3037],
            [2.8769, -3.1427, 1.2046],
            [2.8366, -3.0525, 1.2012],
        ],
        5,
    ),
    // Converges to 1, slowly.
    ("convergent", &[[2.0, -1.5, 0.5]], 12),
    // Polar Express without its margin: see `express`.
    ("polar-express", &EXPRESS, 5),
];

/// Polar Express (Amsel et al. 2025, arXiv 2505.16932), for singular values from 1e-3.
const EXPRESS: [[f64; 3]; 8] = [
    [8.287_212_018_145_63, -23.595_886_519_098_837, 17.300_387_312_530_933],
    [4.107_059_111_542_203, -2.947_849_916_737_910_6, 0.544_843_108_292_660_1],
    [3.948_690_853_482_294_6, -2.908_902_115_962_949, 0.551_819_139_437_013_7],
    [3.318_419_657_370_601_5, -2.488_488_024_314_874, 0.510_048_940_123_72],
    [2.300_652_019_954_817, -1.668_903_984_574_749_3, 0.418_807_311_952_567_3],
    [1.891_301_407_787_398, -1.267_995_827_194_586_8, 0.376_804_089_485_248_35],
    [1.875_001_480_853_447_9, -1.250_001_645_399_948_7, 0.375_000_164_547_424_8],
    [1.875, -1.25, 0.375],
];

/// Divisor of the singular values in the first seven of them, against rounding above 1.
const SAFETY: f64 = 1.01;

/// So many steps of Polar Express, made safe as in the paper's code: the first seven by 1.01 (1.01^3, 1.01^5), the last,
/// which is repeated, as it is.
pub(super) fn express(steps: usize) -> Coefficients {
    let safe = |(i, [a, b, c]): (usize, [f64; 3])| {
        if i + 1 < EXPRESS.len() { [a / SAFETY, b / SAFETY.powi(3), c / SAFETY.powi(5)] } else { [a, b, c] }
    };
    repeated(&EXPRESS, steps).into_iter().enumerate().map(safe).collect()
}

/// A named set, or steps `a,b,c` with semicolons between; `default` is the set of an empty text.
pub(super) fn parse(text: &str, default: &str, steps: usize) -> Result<Coefficients> {
    let name = if text.is_empty() { default } else { text };
    if let Some((name, set, own)) = SETS.iter().find(|set| set.0 == name) {
        let steps = if steps == 0 { *own } else { steps };
        return Ok(if *name == "polar-express" { express(steps) } else { repeated(set, steps) });
    }
    let step = |part: &str| -> Option<[f64; 3]> {
        let numbers: Option<Vec<f64>> =
            part.split(',').map(|x| x.trim().parse().ok().filter(|x: &f64| x.is_finite())).collect();
        numbers?.try_into().ok()
    };
    let given: Option<Vec<[f64; 3]>> = text.trim_end_matches([';', ' ']).split(';').map(step).collect();
    let names: Vec<&str> = SETS.iter().map(|set| set.0).collect();
    let given = given.ok_or_else(|| {
        refused("coefficients", format!("`{text}` is none of {} and no list a,b,c; a,b,c", names.join(", ")))
    })?;
    let steps = if steps == 0 { given.len() } else { steps };
    Ok(repeated(&given, steps))
}

fn repeated(set: &[[f64; 3]], steps: usize) -> Coefficients {
    let last = set[set.len() - 1];
    set.iter().copied().chain(std::iter::repeat(last)).take(steps).collect()
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "the values are exact")]
mod tests {
    use super::*;

    #[test]
    fn texts_become_steps() {
        assert_eq!(parse("", "jordan", 0).unwrap(), vec![[3.4445, -4.7750, 2.0315]; 5]);
        assert_eq!(parse("you", "jordan", 7).unwrap()[6], [2.8366, -3.0525, 1.2012]);
        assert_eq!(parse("2, -1.5, .5; 1,0,0", "jordan", 3).unwrap()[1..], [[1.0, 0.0, 0.0]; 2]);
        for wrong in ["jordann", "1,2", "1,2,3,4", "1,2,x", "1,2,inf", ";"] {
            let error = parse(wrong, "jordan", 0).unwrap_err().to_string();
            assert!(error.contains(wrong) && error.contains("jordan, you"), "{error}");
        }
    }

    #[test]
    fn polar_express_is_safe_but_in_its_last_step() {
        let steps = express(10);
        assert_eq!(steps[9], [1.875, -1.25, 0.375]);
        assert!((steps[0][0] * SAFETY - EXPRESS[0][0]).abs() < 1e-12);
    }
}
