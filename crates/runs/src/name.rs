//! Names of runs: what is allowed, and how `auto` picks one.

use jiff::Timestamp;

use crate::{Error, Result};

const MAX_LEN: usize = 100;
const MAX_PREFIX: usize = 60;

const ADJECTIVES: [&str; 32] = [
    "amber", "bold", "brave", "bright", "calm", "clear", "crisp", "eager", "early", "fair", "fleet",
    "gentle", "golden", "happy", "keen", "kind", "light", "lively", "lucid", "mellow", "merry", "noble",
    "proud", "quick", "quiet", "silver", "steady", "still", "sunny", "swift", "warm", "wise",
];
const ANIMALS: [&str; 32] = [
    "badger", "beaver", "bison", "crane", "curlew", "deer", "dolphin", "eagle", "falcon", "finch", "fox",
    "gecko", "hare", "heron", "ibex", "jay", "lark", "lynx", "marten", "newt", "otter", "owl", "plover",
    "puffin", "raven", "robin", "seal", "stork", "swan", "tern", "whale", "wren",
];

/// Accepts a name that is one plain, portable folder name.
pub(crate) fn check(name: &str) -> Result<()> {
    let wrong = |why| Err(Error::Name { name: name.to_owned(), why });
    match name.chars().next() {
        None => wrong("it is empty"),
        Some('.' | '-') => wrong("it begins with `.` or `-`"),
        _ if !name.chars().all(allowed) => wrong("it has a character that is not allowed"),
        _ if name.len() > MAX_LEN => wrong("it is longer than 100 characters"),
        _ => Ok(()),
    }
}

/// A readable name: `prefix-20261122-0544-quiet-otter`. Time is UTC; the words follow from `now`, the process and the
/// number of names tried before. Characters of the prefix that no name may have become `-`.
pub(crate) fn auto(prefix: &str, now: Timestamp, attempt: u32) -> String {
    let clean = cleaned(prefix);
    let seed = format!("{} {} {attempt}", now.as_nanosecond(), std::process::id());
    let hash = blake3::hash(seed.as_bytes());
    let [first, second, ..] = hash.as_bytes();
    let adjective = ADJECTIVES[usize::from(*first) % ADJECTIVES.len()];
    let animal = ANIMALS[usize::from(*second) % ANIMALS.len()];
    let stamp = now.strftime("%Y%m%d-%H%M");
    let dash = if clean.is_empty() { "" } else { "-" };
    format!("{clean}{dash}{stamp}-{adjective}-{animal}")
}

/// The beginning of a text, fit for a name.
pub(crate) fn cleaned(text: &str) -> String {
    let clean: String = text.chars().take(MAX_PREFIX).map(|c| if allowed(c) { c } else { '-' }).collect();
    clean.trim_matches(['.', '-']).to_owned()
}

fn allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_plain_folder_name() {
        for good in ["a", "first-light_2.b", "2026", &"x".repeat(100)] {
            check(good).unwrap();
        }
        for bad in ["", ".hidden", "..", "-flag", "a/b", "a\\b", "a b", "é", "a\n", "a\0", &"x".repeat(101)]
        {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn automatic_names_read_well_and_differ() {
        let now: Timestamp = "2026-11-22T05:44:59Z".parse().unwrap();
        let name = auto("muon-granite-nano", now, 0);
        assert!(name.starts_with("muon-granite-nano-20261122-0544-"), "{name}");
        assert_eq!(name, auto("muon-granite-nano", now, 0));
        assert!((1..9).any(|attempt| auto("muon-granite-nano", now, attempt) != name));
        for prefix in ["", "../my model/é", ".x-", &"long".repeat(99)] {
            check(&auto(prefix, now, 3)).unwrap();
        }
    }
}
