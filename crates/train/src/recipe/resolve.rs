//! From layers to one recipe: defaults, presets, scaling, checks.

use std::collections::BTreeMap;
use std::path::Path;

use models::Config;
use models::presets::{self, Defaults, Preset};
use serde::Deserialize;
use toml::Value;

use super::choices::{Precision, Recompute};
use super::defaults;
use super::error::{Error, Result};
use super::keys::{KEYS, Kind};
use super::layers::{self, Layer, Origin, Setting};
use super::published;
use super::types::Recipe;
use crate::memory;

/// The model of a recipe that names none.
const MODEL: &str = "granite-nano";
/// The optimizer of a recipe that names none.
const OPTIMIZER: &str = "muon";

/// Everything a recipe is resolved from, beside the defaults.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sources<'a> {
    /// Whether the published set-up goes over the defaults.
    pub published: bool,
    /// A recipe file.
    pub file: Option<&'a Path>,
    /// The environment: names and values of all variables, or of those that begin with [`super::ENV_PREFIX`].
    pub environment: &'a [(String, String)],
    /// Settings of the command line, each key at most once.
    pub flags: &'a [Setting],
}

/// A recipe, where each value came from, and the model's configuration.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The recipe.
    pub recipe: Recipe,
    /// The configuration that `[model]` names.
    pub config: Config,
    /// Whether the model takes the size and the special ids of its vocabulary from the tokenizer
    /// ([`Config::with_vocab`]): so do presets that have no end-of-text id of their own.
    pub open_vocabulary: bool,
    /// What the user should know before it runs, a line each.
    pub notes: Vec<String>,
    origins: BTreeMap<String, Origin>,
}

impl Resolved {
    /// Where the value of a key came from.
    pub fn origin(&self, key: &str) -> &Origin {
        self.origins.get(key).unwrap_or(&Origin::Default)
    }

    /// Every key with its value in TOML and where it came from, in the order of [`KEYS`]; the optimizer's own keys
    /// follow those that all optimizers have.
    pub fn rows(&self) -> Vec<(String, String, Origin)> {
        let own = KEYS.iter().rposition(|key| key.name.starts_with("optimizer."));
        let place = |key: &str| KEYS.iter().position(|known| known.name == key).or(own);
        let mut rows = layers::flatten(&self.recipe.table());
        rows.sort_by_key(|(key, _)| place(key));
        rows.into_iter()
            .map(|(key, value)| (key.clone(), value.to_string(), self.origin(&key).clone()))
            .collect()
    }

    /// What decides the memory of a step, for [`memory::estimate`](crate::memory::estimate).
    pub fn step(&self, cuda: bool) -> Result<memory::Step<'static>, optim::Error> {
        let recipe = &self.recipe;
        Ok(memory::Step {
            cuda,
            recompute: recipe.train.recompute == Recompute::Layers,
            optimizer: optim::find(&recipe.optimizer.name)?,
            state: recipe.optimizer.state.into(),
            precision: recipe.train.precision.on(cuda),
            all_2d: recipe.optimizer.keys.get("route").and_then(Value::as_str) == Some("all-2d"),
            batch_size: recipe.train.batch_size,
            seq_len: recipe.data.seq_len,
        })
    }

    /// The model's configuration with the tokens of its data: a model with an open vocabulary takes them over, any
    /// other must have room for them.
    pub fn config_for(&self, vocab_size: usize, end_of_text: u32, pad: u32) -> Result<Config> {
        if self.open_vocabulary {
            return Ok(self.config.clone().with_vocab(vocab_size, end_of_text, pad));
        }
        let room = self.config.vocab_size();
        if vocab_size > room {
            let Recipe { model, data, .. } = &self.recipe;
            let (model, tokenizer) = (model.label(), data.tokenizer.to_string());
            return Err(Error::Vocabulary { tokenizer, tokens: vocab_size, model, room });
        }
        Ok(self.config.clone())
    }

    /// Fixes `auto` device and precision to what the run really uses: `device` is `cpu` or `cuda:N`. Refuses a
    /// precision that this device does not compute in.
    pub fn settle(&mut self, device: &str, precision: tensor::Precision) -> Result<()> {
        if device == "cpu" {
            self.check_cpu()?;
        }
        let train = &mut self.recipe.train;
        if train.device != device {
            train.device = device.to_string();
            self.origins.insert("train.device".into(), Origin::Machine);
        }
        if train.precision == Precision::Auto {
            train.precision = precision.into();
            self.origins.insert("train.precision".into(), Origin::Follows("train.device"));
        }
        Ok(())
    }
}

/// The key that a `--model` value sets: `model.preset` where it names one, else `model.dir`.
pub fn model_key(text: &str) -> &'static str {
    if presets::find(text).is_ok() { "model.preset" } else { "model.dir" }
}

/// Resolves a recipe. Reads the recipe file and, for `model.dir`, its `config.json`; writes nothing.
pub fn resolve(sources: &Sources) -> Result<Resolved> {
    let given = given(sources)?;
    let row = optimizer(&given)?;
    let mut draft = Draft::new(typed(given, row)?);
    let (config, preset) = draft.model()?;
    let open_vocabulary = preset.is_some() && config.tokens().eos.is_empty();
    if sources.published {
        draft.published(row)?;
    }
    draft.fixed(row);
    draft.tokenizer(open_vocabulary)?;
    let for_size = Defaults::for_size(models::count(&config));
    match preset {
        _ if sources.published => draft.training(for_size, row, &Origin::Published),
        Some(preset) => draft.training(&preset.defaults, row, &Origin::Preset(preset.name.to_string())),
        None => draft.training(for_size, row, &Origin::Default),
    }
    let Draft { values, origins } = draft;

    let table = layers::nest(values);
    let recipe = Recipe::deserialize(Value::Table(table)).expect("every value was checked against its key");
    let mut resolved = Resolved { recipe, config, open_vocabulary, notes: Vec::new(), origins };
    resolved.check()?;
    Ok(resolved)
}

/// The optimizer that a recipe would have.
pub fn optimizer_of(sources: &Sources) -> Result<&'static optim::Row> {
    optimizer(&given(sources)?)
}

/// File, environment and flags in one.
fn given(sources: &Sources) -> Result<Layer> {
    let mut given = Layer::new();
    if let Some(path) = sources.file {
        layers::merge(&mut given, layers::of_file(path)?)?;
    }
    layers::merge(&mut given, layers::of_environment(sources.environment))?;
    layers::merge(&mut given, layers::of_flags(sources.flags)?)?;
    Ok(given)
}

/// The row of the optimizer that the given layers name.
fn optimizer(given: &Layer) -> Result<&'static optim::Row> {
    const KEY: &str = "optimizer.name";
    let (name, from) = match given.get(KEY) {
        None => (OPTIMIZER.to_string(), Origin::Default),
        Some((value, from)) => {
            let value = value.clone().typed(Kind::Text).map_err(|reason| Error::value(from, KEY, reason))?;
            (value.as_str().unwrap_or_default().to_string(), from.clone())
        }
    };
    optim::find(&name).map_err(|_| {
        let known: Vec<&str> = optim::ALL.iter().map(|row| row.name).collect();
        Error::value(
            &from,
            KEY,
            format!("is `{name}`, which is no optimizer; there are: {}", known.join(", ")),
        )
    })
}

/// Checks every given value against its key.
fn typed(given: Layer, row: &optim::Row) -> Result<BTreeMap<String, (Value, Origin)>> {
    let mut values = BTreeMap::new();
    for (key, (value, from)) in given {
        let kind = kind(&key, row).ok_or_else(|| unknown(&key, &from, row))?;
        let value = value.typed(kind).map_err(|reason| Error::value(&from, &key, reason))?;
        values.insert(key, (value, from));
    }
    Ok(values)
}

fn kind(key: &str, row: &optim::Row) -> Option<Kind> {
    let own = || {
        let name = key.strip_prefix("optimizer.")?;
        row.keys().iter().find(|own| own.name == name).map(|own| Kind::of(own).0)
    };
    KEYS.iter().find(|known| known.name == key).map(|known| known.kind).or_else(own)
}

fn unknown(key: &str, from: &Origin, row: &optim::Row) -> Error {
    let own = row.keys().into_iter().map(|own| format!("optimizer.{}", own.name));
    let known: Vec<String> = KEYS.iter().map(|known| known.name.to_string()).chain(own).collect();
    let section = key.split('.').next().unwrap_or_default();
    let near = known.iter().map(|k| (strsim::damerau_levenshtein(k, key), k)).min();
    let here: Vec<&str> = known.iter().filter_map(|k| k.strip_prefix(section)?.strip_prefix('.')).collect();
    let remedy = match near {
        Some((distance, near)) if distance <= 3 => format!("did you mean `{near}`?"),
        _ if section == "optimizer" => format!("optimizer `{}` has: {}", row.name, here.join(", ")),
        _ if !here.is_empty() => format!("[{section}] has: {}", here.join(", ")),
        _ => "the sections are run, model, data, optimizer and train".to_string(),
    };
    Error::UnknownKey { from: from.clone(), key: key.to_string(), remedy }
}

/// Values found so far; the first to set a key wins, so layers come in from the highest down.
struct Draft {
    values: BTreeMap<String, Value>,
    origins: BTreeMap<String, Origin>,
}

impl Draft {
    fn new(given: BTreeMap<String, (Value, Origin)>) -> Self {
        let mut draft = Draft { values: BTreeMap::new(), origins: BTreeMap::new() };
        for (key, (value, from)) in given {
            draft.fill(&key, value, &from);
        }
        draft
    }

    fn fill(&mut self, key: &str, value: impl Into<Value>, from: &Origin) {
        if !self.values.contains_key(key) {
            self.values.insert(key.to_string(), value.into());
            self.origins.insert(key.to_string(), from.clone());
        }
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.values.get(key)?.as_str()
    }

    /// The configuration that `[model]` names, and the preset if it is one.
    fn model(&mut self) -> Result<(Config, Option<&'static Preset>)> {
        const KEYS: [&str; 3] = ["model.preset", "model.dir", "model.hidden_size"];
        let hidden = self.values.get(KEYS[2]).and_then(Value::as_integer);
        if let Some(dir) = self.text(KEYS[1]) {
            let dir = Path::new(dir);
            if !dir.exists() && dir.components().count() == 1 {
                let reason =
                    format!("is `{}`, neither a folder nor a preset: {}", dir.display(), preset_names());
                return Err(Error::value(&self.origins[KEYS[1]], KEYS[1], reason));
            }
            if hidden.is_some() {
                let reason = "goes with a preset; a model folder has its size in its config.json";
                return Err(Error::value(&self.origins[KEYS[2]], KEYS[2], reason));
            }
            return Ok((Config::load(dir)?, None));
        }
        self.fill(KEYS[0], MODEL, &Origin::Default);
        let name = self.text(KEYS[0]).unwrap_or_default();
        let preset = presets::find(name).map_err(|_| {
            let reason = format!("is `{name}`, which is no preset; there are: {}", preset_names());
            Error::value(&self.origins[KEYS[0]], KEYS[0], reason)
        })?;
        let config = match hidden {
            Some(hidden) => preset
                .config()
                .with_hidden_size(hidden as usize)
                .map_err(|reason| Error::value(&self.origins[KEYS[2]], KEYS[2], reason))?,
            None => preset.config(),
        };
        Ok((config, Some(preset)))
    }

    /// The published set-up, for the optimizers that it had.
    fn published(&mut self, row: &optim::Row) -> Result<()> {
        if !published::OPTIMIZERS.contains(&row.name) {
            let reason = format!(
                "is `{}`, which the published experiments did not run; they ran: {}",
                row.name,
                published::OPTIMIZERS.join(", ")
            );
            let from = self.origins.get("optimizer.name").unwrap_or(&Origin::Default);
            return Err(Error::value(from, "optimizer.name", reason));
        }
        for published::Value { key, value, .. } in published::values(row.name) {
            let value = kind(key, row).expect("a test holds the table to the keys").parse(value);
            self.fill(key, value.expect("a test holds the values to their kinds"), &Origin::Published);
        }
        Ok(())
    }

    /// The defaults that depend on no other value but the optimizer's name.
    fn fixed(&mut self, row: &optim::Row) {
        let from = Origin::Optimizer(row.name.to_string());
        self.fill("optimizer.name", row.name, &Origin::Default);
        for key in row.keys() {
            self.fill(&format!("optimizer.{}", key.name), Kind::of(&key).1, &from);
        }
        for (key, value) in defaults::all() {
            self.fill(&key, value, &Origin::Default);
        }
        // Beside the compiled kernels; where the user has no cache folder, in the current one.
        let cache = tensor::cuda::cache_folder().unwrap_or_else(|| Path::new(".cache").join("kernels"));
        self.fill("data.cache_dir", cache.with_file_name("tokens").display().to_string(), &Origin::Default);
    }

    fn tokenizer(&mut self, open_vocabulary: bool) -> Result<()> {
        const KEY: &str = "data.tokenizer";
        if self.text("data.source") == Some("synthetic") {
            self.fill(KEY, "synthetic", &Origin::Follows("data.source"));
        } else if open_vocabulary {
            self.fill(KEY, "bytes", &Origin::Follows("model.preset"));
        } else if let Some(dir) = self.text("model.dir") {
            let own = Path::new(dir).join("tokenizer.json");
            if own.is_file() {
                self.fill(KEY, own.display().to_string(), &Origin::Follows("model.dir"));
            }
        }
        if self.values.contains_key(KEY) {
            return Ok(());
        }
        let reason =
            "is not set, and text needs one: give --tokenizer FILE, the model's tokenizer.json (or bytes)";
        Err(Error::value(&self.origins["data.source"], KEY, reason))
    }

    /// The model's training defaults; batch size and number of documents scale with the steps, as published.
    ///
    /// The rate of the matrices is that of the size of their updates, which the optimizer's row or
    /// `scale = "match-rms"` decides.
    fn training(&mut self, defaults: &Defaults, row: &optim::Row, from: &Origin) {
        let lr = match (row.lr, self.text("optimizer.scale")) {
            (optim::LrHint::AdamW, _) => defaults.adamw_lr,
            (optim::LrHint::Rms, _) | (_, Some("match-rms")) => defaults.rms_lr,
            (optim::LrHint::Spectral, _) => defaults.lr,
        };
        self.fill("optimizer.lr", lr, from);
        self.fill("optimizer.adamw.lr", defaults.adamw_lr, from);
        self.fill("train.steps", defaults.steps as i64, from);
        self.fill("train.warmup", defaults.warmup as i64, from);
        self.fill("train.eval_steps", defaults.eval_steps as i64, from);
        self.fill("train.eval_batches", defaults.eval_batches as i64, from);
        self.fill("train.save_steps", defaults.save_steps as i64, from);
        self.fill("data.seq_len", defaults.seq_len as i64, from);

        let steps = self.values["train.steps"].as_integer().unwrap_or_default() as u64;
        let [first, rest @ ..] = defaults.batch_sizes;
        let scales = rest.iter().any(|&batch| batch != first);
        let batch_from = if scales { &Origin::Scaling } else { from };
        self.fill("train.batch_size", defaults.batch_size(steps) as i64, batch_from);
        if self.text("data.source") == Some("synthetic") {
            self.fill("data.examples", "all", &Origin::Follows("data.source"));
        }
        self.fill("data.examples", documents(steps), &Origin::Scaling);
    }
}

fn preset_names() -> String {
    presets::ALL.iter().map(|preset| preset.name).collect::<Vec<_>>().join(", ")
}

/// Documents read for a number of steps, as published.
fn documents(steps: u64) -> i64 {
    match steps {
        0..=50 => 1_000,
        51..=500 => 10_000,
        _ => 100_000,
    }
}
