//! Which documents are held out: 5 % of them, chosen by their content alone.
//!
//! A document is held out when the first 64 bits of its blake3 hash, read as a fraction of 2^64, fall below 5 %. Order,
//! shard and neighbours play no part, so exact duplicates always land on the same side and adding documents moves none.

/// Share of the documents held out for validation.
pub const VALIDATION_SHARE: f64 = 0.05;

/// Whether the document with this text belongs to the validation split.
pub fn is_validation(text: &str) -> bool {
    let hash = blake3::hash(text.as_bytes());
    let head = hash.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    (head as f64) < VALIDATION_SHARE * 2f64.powi(64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_twenty() {
        let held = (0..20_000).filter(|i| is_validation(&format!("document {i}"))).count();
        assert!((875..1125).contains(&held), "{held} of 20000, expected 1000 +- 4 standard errors");
    }
}
