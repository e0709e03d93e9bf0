//! What differs between the recipe that a run has and the one it is to go on with.

use std::collections::BTreeMap;
use std::fmt;

use toml::{Table, Value};

use super::error::{Error, Result};
use super::layers;
use super::resolve::Resolved;

/// Keys that a resumed run may change: they decide what is kept and when, never a weight. Places of data and tokenizer are
/// among them because their content is held to the fingerprint of the data, and `model.dir` because the checkpoint has the
/// model's configuration.
pub const HARMLESS: &[&str] = &[
    "data.source",
    "data.tokenizer",
    "model.dir",
    "train.eval_steps",
    "train.eval_batches",
    "train.save_steps",
    "train.checkpoint_steps",
    "train.keep_last",
    "train.keep_best",
    "train.nonfinite_limit",
    "train.staging",
    "train.spike_window",
    "train.spike_deviations",
    "train.max_hours",
    "train.max_cost",
    "train.graphs",
];

/// A key whose value is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Dotted key.
    pub key: String,
    /// What it was, in TOML; none where it was not set.
    pub was: Option<String>,
    /// What it is.
    pub is: Option<String>,
}

impl Resolved {
    /// The differences from the frozen recipe `text` that change what a run computes: all but those of [`HARMLESS`] and the
    /// number of a GPU. A key that the text lacks, as one of an older program does, counts as its default.
    pub fn differences(&self, text: &str) -> Result<Vec<Difference>> {
        let unreadable = |reason: String| Error::Frozen { reason };
        let table: Table = text.parse().map_err(|error: toml::de::Error| unreadable(error.to_string()))?;
        let was: BTreeMap<String, Value> = layers::flatten(&table).into_iter().collect();
        let frozen: Table = self.recipe.freeze().parse().expect("a frozen recipe is TOML");
        let is: BTreeMap<String, Value> = layers::flatten(&frozen).into_iter().collect();
        let keys: std::collections::BTreeSet<&String> = was.keys().chain(is.keys()).collect();
        let mut found = Vec::new();
        for key in keys {
            let (was, is) = (was.get(key).cloned().or_else(|| super::default(key)), is.get(key));
            if was.as_ref() != is && !harmless(key, was.as_ref(), is) {
                let text = |value: &Value| value.to_string();
                found.push(Difference { key: key.clone(), was: was.as_ref().map(text), is: is.map(text) });
            }
        }
        Ok(found)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "not set".to_owned());
        write!(f, "{}: {} -> {}", self.key, shown(&self.was), shown(&self.is))
    }
}

fn harmless(key: &str, was: Option<&Value>, is: Option<&Value>) -> bool {
    let kind = |value: Option<&Value>| value?.as_str()?.split(':').next().map(str::to_owned);
    HARMLESS.contains(&key) && was.is_some() && is.is_some() || key == "train.device" && kind(was) == kind(is)
}

#[cfg(test)]
mod tests {
    use crate::recipe::{Error, Resolved, Setting, Sources, resolve};

    fn with(settings: &[&str]) -> Result<Resolved, Error> {
        let setting = |text: &&str| {
            let (key, value) = text.split_once('=').expect("KEY=VALUE");
            Setting { key: key.into(), value: value.into(), flag: "--set".into() }
        };
        let flags: Vec<Setting> = settings.iter().map(setting).collect();
        resolve(&Sources { flags: &flags, ..Sources::default() })
    }

    #[test]
    fn differences_are_those_that_change_what_is_computed() {
        let before = with(&["train.device=cuda:0"]).unwrap().recipe.freeze();
        let list = |settings: &[&str], before: &str| -> Vec<String> {
            let found = with(settings).unwrap().differences(before).unwrap();
            found.iter().map(ToString::to_string).collect()
        };
        let harmless = ["train.device=cuda:1", "train.eval_steps=9", "train.max_hours=1", "run.name=b"];
        assert_eq!(list(&harmless, &before), [""; 0]);
        let changed = ["train.device=cpu", "optimizer.lr=0.5", "train.steps=7"];
        let told = list(&changed, &before);
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[0].starts_with("optimizer.lr: ") && told[0].ends_with(" -> 0.5"), "{told:?}");
        assert_eq!(told[1], "train.device: \"cuda:0\" -> \"cpu\"");
        // A recipe from before a key was there has its default.
        let older = before.replace("graphs = true\n", "").replace("clip = 0.0\n", "");
        let older = older.replace("state = \"f32\"\n", "");
        assert_ne!(older, before);
        assert_eq!(list(&["train.device=cuda:0"], &older), [""; 0]);
        assert_eq!(list(&["train.device=cuda:0", "train.clip=1"], &older), ["train.clip: 0.0 -> 1.0"]);
        let told = list(&["train.device=cuda:0", "optimizer.state=bf16"], &older);
        assert_eq!(told, ["optimizer.state: \"f32\" -> \"bf16\""]);
        assert!(with(&[]).unwrap().differences("not = [toml").is_err());
    }
}
