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
    /// A whole number from 0.
    Count(u64),
    /// `true` or `false`.
    Switch(bool),
    /// One of these words.
    Choice {
        /// All words.
        words: &'static [&'static str],
        /// One of them.
        default: &'static str,
    },
    /// Any text; the optimizer reads it.
    Text(&'static str),
}

/// A value given for a key.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A number; also a whole one.
    Number(f64),
    /// On or off.
    Switch(bool),
    /// A word or a text.
    Word(String),
}

/// Values for all keys of one row.
#[derive(Debug, Clone)]
pub struct Settings {
    optimizer: &'static str,
    values: BTreeMap<&'static str, Value>,
}

impl Key {
    /// A key.
    pub(crate) const fn new(name: &'static str, default: Default, help: &'static str) -> Self {
        Key { name, default, help }
    }

    /// The same key with another default.
    pub(crate) const fn or(self, default: Default) -> Self {
        Key { default, ..self }
    }

    /// The same choice with another default.
    pub(crate) const fn or_word(self, default: &'static str) -> Self {
        match self.default {
            Default::Choice { words, .. } => Key { default: Default::Choice { words, default }, ..self },
            _ => panic!("the key is no choice"),
        }
    }
}

impl Default {
    /// The default as a value.
    pub fn value(self) -> Value {
        match self {
            Default::Number(x) => Value::Number(x),
            Default::Count(n) => Value::Number(n as f64),
            Default::Switch(on) => Value::Switch(on),
            Default::Choice { default, .. } => Value::Word(default.to_string()),
            Default::Text(text) => Value::Word(text.to_string()),
        }
    }

    /// Whether a value is of this kind and in its range.
    fn takes(self, value: &Value) -> bool {
        match (self, value) {
            (Default::Number(_), Value::Number(x)) => x.is_finite() && *x >= 0.0,
            (Default::Count(_), Value::Number(x)) => *x >= 0.0 && x.fract() == 0.0 && *x < 9e15,
            (Default::Choice { words, .. }, Value::Word(word)) => words.contains(&word.as_str()),
            (Default::Switch(_), Value::Switch(_)) | (Default::Text(_), Value::Word(_)) => true,
            _ => false,
        }
    }

    /// What it accepts, in words.
    pub fn describe(self) -> String {
        match self {
            Default::Number(_) => "a number from 0".into(),
            Default::Count(_) => "a whole number from 0".into(),
            Default::Switch(_) => "true or false".into(),
            Default::Choice { words, .. } => format!("one of {}", words.join(", ")),
            Default::Text(_) => "a text".into(),
        }
    }
}

impl Settings {
    /// The defaults of `keys` with `given` over them; what no key declares or takes is refused.
    pub fn new(optimizer: &'static str, keys: &[Key], given: &BTreeMap<String, Value>) -> Result<Self> {
        let mut settings = Settings { optimizer, values: BTreeMap::new() };
        if let Some(key) = given.keys().find(|name| !keys.iter().any(|key| key.name == **name)) {
            let known: Vec<&str> = keys.iter().map(|key| key.name).collect();
            let known = if known.is_empty() { "none".into() } else { known.join(", ") };
            return Err(settings.refuse(key, format!("is no key of it; it has: {known}")));
        }
        for key in keys {
            let value = match given.get(key.name) {
                None => key.default.value(),
                Some(value) if key.default.takes(value) => value.clone(),
                Some(_) => return Err(settings.refuse(key.name, format!("takes {}", key.default.describe()))),
            };
            settings.values.insert(key.name, value);
        }
        Ok(settings)
    }

    /// An error about the value of a key.
    pub(crate) fn refuse(&self, key: &str, reason: impl Into<String>) -> Error {
        Error::Setting { optimizer: self.optimizer, key: key.to_string(), reason: reason.into() }
    }

    /// The value of a number key.
    ///
    /// # Panics
    /// If the row declares no such key: a bug of the row.
    pub fn number(&self, key: &str) -> f32 {
        match &self.values[key] {
            Value::Number(x) => *x as f32,
            other => panic!("`{key}` is {other:?}"),
        }
    }

    /// The value of a count key; panics as [`Settings::number`] does.
    pub fn count(&self, key: &str) -> usize {
        match &self.values[key] {
            Value::Number(x) => *x as usize,
            other => panic!("`{key}` is {other:?}"),
        }
    }

    /// The value of a switch; panics as [`Settings::number`] does.
    pub fn switch(&self, key: &str) -> bool {
        match &self.values[key] {
            Value::Switch(on) => *on,
            other => panic!("`{key}` is {other:?}"),
        }
    }

    /// The value of a choice or a text; panics as [`Settings::number`] does.
    pub fn word(&self, key: &str) -> &str {
        match &self.values[key] {
            Value::Word(word) => word,
            other => panic!("`{key}` is {other:?}"),
        }
    }
}
