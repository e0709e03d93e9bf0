//! The flags that all training verbs share, and how they become settings of a recipe.

use std::path::PathBuf;

use clap::{Args, builder::NonEmptyStringValueParser};
use train::recipe::{self, Resolved, Setting, Sources, model_key};

use crate::error::Usage;

/// Flags of `train` and `baseline`. Every one but `--recipe`, `--set` and `--dry-run` sets one key of the recipe; values
/// are checked there, against the same table as those of a recipe file.
#[derive(Debug, Args)]
pub struct RecipeArgs {
    /// Optimizer steps
    #[arg(long, value_name = "N", help_heading = "Run")]
    steps: Option<String>,
    /// Peak learning rate of the optimizer
    #[arg(long, value_name = "RATE", allow_hyphen_values = true, help_heading = "Run")]
    lr: Option<String>,
    /// Rows a step; unset, it scales with steps and model size
    #[arg(long, alias = "batch_size", value_name = "N", help_heading = "Run")]
    batch_size: Option<String>,
    /// Steps over which the rate rises
    #[arg(long, value_name = "N", help_heading = "Run")]
    warmup: Option<String>,
    /// Evaluate every so many steps, and at the end
    #[arg(long, alias = "eval_steps", value_name = "N", help_heading = "Run")]
    eval_steps: Option<String>,
    /// Save the model every so many steps, and at the end
    #[arg(long, alias = "save_steps", value_name = "N", help_heading = "Run")]
    save_steps: Option<String>,
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
    /// f32 or mixed; unset, mixed on cuda and f32 on the CPU
    #[arg(long, value_name = "PRECISION", help_heading = "Run")]
    precision: Option<String>,

    /// A preset, or a folder with config.json
    #[arg(long, value_name = "PRESET|DIR", help_heading = "Model")]
    model: Option<String>,
    /// Start from the weights in the --model folder
    #[arg(long, help_heading = "Model")]
    pretrained: bool,

    /// A .parquet, .jsonl or .txt file, or a folder of them; unset, a synthetic language
    #[arg(long, value_name = "PATH", help_heading = "Data")]
    data: Option<String>,
    /// Column or field that holds the text
    #[arg(long, alias = "text_column", value_name = "NAME", help_heading = "Data")]
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
    #[arg(long, alias = "seq_len", value_name = "N", help_heading = "Data")]
    seq_len: Option<String>,

    /// How the optimizer orthogonalises
    #[arg(long, value_name = "METHOD", help_heading = "Recipe")]
    ortho: Option<String>,
    /// Take the recipe from a TOML file; flags and environment go over it
    #[arg(long, value_name = "FILE", help_heading = "Recipe")]
    recipe: Option<PathBuf>,
    /// Set any recipe key, such as optimizer.adamw.lr=1e-3; may be given many times
    #[arg(long, value_name = "KEY=VALUE", value_parser = NonEmptyStringValueParser::new(), help_heading = "Recipe")]
    set: Vec<String>,
    /// Show the resolved recipe, the memory it needs and the data it would read; start nothing, write nothing
    #[arg(long, alias = "dry_run", help_heading = "Recipe")]
    pub dry_run: bool,
}

impl RecipeArgs {
    /// Resolves the recipe of this command line; `optimizer` is the name and the flag or verb that chose it, if any did.
    pub fn resolve(&self, optimizer: Option<(&str, &str)>) -> anyhow::Result<Resolved> {
        let environment: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, _)| name.starts_with(recipe::ENV_PREFIX))
            .map(|(name, value)| match value.into_string() {
                Ok(value) => Ok((name, value)),
                Err(_) => Err(Usage(format!("the environment variable {name} is not UTF-8 text"))),
            })
            .collect::<Result<_, _>>()?;
        let flags = self.settings(optimizer)?;
        let sources = Sources { file: self.recipe.as_deref(), environment: &environment, flags: &flags };
        Ok(recipe::resolve(&sources)?)
    }

    fn settings(&self, optimizer: Option<(&str, &str)>) -> Result<Vec<Setting>, Usage> {
        let setting = |key: &str, value: &str, flag: &str| Setting {
            key: key.to_string(),
            value: value.to_string(),
            flag: flag.to_string(),
        };
        let mut settings: Vec<Setting> = [
            ("train.steps", "--steps", &self.steps),
            ("optimizer.lr", "--lr", &self.lr),
            ("train.batch_size", "--batch-size", &self.batch_size),
            ("train.warmup", "--warmup", &self.warmup),
            ("train.eval_steps", "--eval-steps", &self.eval_steps),
            ("train.save_steps", "--save-steps", &self.save_steps),
            ("run.name", "--name", &self.name),
            ("train.seed", "--seed", &self.seed),
            ("run.results", "--results", &self.results),
            ("train.device", "--device", &self.device),
            ("train.precision", "--precision", &self.precision),
            (self.model.as_deref().map_or("model.preset", model_key), "--model", &self.model),
            ("data.source", "--data", &self.data),
            ("data.text_column", "--text-column", &self.text_column),
            ("data.tokenizer", "--tokenizer", &self.tokenizer),
            ("data.packing", "--packing", &self.packing),
            ("data.examples", "--examples", &self.examples),
            ("data.seq_len", "--seq-len", &self.seq_len),
            ("optimizer.ortho", "--ortho", &self.ortho),
        ]
        .into_iter()
        .filter_map(|(key, flag, value)| Some(setting(key, value.as_deref()?, flag)))
        .collect();
        settings.extend(optimizer.map(|(name, flag)| setting("optimizer.name", name, flag)));
        settings.extend(self.pretrained.then(|| setting("model.pretrained", "true", "--pretrained")));
        for text in &self.set {
            let (key, value) = text
                .split_once('=')
                .ok_or_else(|| Usage(format!("--set {text}: expected KEY=VALUE, such as train.steps=20")))?;
            settings.push(setting(key.trim(), value, &format!("--set {key}")));
        }
        Ok(settings)
    }
}
