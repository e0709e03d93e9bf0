//! Finding secrets in what goes out, and blacking them out.

use std::borrow::Cow;

/// What stands for a secret.
const MASK: &str = "***";
/// No shorter piece of a secret is masked.
const LEAST: usize = 8;

/// Whether `part`, which is not empty, is somewhere in `bytes`.
pub fn contains(bytes: &[u8], part: &[u8]) -> bool {
    let Some(last) = bytes.len().checked_sub(part.len()) else { return false };
    let first = part[0];
    (0..=last).any(|at| bytes[at] == first && &bytes[at..at + part.len()] == part)
}

/// A secret as it stands within quotes.
pub fn escaped(secret: &str) -> String {
    secret.escape_debug().to_string()
}

/// `text` with [`MASK`] for each of `secrets` in it, and for each piece of one that has half of its bytes or more: a
/// message may have cut it. Also as it stands within quotes, where a message escapes it.
pub fn mask<'a, 's>(text: &'a str, secrets: impl Iterator<Item = &'s str>) -> Cow<'a, str> {
    let mut hidden: Vec<bool> = Vec::new();
    for secret in secrets {
        for form in [secret, &escaped(secret)] {
            cover(text.as_bytes(), form.as_bytes(), &mut hidden);
        }
    }
    if hidden.is_empty() {
        return Cow::Borrowed(text);
    }
    let (mut out, mut within) = (String::with_capacity(text.len()), false);
    for (at, c) in text.char_indices() {
        let hide = hidden[at..at + c.len_utf8()].contains(&true);
        match (hide, within) {
            (false, _) => out.push(c),
            (true, false) => out.push_str(MASK),
            (true, true) => {}
        }
        within = hide;
    }
    Cow::Owned(out)
}

/// Marks in `hidden`, which is made when the first is found, the bytes of every piece of `secret`.
fn cover(text: &[u8], secret: &[u8], hidden: &mut Vec<bool>) {
    let piece = (secret.len() / 2).max(LEAST);
    if secret.len() < piece {
        return;
    }
    for (at, window) in text.windows(piece).enumerate() {
        if contains(secret, window) {
            hidden.resize(text.len(), false);
            hidden[at..at + piece].fill(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(text: &str) -> Cow<'_, str> {
        mask(text, ["hf_0123456789abcdefghij", "say \"swordfish\""].into_iter())
    }

    #[test]
    fn secrets_and_halves_are_masked_and_the_rest_stays() {
        assert!(matches!(masked("nothing here: hf_012345"), Cow::Borrowed(_)));
        assert_eq!(masked("a hf_0123456789abcdefghij b"), "a *** b");
        assert_eq!(masked("hf_0123456789ab, cut"), "***, cut");
        assert_eq!(masked("the end 9abcdefghij"), "the end ***");
        assert_eq!(masked("hf_0123456789abcdefghijhf_0123456789abcdefghij"), "***");
        assert_eq!(masked("é 0123456789ab é"), "é *** é");
        assert_eq!(masked(r#"Some("say \"swordfish\"")"#), r#"Some("***")"#);
        assert_eq!(masked(""), "");
    }

    #[test]
    fn a_part_is_found_at_the_edges() {
        assert!(contains(b"abc", b"abc") && contains(b"abcd", b"cd") && contains(b"aab", b"ab"));
        assert!(!contains(b"ab", b"abc") && !contains(b"", b"a"));
    }
}
