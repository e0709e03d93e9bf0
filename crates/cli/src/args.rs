//! The flags that all training verbs share, and how they become settings of a recipe. Every flag may be spelt with
//! underscores too ([`hyphens`]).

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, builder::NonEmptyStringValueParser};
use train::recipe::{self, Resolved, Setting, Sources, model_key};

use crate::error::Usage;
use crate::secrets;

/// Flags of all training verbs. Every one but `--published`, `--recipe`, `--set` and `--dry-run` sets one key of the
/// recipe; values are checked there, against the same table as those of a recipe file.
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub struct RecipeArgs {
    /// Optimizer steps
    #[arg(long, visible_alias = "max-steps", value_name = "N", help_heading = "Run")]
    steps: Option<String>,
    /// Peak learning rate of the optimizer
    #[arg(long, value_name = "RATE", allow_hyphen_values = true, help_heading = "Run")]
    lr: Option<String>,
    /// Rows a step; unset, it scales with steps and model size
    #[arg(long, value_name = "N", help_heading = "Run")]
    batch_size: Option<String>,
    /// Steps over which the rate rises
    #[arg(long, value_name = "N", help_heading = "Run")]
    warmup: Option<String>,
    /// constant, cosine, linear or wsd: what the rate does after the warm-up
    #[arg(long, value_name = "SHAPE", help_heading = "Run")]
    schedule: Option<String>,
    /// Scale a gradient whose global norm is larger down to it; unset, none is
    #[arg(long, value_name = "NORM", help_heading = "Run")]
    clip: Option<String>,
    /// Evaluate every so many steps, and at the end
    #[arg(long, value_name = "N", help_heading = "Run")]
    eval_steps: Option<String>,
    /// Save the model every so many steps, and at the end
    #[arg(long, visible_alias = "save-checkpoint-interval", value_name = "N", help_heading = "Run")]
    save_steps: Option<String>,
    /// Take a checkpoint every so many steps, and at the end; 0: only where the run is told to stop
    #[arg(long, value_name = "N", help_heading = "Run")]
    checkpoint_steps: Option<String>,
    /// Stop with a checkpoint after so many hours
    #[arg(long, value_name = "HOURS", help_heading = "Run")]
    max_hours: Option<String>,
    /// Stop with a checkpoint when the run has cost so many dollars, at --price
    #[arg(long, value_name = "USD", help_heading = "Run")]
    max_cost: Option<String>,
    /// Price of the machine in dollars an hour
    #[arg(long, value_name = "USD", help_heading = "Run")]
    price: Option<String>,
    /// Name of the run's folder; unset, one is made up
    #[arg(long, value_name = "NAME", help_heading = "Run")]
    name: Option<String>,
    /// Seed of the weights and of the order of the data
    #[arg(long, value_name = "N", help_heading = "Run")]
    seed: Option<String>,
    /// Folder that holds the run folders
    #[arg(long, value_name = "DIR", help_heading = "Run")]
    results: Option<String>,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", help_heading = "Run")]
    device: Option<String>,
    /// f32, mixed or bf16 (weights of record in bf16); unset, mixed on cuda and f32 on the CPU
    #[arg(long, value_name = "PRECISION", help_heading = "Run")]
    precision: Option<String>,
    /// nearest or stochastic: how updates are rounded into weights of record in bf16
    #[arg(long, value_name = "HOW", help_heading = "Run")]
    rounding: Option<String>,
    /// off, cheap or full: what is measured beside the losses
    #[arg(long, value_name = "LEVEL", help_heading = "Run")]
    diagnostics: Option<String>,

    /// A preset, or a folder with config.json
    #[arg(long, value_name = "PRESET|DIR", help_heading = "Model")]
    model: Option<String>,
    /// Width of the residual stream, in place of the preset's own
    #[arg(long, value_name = "N", help_heading = "Model")]
    hidden_size: Option<String>,
    /// Start from the weights in the --model folder
    #[arg(long, help_heading = "Model")]
    pub pretrained: bool,

    /// A .parquet, .jsonl or .txt file, or a folder of them; unset, a synthetic language
    #[arg(long, value_name = "PATH", help_heading = "Data")]
    data: Option<String>,
    /// Column or field that holds the text
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    text_column: Option<String>,
    /// A tokenizer.json, or bytes
    #[arg(long, value_name = "FILE|bytes", help_heading = "Data")]
    tokenizer: Option<String>,
    /// pack: fill rows across documents; truncate: one document a row
    #[arg(long, value_name = "HOW", help_heading = "Data")]
    packing: Option<String>,
    /// Read at most so many documents, or all; unset, it scales with steps
    #[arg(long, value_name = "N|all", help_heading = "Data")]
    examples: Option<String>,
    /// Tokens in a row
    #[arg(long, visible_alias = "max-len", value_name = "N", help_heading = "Data")]
    seq_len: Option<String>,

    /// How the optimizer orthogonalises
    #[arg(long, value_name = "METHOD", help_heading = "Optimizer")]
    ortho: Option<String>,
    /// none, segments or heads: into what fused weights are split before they are orthogonalised; bare: segments
    #[arg(long, value_name = "HOW", num_args = 0..=1, default_missing_value = "segments", help_heading = "Optimizer")]
    split: Option<String>,
    /// Decoupled weight decay of the optimizer's own weights
    #[arg(long, value_name = "DECAY", help_heading = "Optimizer")]
    wd: Option<String>,
    /// Side of the tiles of block-muon and block-periodic
    #[arg(long, value_name = "N", help_heading = "Optimizer")]
    block_size: Option<String>,

    /// Start from the published set-up, with those of its flaws that are a setting, instead of the defaults
    #[arg(long, help_heading = "Recipe")]
    published: bool,
    /// Take the recipe from a TOML file; flags and environment go over it
    #[arg(long, value_name = "FILE", help_heading = "Recipe")]
    recipe: Option<PathBuf>,
    /// Set any recipe key, such as optimizer.adamw.lr=1e-3; may be given many times
    #[arg(long, value_name = "KEY=VALUE", value_parser = NonEmptyStringValueParser::new(), help_heading = "Recipe")]
    set: Vec<String>,
    /// Train in the background; returns when it has begun. Then: status, logs, watch, stop
    #[arg(long, help_heading = "Run", conflicts_with = "dry_run")]
    pub detach: bool,
    /// Show the resolved recipe, the memory it needs and the data it would read; start nothing, write nothing
    #[arg(long, help_heading = "Recipe")]
    pub dry_run: bool,
}

/// What a verb adds to the shared flags.
#[derive(Debug, Default)]
pub struct Choice<'a> {
    /// The optimizer, and the flag or verb that chose it.
    pub optimizer: Option<(&'a str, &'a str)>,
    /// Settings of the verb's own flags.
    pub settings: Vec<Setting>,
}

/// A setting from parts: key, value and the flag that gave it.
pub fn setting(key: &str, value: &str, flag: &str) -> Setting {
    Setting { key: key.to_string(), value: value.to_string(), flag: flag.to_string() }
}

/// The variables of the environment that set recipe keys.
pub fn environment() -> Result<Vec<(String, String)>, Usage> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| name.starts_with(recipe::ENV_PREFIX))
        .map(|(name, value)| match value.into_string() {
            Ok(value) => Ok((name, value)),
            Err(_) => Err(Usage(format!("the environment variable {name} is not UTF-8 text"))),
        })
        .collect()
}

/// Splits the value of `--set`.
pub fn key_value(text: &str) -> Result<(&str, &str), Usage> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| Usage(format!("--set {text}: expected KEY=VALUE, such as train.steps=20")))?;
    Ok((key.trim(), value))
}

/// Refuses arguments that contain a secret: every user of the machine can read them.
pub fn without_secrets(arguments: &[OsString]) -> Result<(), Usage> {
    let mut numbered = arguments.iter().zip(0..).skip(1);
    numbered.try_for_each(|(text, number)| {
        secrets::refuse(&format!("argument {number} of the command line"), text.as_encoded_bytes())
    })
}

/// The recipe if none of its values contains a secret: it is written down with the run.
pub fn recipe_without_secrets(resolved: Resolved) -> Result<Resolved, Usage> {
    for (key, value, from) in resolved.rows() {
        secrets::refuse(&format!("{key} (from {from})"), value.as_bytes())?;
    }
    Ok(resolved)
}

/// The arguments with hyphens for the underscores in the names of flags: `--block_size=3` is `--block-size=3`. What
/// follows a bare `--` is no flag.
pub fn hyphens(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut flags = true;
    let spell = |argument: OsString| {
        flags &= argument != "--";
        match argument.to_str() {
            Some(text) if flags && text.starts_with("--") => {
                let (name, value) = text.split_at(text.find('=').unwrap_or(text.len()));
                format!("{}{value}", name.replace('_', "-")).into()
            }
            _ => argument,
        }
    };
    arguments.map(spell).collect()
}

impl RecipeArgs {
    /// Resolves the recipe of this command line.
    pub fn resolve(&self, choice: &Choice) -> anyhow::Result<Resolved> {
        let environment = environment()?;
        let mut flags = self.settings(choice)?;
        if let Some(decay) = &self.wd {
            // AdamW's settings have a section of their own, also where it is the optimizer of all weights.
            let adamw = recipe::optimizer_of(&self.sources(&environment, &flags))?.name == "adamw";
            let key = if adamw { "optimizer.adamw.weight_decay" } else { "optimizer.weight_decay" };
            flags.push(setting(key, decay, "--wd"));
        }
        Ok(recipe_without_secrets(recipe::resolve(&self.sources(&environment, &flags))?)?)
    }

    fn sources<'a>(&'a self, environment: &'a [(String, String)], flags: &'a [Setting]) -> Sources<'a> {
        Sources { published: self.published, file: self.recipe.as_deref(), environment, flags }
    }

    fn settings(&self, choice: &Choice) -> Result<Vec<Setting>, Usage> {
        let mut settings: Vec<Setting> = [
            ("train.steps", "--steps", &self.steps),
            ("optimizer.lr", "--lr", &self.lr),
            ("train.batch_size", "--batch-size", &self.batch_size),
            ("train.warmup", "--warmup", &self.warmup),
            ("train.schedule", "--schedule", &self.schedule),
            ("train.clip", "--clip", &self.clip),
            ("train.eval_steps", "--eval-steps", &self.eval_steps),
            ("train.save_steps", "--save-steps", &self.save_steps),
            ("train.checkpoint_steps", "--checkpoint-steps", &self.checkpoint_steps),
            ("train.max_hours", "--max-hours", &self.max_hours),
            ("train.max_cost", "--max-cost", &self.max_cost),
            ("run.usd_per_hour", "--price", &self.price),
            ("run.name", "--name", &self.name),
            ("train.seed", "--seed", &self.seed),
            ("run.results", "--results", &self.results),
            ("train.device", "--device", &self.device),
            ("train.precision", "--precision", &self.precision),
            ("train.rounding", "--rounding", &self.rounding),
            ("train.diagnostics", "--diagnostics", &self.diagnostics),
            (self.model.as_deref().map_or("model.preset", model_key), "--model", &self.model),
            ("model.hidden_size", "--hidden-size", &self.hidden_size),
            ("data.source", "--data", &self.data),
            ("data.text_column", "--text-column", &self.text_column),
            ("data.tokenizer", "--tokenizer", &self.tokenizer),
            ("data.packing", "--packing", &self.packing),
            ("data.examples", "--examples", &self.examples),
            ("data.seq_len", "--seq-len", &self.seq_len),
            ("optimizer.ortho", "--ortho", &self.ortho),
            ("optimizer.split", "--split", &self.split),
            ("optimizer.block_size", "--block-size", &self.block_size),
        ]
        .into_iter()
        .filter_map(|(key, flag, value)| Some(setting(key, value.as_deref()?, flag)))
        .collect();
        settings.extend(choice.optimizer.map(|(name, flag)| setting("optimizer.name", name, flag)));
        settings.extend_from_slice(&choice.settings);
        settings.extend(self.pretrained.then(|| setting("model.pretrained", "true", "--pretrained")));
        for text in &self.set {
            let (key, value) = key_value(text)?;
            settings.push(setting(key, value, &format!("--set {key}")));
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::hyphens;

    #[test]
    fn underscores_in_flags_become_hyphens_and_values_stay() {
        let given =
            ["muon", "--block_size", "a_b", "--max_len=c_d", "--set=data.seq_len=3", "-x_y", "--", "--e_f"];
        let spelt =
            ["muon", "--block-size", "a_b", "--max-len=c_d", "--set=data.seq_len=3", "-x_y", "--", "--e_f"];
        assert_eq!(hyphens(given.into_iter().map(Into::into)), spelt);
    }
}
