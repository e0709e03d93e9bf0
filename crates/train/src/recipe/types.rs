//! The types of a recipe, section by section; field names are the keys of the TOML file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use data::{Packing, Source, TokenizerSpec};
use serde::{Deserialize, Serialize};

use super::choices::{Diagnostics, Examples, Kernels, Precision, Recompute, Rounding, Staging, StateType};
use crate::schedule::{Schedule, Shape};

/// Everything that decides a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Where the run is kept.
    pub run: Run,
    /// What is trained.
    pub model: Model,
    /// On what.
    pub data: Data,
    /// By which rule.
    pub optimizer: Optimizer,
    /// For how long, how and where.
    pub train: Train,
}

/// `[run]`: where the run is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Name of the run's folder; `auto` makes one up.
    pub name: String,
    /// The folder that holds the run folders.
    pub results: PathBuf,
    /// Price of the machine in dollars an hour; 0: unknown.
    pub usd_per_hour: f64,
}

/// `[model]`: exactly one of `preset` and `dir` is set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Name in [`models::presets`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// Folder with `config.json` in the Hugging Face layout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// Width of the residual stream, in place of the preset's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden_size: Option<usize>,
    /// Whether to start from the weights in `dir`.
    pub pretrained: bool,
}

/// `[data]`: what is read, and how it becomes rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Where the documents come from: `synthetic`, or a path.
    #[serde(with = "as_text")]
    pub source: Source,
    /// Column or field that holds the text.
    pub text_column: String,
    /// What turns text into tokens: `bytes`, `synthetic`, or the path of a `tokenizer.json`.
    #[serde(with = "as_text")]
    pub tokenizer: TokenizerSpec,
    /// How documents become rows: `pack` or `truncate`.
    #[serde(with = "as_text")]
    pub packing: Packing,
    /// How many documents are read.
    pub examples: Examples,
    /// Tokens in a row.
    pub seq_len: usize,
    /// Folder of the token cache.
    pub cache_dir: PathBuf,
    /// Seed of the synthetic language; the same in all runs that are compared.
    pub seed: u64,
}

/// `[optimizer]`: the rule of the matrices, and `AdamW` for the rest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Optimizer {
    /// Name in [`optim::ALL`].
    pub name: String,
    /// Peak learning rate of the matrices.
    pub lr: f64,
    /// In what momenta and moments are kept.
    pub state: StateType,
    /// `AdamW` for the rest of the weights.
    pub adamw: AdamW,
    /// The keys that the optimizer's row declares.
    #[serde(flatten)]
    pub keys: BTreeMap<String, toml::Value>,
}

/// `[optimizer.adamw]`: `AdamW` for the weights that the matrix rule does not take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamW {
    /// Learning rate.
    pub lr: f64,
    /// Decay rates of the two moments.
    pub betas: [f64; 2],
    /// Epsilon.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

/// `[train]`: for how long, how and where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Train {
    /// Optimizer steps.
    pub steps: u64,
    /// Rows a step.
    pub batch_size: usize,
    /// Steps over which the rate rises.
    pub warmup: u64,
    /// Whether the rate of the weights that `AdamW` takes rises too.
    pub warmup_rest: bool,
    /// What the rates do after the warm-up.
    pub schedule: Shape,
    /// Share of the peak rate at the last step.
    pub final_lr: f64,
    /// Share of the steps over which `wsd` decays.
    pub decay: f64,
    /// Largest global norm of the gradient; 0: any.
    pub clip: f64,
    /// Evaluate every so many steps and at the end; 0: at the end only.
    pub eval_steps: u64,
    /// Most validation batches an evaluation reads.
    pub eval_batches: usize,
    /// Save the model every so many steps and at the end; 0: at the end only.
    pub save_steps: u64,
    /// Take a checkpoint every so many steps and at the end; 0: only where the run is told to stop.
    pub checkpoint_steps: u64,
    /// Newest checkpoints that are kept.
    pub keep_last: usize,
    /// Checkpoints of the least validation loss that are kept beside them.
    pub keep_best: usize,
    /// Steps in a row without a finite loss and gradient that stop the run.
    pub nonfinite_limit: u64,
    /// Whether weights and state are copied on a GPU before they are saved.
    pub staging: Staging,
    /// Losses that one is held to, to be a spike or not; 0: none is.
    pub spike_window: u64,
    /// Robust standard deviations above their median that make a spike.
    pub spike_deviations: f64,
    /// Hours of work after which the run is stopped; 0: none.
    pub max_hours: f64,
    /// Dollars at which the run is stopped; 0: none.
    pub max_cost: f64,
    /// Seed of the weights and of the order of the data.
    pub seed: u64,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// In what it computes.
    pub precision: Precision,
    /// How updates are rounded into weights of record in bf16.
    pub rounding: Rounding,
    /// Which kernels a GPU runs where there are two.
    pub kernels: Kernels,
    /// Whether steps on a GPU are launched as CUDA graphs.
    pub graphs: bool,
    /// What the backward pass computes again instead of keeping it.
    pub recompute: Recompute,
    /// What is measured beside the losses.
    pub diagnostics: Diagnostics,
    /// Take the full diagnostics every so many steps.
    pub diagnostics_steps: u64,
}

impl Model {
    /// The preset's name, with its hidden size where that is not the preset's own, or the folder.
    pub fn label(&self) -> String {
        match (&self.preset, &self.dir) {
            (Some(preset), _) => match self.hidden_size {
                Some(hidden) => format!("{preset}-{hidden}"),
                None => preset.clone(),
            },
            (None, Some(dir)) => dir.display().to_string(),
            (None, None) => String::new(),
        }
    }
}

impl Data {
    /// The same for crate `data`.
    pub fn options(&self) -> data::Options {
        data::Options {
            source: self.source.clone(),
            text_column: self.text_column.clone(),
            tokenizer: self.tokenizer.clone(),
            examples: self.examples.limit(),
            seq_len: self.seq_len,
            packing: self.packing,
            cache_dir: self.cache_dir.clone(),
            seed: self.seed,
        }
    }
}

impl Optimizer {
    /// The keys of the optimizer's row, for crate `optim`.
    pub fn settings(&self) -> BTreeMap<String, optim::Value> {
        let value = |value: &toml::Value| match value {
            toml::Value::Float(x) => optim::Value::Number(*x),
            toml::Value::Integer(n) => optim::Value::Number(*n as f64),
            toml::Value::Boolean(on) => optim::Value::Switch(*on),
            other => optim::Value::Word(other.as_str().unwrap_or_default().to_string()),
        };
        self.keys.iter().map(|(key, given)| (key.clone(), value(given))).collect()
    }
}

impl Recipe {
    /// What all optimizers have in common, for crate `optim`.
    pub fn common(&self) -> optim::Common {
        optim::Common {
            adamw: self.optimizer.adamw.settings(),
            seed: self.train.seed,
            clip: self.train.clip as f32,
            rounding: match self.train.rounding {
                Rounding::Nearest => optim::Rounding::Nearest,
                Rounding::Stochastic => optim::Rounding::Stochastic,
            },
            state: self.optimizer.state.into(),
        }
    }
}

impl Train {
    /// The shares of the peak rates that a step (from 1) runs at: of the matrices' and of the rest's.
    pub fn shares(&self, step: u64) -> (f64, f64) {
        let schedule = Schedule {
            shape: self.schedule,
            steps: self.steps,
            warmup: self.warmup,
            final_share: self.final_lr,
            decay_share: self.decay,
        };
        let share = schedule.share(step);
        (share, if self.warmup_rest { share } else { schedule.decay(step) })
    }

    /// Whether something is saved while training goes on, and not only at its end.
    pub fn saves_meanwhile(&self) -> bool {
        [self.checkpoint_steps, self.save_steps].iter().any(|every| (1..self.steps).contains(every))
    }

    /// What the optimizer measures at a step, from 1: the full diagnostics at the first and the last step too.
    pub fn watch(&self, step: u64) -> optim::Watch {
        let due = step == 1 || step == self.steps || step.is_multiple_of(self.diagnostics_steps);
        match self.diagnostics {
            Diagnostics::Off => optim::Watch::Off,
            Diagnostics::Full if due => optim::Watch::Full,
            Diagnostics::Cheap | Diagnostics::Full => optim::Watch::Cheap,
        }
    }
}

impl AdamW {
    /// The same for crate `optim`.
    pub fn settings(&self) -> optim::AdamWSettings {
        optim::AdamWSettings {
            betas: (self.betas[0] as f32, self.betas[1] as f32),
            eps: self.eps as f32,
            weight_decay: self.weight_decay as f32,
        }
    }
}

/// Values of crate `data` that a recipe spells as one word or path.
trait Text: Sized {
    fn text(&self) -> String;
    fn parse(text: String) -> Result<Self, String>;
}

impl Text for Source {
    fn text(&self) -> String {
        match self {
            Source::Synthetic => "synthetic".into(),
            Source::Path(path) => path.display().to_string(),
        }
    }

    fn parse(text: String) -> Result<Self, String> {
        Ok(if text == "synthetic" { Source::Synthetic } else { Source::Path(text.into()) })
    }
}

impl Text for TokenizerSpec {
    fn text(&self) -> String {
        self.to_string()
    }

    fn parse(text: String) -> Result<Self, String> {
        Ok(TokenizerSpec::parse(&text))
    }
}

impl Text for Packing {
    fn text(&self) -> String {
        self.name().into()
    }

    fn parse(text: String) -> Result<Self, String> {
        text.parse()
    }
}

mod as_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::Text;

    pub(super) fn serialize<T: Text, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&value.text())
    }

    pub(super) fn deserialize<'de, T: Text, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        T::parse(String::deserialize(from)?).map_err(D::Error::custom)
    }
}
