//! What the diagnostics of a run say in words: while it runs where something is amiss, and at its end.
//!
//! The names are those that crate `optim` gives its diagnostics: `update_survival` (the norm of what the stored weights
//! moved over the norm of what was asked; `.matrices`: of those alone), `unchanged_share` (of entries that did not move), `noise_added` and
//! `noise_skipped` (matrices of a step that got noise or did without) and `ortho_deficient` (matrices that the
//! orthogonaliser found to be short of full rank).

use runs::Metrics;

use crate::format;

/// Less of an update than this share reaching the weights is worth a word.
const LOST: f64 = 0.5;

/// The survival that is worth telling: of the matrices where they have a rule of their own, else of all weights. The
/// weights that `AdamW` takes move so much more that they would hide what the matrices lose.
const SURVIVAL: [&str; 2] = ["update_survival.matrices", "update_survival"];

/// What should be known of one step, from its diagnostics; nothing where all is well.
pub fn remarks(diagnostics: &[(String, f64)]) -> Vec<String> {
    let value = |name: &str| diagnostics.iter().find(|(given, _)| given == name).map(|(_, value)| *value);
    let mut remarks = Vec::new();
    if let Some(survival) = SURVIVAL.iter().find_map(|name| value(name)).filter(|share| *share < LOST) {
        remarks.push(format!("{} of the update survives", percent(survival)));
    }
    if let (Some(added), Some(skipped)) = (value("noise_added"), value("noise_skipped")) {
        remarks.push(format!("noise in {added} of {} matrices", added + skipped));
    }
    if let Some(deficient) = value("ortho_deficient").filter(|count| *count > 0.0) {
        remarks.push(format!("{deficient} matrices short of full rank"));
    }
    remarks
}

/// Lines of the closing table: label and text. `rounded` says whether the weights of record are coarser than f32.
pub(crate) fn summary(metrics: &Metrics, rounded: bool) -> Vec<(&'static str, String)> {
    let series = |name: &str| -> Vec<f64> {
        let values = metrics.rows.iter().flat_map(|row| &row.diagnostics);
        values.filter(|(given, value)| given == name && value.is_finite()).map(|(_, value)| *value).collect()
    };
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let sum = |values: &[f64]| format::count(values.iter().sum::<f64>() as u64);
    let mut lines = Vec::new();
    let [matrices, all] = SURVIVAL.map(series);
    let (survival, whose) =
        if matrices.is_empty() { (all, "the weights") } else { (matrices, "the matrices") };
    if rounded && !survival.is_empty() {
        let mut text = format!("{whose} moved by {} of the norm asked for", percent(mean(&survival)));
        let unchanged = series("unchanged_share");
        if !unchanged.is_empty() {
            text = format!("{text}; {} of all entries unchanged by a step", percent(mean(&unchanged)));
        }
        lines.push(("survival", text));
    }
    let (added, skipped) = (series("noise_added"), series("noise_skipped"));
    if !added.is_empty() {
        lines.push(("noise", format!("in {} matrices, skipped in {}", sum(&added), sum(&skipped))));
    }
    let deficient = series("ortho_deficient");
    if deficient.iter().any(|&count| count > 0.0) {
        lines.push(("rank", format!("{} matrices short of full rank", sum(&deficient))));
    }
    lines
}

/// A share in percent, to two digits where it is small.
fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    if percent.abs() < 10.0 { format!("{percent:.2} %") } else { format!("{percent:.1} %") }
}

#[cfg(test)]
mod tests {
    use runs::Row;

    use super::*;

    fn step(values: &[(&str, f64)]) -> Vec<(String, f64)> {
        values.iter().map(|(name, value)| ((*name).to_string(), *value)).collect()
    }

    #[test]
    fn a_step_is_remarked_on_where_something_is_amiss() {
        assert_eq!(remarks(&step(&[("update_survival", 0.99), ("ortho_deficient", 0.0)])), [""; 0]);
        let bad = step(&[
            ("update_survival", 0.9),
            ("update_survival.matrices", 0.0131),
            ("noise_added", 3.0),
            ("noise_skipped", 9.0),
            ("ortho_deficient", 2.0),
        ]);
        assert_eq!(
            remarks(&bad),
            ["1.31 % of the update survives", "noise in 3 of 12 matrices", "2 matrices short of full rank"]
        );
    }

    #[test]
    fn a_run_ends_with_its_means_and_sums() {
        let rows = [(0.25, 700.0), (0.75, 800.0), (f64::NAN, 0.0)].map(|(survival, noise)| Row {
            diagnostics: step(&[
                ("update_survival", survival),
                ("unchanged_share", 0.9),
                ("noise_added", noise),
                ("noise_skipped", 1.0),
                ("ortho_deficient", 0.0),
            ]),
            ..Row::default()
        });
        let metrics = Metrics { rows: rows.into(), ..Metrics::default() };
        let told =
            "the weights moved by 50.0 % of the norm asked for; 90.0 % of all entries unchanged by a step"
                .to_string();
        let noise = ("noise", "in 1,500 matrices, skipped in 3".to_string());
        assert_eq!(summary(&metrics, true), [("survival", told), noise.clone()]);
        assert_eq!(summary(&metrics, false), [noise]);
        assert_eq!(summary(&Metrics::default(), true), []);
    }
}
