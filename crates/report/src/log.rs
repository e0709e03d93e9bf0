//! A step in one line.

use runs::Row;

use crate::{format, remarks};

/// `step 47/200: loss 2.7663, lr 0.04, 10.2k tokens/s`, then the validation loss where there is one and what else should be known
/// of the step.
pub fn log_line(row: &Row, steps: u64) -> String {
    let mut line = format!(
        "step {}/{steps}: loss {}, lr {}, {} tokens/s",
        row.step,
        format::loss(row.loss),
        // Six significant digits at most: a rate on a curve has seventeen.
        format!("{:.5e}", row.lr).parse().unwrap_or(row.lr),
        format::short(row.tokens_per_s)
    );
    if let Some(loss) = row.val_loss {
        line = format!("{line}, validation loss {}", format::loss(loss));
    }
    for remark in remarks(&row.diagnostics) {
        line = format!("{line}, {remark}");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_there_is() {
        let row = Row { step: 47, loss: 2.76631, lr: 0.1 / 3.0, tokens_per_s: 10_210.0, ..Row::default() };
        assert_eq!(log_line(&row, 200), "step 47/200: loss 2.7663, lr 0.0333333, 10.2k tokens/s");
        let row =
            Row { val_loss: Some(2.5), lr: 0.04, diagnostics: vec![("ortho_deficient".into(), 2.0)], ..row };
        let line = "step 47/200: loss 2.7663, lr 0.04, 10.2k tokens/s, validation loss 2.5000, 2 matrices short of full rank";
        assert_eq!(log_line(&row, 200), line);
    }
}
