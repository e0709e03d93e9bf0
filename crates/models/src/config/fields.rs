//! Typed access to the fields of a `config.json`; every error names the file, the field and what would do.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Bounds far above any model: sizes that a damaged file may hold would overflow in products, or take all memory.
pub(super) const MOST_SIZE: u64 = 1 << 24;
const MOST_LAYERS: usize = 4096;

/// The fields of one file.
pub(super) struct Fields<'a> {
    file: &'a str,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// Fields of `file`.
    pub fn new(file: &'a str, map: &'a Map<String, Value>) -> Self {
        Fields { file, map }
    }

    /// An error in this file.
    pub fn fail(&self, reason: impl Into<String>) -> Error {
        Error::Config { file: self.file.into(), reason: reason.into() }
    }

    /// The value of a field that is there and not null.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// Whether the field is there, null or not.
    pub fn has(&self, name: &str) -> bool {
        self.map.contains_key(name)
    }

    /// A string, if there is one.
    pub fn text(&self, name: &str) -> Result<Option<&'a str>> {
        self.get(name).map(|v| v.as_str().ok_or_else(|| self.wrong(name, v, "a string"))).transpose()
    }

    /// A count of at least one that must be there.
    pub fn size(&self, name: &str) -> Result<usize> {
        match self.optional_size(name)? {
            Some(n) => Ok(n),
            None => Err(self.fail(format!("no field `{name}`; it must be a positive integer"))),
        }
    }

    /// A count of at least one, `default` where absent.
    pub fn size_or(&self, name: &str, default: usize) -> Result<usize> {
        Ok(self.optional_size(name)?.unwrap_or(default))
    }

    /// A count of at least one, if there is one.
    pub fn optional_size(&self, name: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match value.as_u64() {
            Some(n @ 1..=MOST_SIZE) => Ok(Some(n as usize)),
            Some(n) if n > MOST_SIZE => Err(self.wrong(name, value, &format!("at most {MOST_SIZE}"))),
            _ => Err(self.wrong(name, value, "a positive integer")),
        }
    }

    /// The number of layers.
    pub fn layers(&self) -> Result<usize> {
        let name = "num_hidden_layers";
        match self.size(name)? {
            layers @ 1..=MOST_LAYERS => Ok(layers),
            layers => Err(self.fail(format!("{name} is {layers}; expected at most {MOST_LAYERS}"))),
        }
    }

    /// A finite number, `default` where absent.
    pub fn number_or(&self, name: &str, default: f64) -> Result<f64> {
        match self.get(name) {
            None => Ok(default),
            Some(value) => value.as_f64().ok_or_else(|| self.wrong(name, value, "a number")),
        }
    }

    /// As [`Fields::number_or`], and above zero.
    pub fn positive_or(&self, name: &str, default: f64) -> Result<f64> {
        let number = self.number_or(name, default)?;
        if number > 0.0 {
            Ok(number)
        } else {
            Err(self.fail(format!("{name} is {number}; it must be above 0")))
        }
    }

    /// A boolean, `default` where absent.
    pub fn flag_or(&self, name: &str, default: bool) -> Result<bool> {
        match self.get(name) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.wrong(name, value, "true or false")),
        }
    }

    /// Refuses any value of a boolean field but `only`, which is also its default.
    pub fn require_flag(&self, name: &str, only: bool) -> Result<()> {
        if self.flag_or(name, only)? == only {
            Ok(())
        } else {
            Err(self.fail(format!("{name} = {} is not supported; set it to {only}", !only)))
        }
    }

    /// Refuses an activation other than silu, and dropout.
    pub fn require_common(&self) -> Result<()> {
        match self.text("hidden_act")? {
            None | Some("silu") => {}
            Some(other) => {
                return Err(self.fail(format!("hidden_act `{other}` is not supported; use silu")));
            }
        }
        let dropout = self.number_or("attention_dropout", 0.0)?;
        if dropout != 0.0 {
            return Err(self.fail(format!("attention_dropout {dropout} is not supported; set it to 0.0")));
        }
        Ok(())
    }

    /// One token id; `default` where the field is absent, none where it is null.
    pub fn token(&self, name: &str, default: Option<u32>) -> Result<Option<u32>> {
        match self.map.get(name) {
            None => Ok(default),
            Some(Value::Null) => Ok(None),
            Some(value) => self.as_token(name, value).map(Some),
        }
    }

    /// Any number of token ids, as `null`, an integer or a list.
    pub fn tokens(&self, name: &str, default: Option<u32>) -> Result<Vec<u32>> {
        match self.map.get(name) {
            Some(Value::Array(values)) => values.iter().map(|value| self.as_token(name, value)).collect(),
            _ => Ok(self.token(name, default)?.into_iter().collect()),
        }
    }

    /// The kind of each layer by name, if listed; the list must be as long as there are layers.
    pub fn layer_types(&self, layers: usize) -> Result<Option<Vec<&'a str>>> {
        let Some((name, value)) =
            ["layer_types", "layers_block_type"].into_iter().find_map(|name| Some((name, self.get(name)?)))
        else {
            return Ok(None);
        };
        let names: Option<Vec<&str>> = value.as_array().and_then(|a| a.iter().map(Value::as_str).collect());
        let names = names.ok_or_else(|| self.wrong(name, value, "a list of strings"))?;
        if names.len() != layers {
            return Err(self.fail(format!(
                "{name} lists {} layers but num_hidden_layers is {layers}; make them agree",
                names.len()
            )));
        }
        Ok(Some(names))
    }

    /// Base of the rotary angles, at the top level or under `rope_parameters` (10000 where absent); anything
    /// but the plain rotary embedding is refused.
    pub fn rope_theta(&self) -> Result<f64> {
        let nested =
            ["rope_parameters", "rope_scaling"].into_iter().find_map(|name| Some((name, self.get(name)?)));
        let empty = Map::new();
        let nested = match nested {
            None => Fields::new(self.file, &empty),
            Some((name, value)) => {
                let map = value.as_object().ok_or_else(|| self.wrong(name, value, "an object or null"))?;
                Fields::new(self.file, map)
            }
        };
        let kind = nested.text("rope_type")?.or(nested.text("type")?).unwrap_or("default");
        if kind != "default" {
            return Err(self.fail(format!("rope_type `{kind}` is not supported; use default")));
        }
        for fields in [&nested, self] {
            let share = fields.number_or("partial_rotary_factor", 1.0)?;
            if (share - 1.0).abs() > f64::EPSILON {
                return Err(
                    self.fail(format!("partial_rotary_factor {share} is not supported; set it to 1.0"))
                );
            }
        }
        nested.positive_or("rope_theta", self.positive_or("rope_theta", 10_000.0)?)
    }

    /// `(heads, kv heads, head_dim)` of the attention layers, checked against each other.
    pub fn heads(&self, hidden: usize, default_kv: impl Fn(usize) -> usize) -> Result<(usize, usize, usize)> {
        let heads = self.size("num_attention_heads")?;
        let absent = !self.has("num_key_value_heads");
        let kv = self.size_or("num_key_value_heads", if absent { default_kv(heads) } else { heads })?;
        if !heads.is_multiple_of(kv) {
            return Err(self.fail(format!(
                "num_attention_heads {heads} is not a multiple of num_key_value_heads {kv}{}; choose a divisor",
                if absent { " (the default where the field is absent)" } else { "" }
            )));
        }
        let head_dim = match self.optional_size("head_dim")? {
            Some(dim) => dim,
            None if hidden.is_multiple_of(heads) => hidden / heads,
            None => {
                return Err(self.fail(format!(
                    "hidden_size {hidden} is not a multiple of num_attention_heads {heads}; change one or set head_dim"
                )));
            }
        };
        Ok((heads, kv, head_dim))
    }

    /// A number or a tagged special float, such as `{"__float__": "Infinity"}`.
    pub fn special_float(&self, name: &str, value: &Value) -> Result<f64> {
        let tag = value.get("__float__").and_then(Value::as_str);
        match (value.as_f64(), tag) {
            (Some(number), _) => Ok(number),
            (None, Some("Infinity")) => Ok(f64::INFINITY),
            (None, Some("-Infinity")) => Ok(f64::NEG_INFINITY),
            _ => Err(self.wrong(name, value, "a number or {\"__float__\": \"Infinity\"}")),
        }
    }

    /// An error about a value of the wrong kind.
    pub fn wrong(&self, name: &str, value: &Value, expected: &str) -> Error {
        let mut shown = value.to_string();
        if shown.chars().count() > 40 {
            shown = shown.chars().take(37).chain("...".chars()).collect();
        }
        self.fail(format!("{name} is {shown}; expected {expected}"))
    }

    fn as_token(&self, name: &str, value: &Value) -> Result<u32> {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| self.wrong(name, value, "a token id (an integer of at least 0) or null"))
    }
}

/// Python writes infinities as bare words, which are not JSON: replaces them by the tagged form that
/// transformers 5 writes, outside of strings.
pub(super) fn tag_special_floats(text: &str) -> Cow<'_, str> {
    if !text.contains("Infinity") && !text.contains("NaN") {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 32);
    let mut rest = text;
    let (mut in_string, mut escaped) = (false, false);
    while let Some(c) = rest.chars().next() {
        let word =
            ["-Infinity", "Infinity", "NaN"].into_iter().find(|word| !in_string && rest.starts_with(word));
        if let Some(word) = word {
            out.extend(["{\"__float__\": \"", word, "\"}"]);
            rest = &rest[word.len()..];
            continue;
        }
        if c == '"' && !escaped {
            in_string = !in_string;
        }
        escaped = in_string && c == '\\' && !escaped;
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_infinities_are_tagged_outside_strings_only() {
        let text = r#"{"a": [0.0, Infinity], "b": "Infinity \" NaN", "c": -Infinity}"#;
        let value: Value = serde_json::from_str(&tag_special_floats(text)).unwrap();
        assert_eq!(value["a"][1]["__float__"], "Infinity");
        assert_eq!(value["b"], "Infinity \" NaN");
        assert_eq!(value["c"]["__float__"], "-Infinity");
    }

    #[test]
    fn text_without_special_floats_is_not_copied() {
        assert!(matches!(tag_special_floats("{\"a\": 1}"), Cow::Borrowed(_)));
    }
}
