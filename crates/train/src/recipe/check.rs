//! What has to fit together in a recipe, and what fits but may surprise.

use data::{Source, TokenizerSpec};

use super::Resolved;
use tensor::Device;
use tensor::params::{Init, ParamSpec, Params, Role};

use super::choices::{Precision, Rounding};
use super::error::{Error, Result};
use super::layers::Origin;
use super::types::Recipe;
use crate::schedule::Shape;

impl Resolved {
    /// Refuses values that do not fit together; notes those that fit but may surprise.
    pub(super) fn check(&mut self) -> Result<()> {
        let Recipe { model, data, train, optimizer, .. } = &self.recipe;
        let wrong = |key: &str, reason: &str| Err(Error::value(self.origin(key), key, reason));
        if model.pretrained && model.dir.is_none() {
            return wrong(
                "model.pretrained",
                "needs the weights of a model folder: give model.dir (--model DIR)",
            );
        }
        match (&data.source, &data.tokenizer) {
            (Source::Synthetic, TokenizerSpec::Bytes | TokenizerSpec::File(_)) => {
                return wrong(
                    "data.tokenizer",
                    "has no text to work on: the synthetic language comes as tokens; leave it out",
                );
            }
            (Source::Path(_), TokenizerSpec::Synthetic) => {
                return wrong(
                    "data.tokenizer",
                    "is `synthetic`, which cannot read text: give bytes or a tokenizer.json",
                );
            }
            _ => {}
        }
        let ordinal = train.device.strip_prefix("cuda:").map(str::parse::<usize>);
        if !matches!(train.device.as_str(), "auto" | "cpu" | "cuda") && !matches!(ordinal, Some(Ok(_))) {
            return wrong(
                "train.device",
                &format!("is `{}` but takes auto, cpu, cuda or cuda:N", train.device),
            );
        }
        if train.keep_last < 2 {
            let reason = "is 1 but takes 2 or more: if the newest is damaged, the one before it is the truth";
            return wrong("train.keep_last", reason);
        }
        if train.max_cost > 0.0 && self.recipe.run.usd_per_hour == 0.0 {
            let reason = "needs the price of the machine: give run.usd_per_hour (--price)";
            return wrong("train.max_cost", reason);
        }
        self.check_optimizer()?;
        if train.device == "cpu" {
            self.check_cpu()?;
        }

        let mut notes = Vec::new();
        if data.source == Source::Synthetic && !self.open_vocabulary {
            notes.push(format!(
                "{} trains on the synthetic language, whose few tokens lie inside its vocabulary (--data PATH for text)",
                model.label()
            ));
        }
        if let Source::Path(path) = &data.source
            && path.extension().is_some_and(|extension| extension == "txt")
            && *self.origin("data.text_column") != Origin::Default
        {
            notes.push("data.text_column is not used: plain text has no columns".into());
        }
        let given = |key: &str| {
            matches!(self.origin(key), Origin::File(_) | Origin::Environment(_) | Origin::Flag(_))
        };
        if optimizer.name == "adamw" && given("optimizer.adamw.lr") {
            notes.push(
                "optimizer.adamw.lr is not used: adamw takes all weights, at optimizer.lr (--lr)".into(),
            );
        }
        if optimizer.keys.get("adaptive").and_then(toml::Value::as_bool) == Some(false)
            && given("optimizer.rank_threshold")
        {
            notes.push(
                "optimizer.rank_threshold is not used: with optimizer.adaptive = false every step has noise"
                    .into(),
            );
        }
        if train.schedule == Shape::Constant && given("train.final_lr") {
            notes.push("train.final_lr is not used: the schedule is constant".into());
        }
        if train.schedule != Shape::Wsd && given("train.decay") {
            notes.push(
                "train.decay is not used: only the schedule wsd decays over a share of the steps".into(),
            );
        }
        if train.rounding == Rounding::Stochastic && train.precision != Precision::Bf16 {
            notes.push(
                "train.rounding is not used: only weights of record in bf16 (train.precision) are rounded"
                    .into(),
            );
        }
        if train.warmup > train.steps {
            let share = train.steps as f64 / train.warmup as f64;
            notes.push(format!(
                "the warm-up of {} steps outlasts the run: its rate ends at {:.3e}, {:.0} % of optimizer.lr",
                train.warmup,
                optimizer.lr * share,
                100.0 * share
            ));
        }
        for (key, every) in [("eval_steps", train.eval_steps), ("save_steps", train.save_steps)] {
            if every > train.steps {
                notes.push(format!(
                    "train.{key} = {every} is longer than the run: it happens once, at the end"
                ));
            }
        }
        self.notes = notes;
        Ok(())
    }

    /// Refuses what the CPU does not compute in.
    pub(super) fn check_cpu(&self) -> Result<()> {
        match self.recipe.train.precision {
            Precision::Mixed => Err(Error::Precision { from: self.origin("train.precision").clone() }),
            Precision::Auto | Precision::F32 | Precision::Bf16 => Ok(()),
        }
    }

    /// Has the optimizer read its own keys, on a model of one small matrix: before any data is opened.
    fn check_optimizer(&self) -> Result<()> {
        let weight = ParamSpec {
            name: "weight".into(),
            shape: vec![2, 2],
            role: Role::Matrix,
            out_axis: 0,
            segments: Vec::new(),
            init: Init::Zeros,
        };
        let Recipe { optimizer, .. } = &self.recipe;
        let params = Params::new(&Device::Cpu, tensor::Precision::F32, vec![weight]);
        let params = params.expect("four numbers fit on the CPU");
        match optim::Optimizer::new(&optimizer.name, &optimizer.settings(), &self.recipe.common(), &params) {
            Err(optim::Error::Setting { key, reason, .. }) => {
                let key = format!("optimizer.{key}");
                Err(Error::value(self.origin(&key), &key, reason))
            }
            Err(other) => {
                Err(Error::value(self.origin("optimizer.name"), "optimizer.name", other.to_string()))
            }
            Ok(_) => Ok(()),
        }
    }
}
