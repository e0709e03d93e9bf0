//! How long the strings of a JSON file are, without keeping any.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Bytes of the longest string in a value, its keys included. Those under `precompiled_charsmap`, a table in base64, do not
/// count.
pub(crate) struct Longest(pub(crate) usize);

impl<'de> Deserialize<'de> for Longest {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Any).map(Longest)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E>(self, text: &str) -> Result<usize, E> {
        Ok(text.len())
    }

    fn visit_bool<E>(self, _: bool) -> Result<usize, E> {
        Ok(0)
    }

    fn visit_u64<E>(self, _: u64) -> Result<usize, E> {
        Ok(0)
    }

    fn visit_i64<E>(self, _: i64) -> Result<usize, E> {
        Ok(0)
    }

    fn visit_f64<E>(self, _: f64) -> Result<usize, E> {
        Ok(0)
    }

    fn visit_unit<E>(self) -> Result<usize, E> {
        Ok(0)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<usize, A::Error> {
        let mut most = 0;
        while let Some(Longest(length)) = items.next_element()? {
            most = most.max(length);
        }
        Ok(most)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<usize, A::Error> {
        let mut most = 0;
        while let Some(key) = entries.next_key::<String>()? {
            let length = if key == "precompiled_charsmap" {
                entries.next_value::<IgnoredAny>()?;
                0
            } else {
                entries.next_value::<Longest>()?.0
            };
            most = most.max(key.len()).max(length);
        }
        Ok(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_keys_at_any_depth_count() {
        let of = |text: &str| serde_json::from_str::<Longest>(text).unwrap().0;
        assert_eq!(of(r#"{"ab": [1, -2, 0.5, null, true, ["abc", {"k": "abcd"}]]}"#), 4);
        assert_eq!(of(r#"{"a": {"longer": 1}}"#), 6);
        assert_eq!(of(&format!(r#"{{"precompiled_charsmap": "{}"}}"#, "x".repeat(99))), 20);
    }
}
