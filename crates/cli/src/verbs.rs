//! The published verbs: other names for training, with the flags that they had. Each flag sets one key of the recipe.

use clap::Args;
use train::recipe::Setting;

use crate::args::{Choice, RecipeArgs, setting};
use crate::error::Usage;

/// Flags of `train`.
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// Name of the optimizer (see `muon optimizers`); unset, the recipe's, or muon
    #[arg(long, value_name = "NAME", help_heading = "Optimizer")]
    optimizer: Option<String>,
    #[command(flatten)]
    pub recipe: RecipeArgs,
}

/// Flags of `nolah`.
#[derive(Debug, Args)]
pub struct NolahArgs {
    /// What gates the gradient: tanh, sigmoid or relu
    #[arg(long, value_name = "GATE", help_heading = "Optimizer")]
    gate: Option<String>,
    /// Factor on the momentum where the gradient is largest
    #[arg(long, value_name = "FACTOR", help_heading = "Optimizer")]
    scale: Option<String>,
    #[command(flatten)]
    pub recipe: RecipeArgs,
}

/// Flags of `pretrain`.
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a published switch")]
pub struct PretrainArgs {
    /// Train with nolah
    #[arg(long, help_heading = "Optimizer", group = "rule")]
    nolah: bool,
    /// Train with orthonoise
    #[arg(long, help_heading = "Optimizer", group = "rule")]
    orthonoise: bool,
    /// Train with isotropic, the control of orthonoise
    #[arg(long, help_heading = "Optimizer", group = "rule")]
    isotropic: bool,
    /// Size of the noise at the start, relative to the gradient
    #[arg(long, value_name = "ALPHA", help_heading = "Optimizer")]
    alpha: Option<String>,
    /// How the noise falls: constant, linear or exponential
    #[arg(long, value_name = "HOW", help_heading = "Optimizer", conflicts_with = "no_anneal")]
    anneal: Option<String>,
    /// Noise of constant size: --anneal constant
    #[arg(long, help_heading = "Optimizer")]
    no_anneal: bool,
    /// Noise in every step, not only where the momentum's effective rank is low
    #[arg(long, help_heading = "Optimizer")]
    no_adaptive: bool,
    /// Share of full rank below which the noise comes
    #[arg(long, value_name = "SHARE", help_heading = "Optimizer")]
    rank_threshold: Option<String>,
    /// Number of GPUs: 1
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Run")]
    ngpus: u32,
    #[command(flatten)]
    pub recipe: RecipeArgs,
}

impl TrainArgs {
    /// The optimizer.
    pub fn choice(&self) -> Choice<'_> {
        let optimizer = self.optimizer.as_deref().map(|name| (name, "--optimizer"));
        Choice { optimizer, settings: Vec::new() }
    }
}

impl NolahArgs {
    /// The optimizer and its settings.
    pub fn choice(&self) -> Choice<'_> {
        let flags = [
            ("optimizer.gate", "--gate", self.gate.as_deref()),
            ("optimizer.momentum_scale", "--scale", self.scale.as_deref()),
        ];
        Choice { optimizer: Some(("nolah", "nolah")), settings: given(flags) }
    }
}

impl PretrainArgs {
    /// The optimizer and its settings; refuses what does not start from scratch on one device.
    pub fn choice(&self) -> Result<Choice<'_>, Usage> {
        if self.ngpus != 1 {
            return Err(Usage(format!(
                "--ngpus {}: a run has one GPU so far; leave it out or give 1",
                self.ngpus
            )));
        }
        if self.recipe.pretrained {
            return Err(Usage(
                "--pretrained: pretrain starts from scratch; use muon train to go on from weights".into(),
            ));
        }
        let rules = [("nolah", "--nolah", self.nolah), ("orthonoise", "--orthonoise", self.orthonoise)];
        let rules = rules.into_iter().chain([("isotropic", "--isotropic", self.isotropic)]);
        let optimizer = rules.into_iter().find(|(.., chosen)| *chosen).map(|(name, flag, _)| (name, flag));
        let flags = [
            ("optimizer.alpha", "--alpha", self.alpha.as_deref()),
            ("optimizer.anneal", "--anneal", self.anneal.as_deref()),
            ("optimizer.anneal", "--no-anneal", self.no_anneal.then_some("constant")),
            ("optimizer.adaptive", "--no-adaptive", self.no_adaptive.then_some("false")),
            ("optimizer.rank_threshold", "--rank-threshold", self.rank_threshold.as_deref()),
        ];
        let mut settings = given(flags);
        settings.push(setting("model.pretrained", "false", "pretrain"));
        Ok(Choice { optimizer, settings })
    }
}

/// The settings of the flags that were given.
fn given<const N: usize>(flags: [(&str, &str, Option<&str>); N]) -> Vec<Setting> {
    flags.into_iter().filter_map(|(key, flag, value)| Some(setting(key, value?, flag))).collect()
}
