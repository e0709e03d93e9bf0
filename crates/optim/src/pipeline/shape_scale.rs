//! The factor of an update by the shape of its matrix.

/// Which factor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// 1: every singular value of the update is the learning rate.
    None,
    /// `sqrt(max(1, out / in))` (Jordan 2024).
    Original,
    /// `0.2 sqrt(max(out, in))`: the update's root mean square is 0.2 rates, as `AdamW`'s (arXiv 2502.16982).
    MatchRms,
    /// `sqrt(out / in)`: the update's RMS-to-RMS operator norm is the rate (Bernstein 2025).
    Spectral,
}

impl Scale {
    /// Names in recipes.
    pub const NAMES: &[&str] = &["none", "original", "match-rms", "spectral"];

    pub fn parse(word: &str) -> Self {
        match word {
            "original" => Scale::Original,
            "match-rms" => Scale::MatchRms,
            "spectral" => Scale::Spectral,
            _ => Scale::None,
        }
    }

    /// The factor of a matrix with these axes.
    pub fn of(self, out: usize, inner: usize) -> f32 {
        let (out, inner) = (out as f64, inner as f64);
        (match self {
            Scale::None => 1.0,
            Scale::Original => (out / inner).max(1.0).sqrt(),
            Scale::MatchRms => 0.2 * out.max(inner).sqrt(),
            Scale::Spectral => (out / inner).sqrt(),
        }) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_follow_their_formulas() {
        for (name, tall, wide) in [
            ("none", 1.0, 1.0),
            ("original", 2.0, 1.0),
            ("match-rms", 0.2 * 20.0, 0.2 * 20.0),
            ("spectral", 2.0, 0.5),
        ] {
            let scale = Scale::parse(name);
            assert!((scale.of(400, 100) - tall).abs() < 1e-6, "{name}");
            assert!((scale.of(100, 400) - wide).abs() < 1e-6, "{name}");
        }
    }
}
