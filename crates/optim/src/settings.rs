//! The settings of an optimizer: keys that its row declares, with defaults, checked once.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// A key of an optimizer's row.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Name in a recipe's `[optimizer]` section.
    pub name: &'static str,
    /// What it takes, and its default.
    pub default: Default,
    /// One line of help.
    pub help: &'static str,
}

/// What a key takes, and its default.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Default {
    /// A finite number from 0.
    Number(f64),
    /// One of these words; the first is the default.
    Choice(&'static [&'static str]),
}

/// A value given for a key.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A number.
    Number(f64),
    /// A word.
    Word(String),
}

/// Values for all keys of one row.
#[derive(Debug, Clone)]
pub struct Settings {
    values: BTreeMap<&'static str, Value>,
}

impl Settings {
    /// The defaults of `keys` with `given` over them; what no key declares or takes is refused.
    pub fn new(
        optimizer: &'static str,
        keys: &'static [Key],
        given: &BTreeMap<String, Value>,
    ) -> Result<Self> {
        let fail = |key: &str, reason: String| Error::Setting { optimizer, key: key.to_string(), reason };
        if let Some(key) = given.keys().find(|name| !keys.iter().any(|key| key.name == **name)) {
            let known: Vec<&str> = keys.iter().map(|key| key.name).collect();
            return Err(fail(key, format!("is no key of it; it has: {}", known.join(", "))));
        }
        let mut values = BTreeMap::new();
        for key in keys {
            let value = match (key.default, given.get(key.name)) {
                (Default::Number(default), None) => Value::Number(default),
                (Default::Choice(words), None) => Value::Word(words[0].to_string()),
                (Default::Number(_), Some(&Value::Number(x))) if x.is_finite() && x >= 0.0 => {
                    Value::Number(x)
                }
                (Default::Choice(words), Some(Value::Word(word))) if words.contains(&word.as_str()) => {
                    Value::Word(word.clone())
                }
                (Default::Number(_), Some(_)) => return Err(fail(key.name, "takes a number from 0".into())),
                (Default::Choice(words), Some(_)) => {
                    return Err(fail(key.name, format!("takes one of: {}", words.join(", "))));
                }
            };
            values.insert(key.name, value);
        }
        Ok(Settings { values })
    }

    /// The value of a number key.
    ///
    /// # Panics
    /// If the row declares no such key: a bug of the row.
    pub fn number(&self, key: &str) -> f32 {
        match &self.values[key] {
            Value::Number(x) => *x as f32,
            Value::Word(word) => panic!("`{key}` is the word {word}"),
        }
    }

    /// The value of a choice key; panics as [`Settings::number`] does.
    pub fn word(&self, key: &str) -> &str {
        match &self.values[key] {
            Value::Word(word) => word,
            Value::Number(x) => panic!("`{key}` is the number {x}"),
        }
    }
}
