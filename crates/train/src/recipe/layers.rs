//! Where values come from: the recipe file, the environment and the flags, each flattened to dotted keys.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::error::{Error, Result};
use super::keys::Kind;

/// Prefix of the environment variables that set recipe keys: `MUON_TRAIN__STEPS` sets `train.steps`.
pub const ENV_PREFIX: &str = "MUON_";

/// Where a value came from, lowest to highest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The default as published.
    Default,
    /// The optimizer's own default.
    Optimizer(String),
    /// The preset's own default.
    Preset(String),
    /// The published set-up, asked for as a whole.
    Published,
    /// The published scaling with steps and model size.
    Scaling,
    /// It follows from other values of the recipe.
    Follows(&'static str),
    /// What the machine has (device, precision).
    Machine,
    /// The recipe file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// A flag of the command line.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::Optimizer(name) => write!(f, "default of {name}"),
            Origin::Preset(name) => write!(f, "preset {name}"),
            Origin::Published => f.write_str("published"),
            Origin::Scaling => f.write_str("scaled with steps and model"),
            Origin::Follows(what) => write!(f, "follows from {what}"),
            Origin::Machine => f.write_str("this machine"),
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Environment(name) => f.write_str(name),
            Origin::Flag(flag) => f.write_str(flag),
        }
    }
}

/// A value given as text on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Dotted key.
    pub key: String,
    /// Its value, as written.
    pub value: String,
    /// The flag, for messages.
    pub flag: String,
}

/// A value as it was given.
#[derive(Debug, Clone)]
pub(super) enum Given {
    Toml(Value),
    Text(String),
}

impl Given {
    /// The typed value, if `kind` takes it.
    pub(super) fn typed(self, kind: Kind) -> Result<Value, String> {
        match self {
            Given::Toml(value) => kind.check(value),
            Given::Text(text) => kind.parse(&text),
        }
    }
}

/// Values by dotted key.
pub(super) type Layer = BTreeMap<String, (Given, Origin)>;

/// The values of a recipe file.
pub(super) fn of_file(path: &Path) -> Result<Layer> {
    let read = |reason: String| Error::Read { path: path.to_path_buf(), reason };
    let bytes = std::fs::read(path).map_err(|e| read(format!("cannot read the recipe: {e}")))?;
    let text = String::from_utf8(bytes).map_err(|_| read("the recipe is not UTF-8 text".into()))?;
    let table: Table = text.parse().map_err(|e: toml::de::Error| {
        let before = &text[..e.span().map_or(0, |span| span.start.min(text.len()))];
        let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
        let reason = e.message().lines().collect::<Vec<_>>().join("; ");
        Error::Syntax { path: path.to_path_buf(), line: before.matches('\n').count() + 1, column, reason }
    })?;
    let from = Origin::File(path.to_path_buf());
    Ok(flatten(&table).into_iter().map(|(key, value)| (key, (Given::Toml(value), from.clone()))).collect())
}

/// The values of the variables named `MUON_<SECTION>__<KEY>`; others (such as `MUON_CACHE`) are not settings.
pub(super) fn of_environment(variables: &[(String, String)]) -> Layer {
    let mut layer = Layer::new();
    for (name, value) in variables {
        if let Some(key) = name.strip_prefix(ENV_PREFIX).filter(|key| key.contains("__")) {
            let key = key.replace("__", ".").to_ascii_lowercase();
            layer.insert(key, (Given::Text(value.clone()), Origin::Environment(name.clone())));
        }
    }
    layer
}

/// The values of the flags; a key given by two flags is an error.
pub(super) fn of_flags(settings: &[Setting]) -> Result<Layer> {
    let mut layer = Layer::new();
    for Setting { key, value, flag } in settings {
        let from = Origin::Flag(flag.clone());
        if let Some((_, other)) = layer.insert(key.clone(), (Given::Text(value.clone()), from.clone())) {
            return Err(Error::value(&from, key, format!("is given already by {other}; give it once")));
        }
    }
    Ok(layer)
}

/// Puts `higher` over `lower`. `model.preset` and `model.dir` exclude each other: the higher layer's choice stands.
pub(super) fn merge(lower: &mut Layer, higher: Layer) -> Result<()> {
    const CHOICE: [&str; 2] = ["model.preset", "model.dir"];
    if let (Some(_), Some((_, from))) = (higher.get(CHOICE[0]), higher.get(CHOICE[1])) {
        return Err(Error::value(from, CHOICE[1], "excludes model.preset; give one of the two"));
    }
    for (key, other) in [(CHOICE[0], CHOICE[1]), (CHOICE[1], CHOICE[0])] {
        if higher.contains_key(key) {
            lower.remove(other);
        }
    }
    lower.extend(higher);
    Ok(())
}

/// The leaves of a table under dotted keys.
pub(super) fn flatten(table: &Table) -> Vec<(String, Value)> {
    let mut leaves = Vec::new();
    for (key, value) in table {
        match value {
            Value::Table(inner) => {
                leaves
                    .extend(flatten(inner).into_iter().map(|(rest, value)| (format!("{key}.{rest}"), value)));
            }
            leaf => leaves.push((key.clone(), leaf.clone())),
        }
    }
    leaves
}

/// The reverse of [`flatten`].
pub(super) fn nest(leaves: impl IntoIterator<Item = (String, Value)>) -> Table {
    let mut root = Table::new();
    for (key, value) in leaves {
        let mut parts: Vec<&str> = key.split('.').collect();
        let last = parts.pop().unwrap_or_default();
        let mut table = &mut root;
        for part in parts {
            let slot = table.entry(part).or_insert_with(|| Value::Table(Table::new()));
            table = slot.as_table_mut().expect("known keys never nest under one another");
        }
        table.insert(last.to_string(), value);
    }
    root
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nest_undoes_flatten() {
        let table: Table = "[a]\nx = 1\n[a.b]\ny = 'z'\n[c]\nw = [1, 2]".parse().unwrap();
        let flat = flatten(&table);
        assert_eq!(flat.iter().map(|(k, _)| k.as_str()).collect::<Vec<_>>(), ["a.b.y", "a.x", "c.w"]);
        assert_eq!(nest(flat), table);
    }

    #[test]
    fn only_variables_with_a_section_are_settings() {
        let vars = ["MUON_CACHE", "MUON_TRAIN__STEPS", "MUON_OPTIMIZER__ADAMW__LR", "OTHER__X"];
        let vars: Vec<_> = vars.iter().map(|name| ((*name).to_string(), "1".to_string())).collect();
        let layer = of_environment(&vars);
        assert_eq!(layer.keys().collect::<Vec<_>>(), ["optimizer.adamw.lr", "train.steps"]);
    }

    #[test]
    fn the_higher_choice_of_model_stands() {
        let set = |key: &str| {
            of_flags(&[Setting { key: key.into(), value: "x".into(), flag: "--model".into() }]).unwrap()
        };
        let mut layer = set("model.preset");
        merge(&mut layer, set("model.dir")).unwrap();
        assert_eq!(layer.keys().collect::<Vec<_>>(), ["model.dir"]);
    }
}
