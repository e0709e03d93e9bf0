//! The table of recipe keys: what each is for and which values it takes.
//!
//! The keys of an optimizer other than `name`, `lr` and `adamw.*` are not here but in its own row of [`optim::ALL`].

use toml::Value;

use crate::schedule::Shape;

/// One key of a recipe.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Dotted name: `section.key`.
    pub name: &'static str,
    /// What it accepts.
    pub kind: Kind,
    /// One line of help.
    pub help: &'static str,
}

/// The values a key accepts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// A whole number from 1.
    Count,
    /// A whole number from 0.
    Whole,
    /// A number above 0.
    Positive,
    /// A number from 0.
    NonNegative,
    /// A number from 0 to 1.
    Share,
    /// Two numbers in [0, 1).
    Betas,
    /// `true` or `false`.
    Switch,
    /// A non-empty text.
    Text,
    /// A text, which may be empty.
    AnyText,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A whole number from 1, or `all`.
    CountOrAll,
}

const fn key(name: &'static str, kind: Kind, help: &'static str) -> Key {
    Key { name, kind, help }
}

/// Every key that all recipes have.
pub const KEYS: &[Key] = &[
    key("run.name", Kind::Text, "name of the run's folder; auto makes one up"),
    key("run.results", Kind::Text, "folder that holds the run folders"),
    key(
        "run.usd_per_hour",
        Kind::NonNegative,
        "price of the machine in dollars an hour, for the run's record and train.max_cost; 0: unknown",
    ),
    key("model.preset", Kind::Text, "a built-in model configuration"),
    key("model.dir", Kind::Text, "a folder with config.json in the Hugging Face layout, instead of a preset"),
    key("model.hidden_size", Kind::Count, "width of the residual stream, in place of the preset's own"),
    key("model.pretrained", Kind::Switch, "start from the weights in model.dir"),
    key("data.source", Kind::Text, "synthetic, or a .parquet, .jsonl or .txt file or a folder of them"),
    key("data.text_column", Kind::Text, "column or field that holds the text"),
    key("data.tokenizer", Kind::Text, "bytes, synthetic, or the path of a tokenizer.json"),
    key("data.packing", Kind::Choice(&["pack", "truncate"]), "rows across documents, or one document a row"),
    key("data.examples", Kind::CountOrAll, "read at most this many documents, or all"),
    key("data.seq_len", Kind::Count, "tokens in a row"),
    key("data.cache_dir", Kind::Text, "folder of the token cache"),
    key("data.seed", Kind::Whole, "seed of the synthetic language; the same in all runs that are compared"),
    key("optimizer.name", Kind::Text, "the optimizer of the matrices"),
    key("optimizer.lr", Kind::Positive, "its peak learning rate"),
    key("optimizer.adamw.lr", Kind::NonNegative, "learning rate of the weights that AdamW takes"),
    key("optimizer.adamw.betas", Kind::Betas, "AdamW's decay rates of the two moments"),
    key("optimizer.adamw.eps", Kind::Positive, "AdamW's epsilon"),
    key("optimizer.adamw.weight_decay", Kind::NonNegative, "AdamW's decoupled weight decay"),
    key(
        "optimizer.state",
        Kind::Choice(&["f32", "bf16"]),
        "what momenta and moments are kept in, AdamW's too; bf16 is rounded stochastically",
    ),
    key("train.steps", Kind::Count, "optimizer steps"),
    key("train.batch_size", Kind::Count, "rows a step"),
    key("train.warmup", Kind::Whole, "steps over which the rate rises: lr * min(1, t / warmup), t from 1"),
    key(
        "train.warmup_rest",
        Kind::Switch,
        "whether AdamW's rate for the rest of the weights rises too, or has its full value from the first step",
    ),
    key("train.schedule", Kind::Choice(Shape::NAMES), "what the rates do after the warm-up"),
    key("train.final_lr", Kind::Share, "share of the peak rate that a schedule ends at"),
    key("train.decay", Kind::Share, "share of the steps over which wsd decays, the last ones"),
    key(
        "train.clip",
        Kind::NonNegative,
        "largest global norm of the gradient, to which larger ones are scaled; 0: off",
    ),
    key("train.eval_steps", Kind::Whole, "evaluate every so many steps and at the end; 0: at the end only"),
    key("train.eval_batches", Kind::Count, "most validation batches an evaluation reads"),
    key("train.save_steps", Kind::Whole, "save every so many steps and at the end; 0: at the end only"),
    key(
        "train.checkpoint_steps",
        Kind::Whole,
        "take a checkpoint every so many steps and at the end; 0: only where the run is told to stop",
    ),
    key("train.keep_last", Kind::Count, "so many of the newest checkpoints are kept, 2 or more"),
    key("train.keep_best", Kind::Whole, "so many checkpoints of the least validation loss are kept as well"),
    key(
        "train.nonfinite_limit",
        Kind::Count,
        "stop after so many steps in a row whose loss or gradient is not finite; each is skipped",
    ),
    key(
        "train.staging",
        Kind::Choice(&["auto", "on", "off"]),
        "on a GPU, room for a copy of weights and state, from which they are saved while training goes on; off: training \
         waits until they are on the host; auto: on where the estimate leaves room",
    ),
    key(
        "train.spike_window",
        Kind::Whole,
        "a loss that stands out from so many before it is recorded as a spike; 0: none is",
    ),
    key(
        "train.spike_deviations",
        Kind::Positive,
        "how far it stands out: above their median, in robust standard deviations",
    ),
    key(
        "train.max_hours",
        Kind::NonNegative,
        "stop with a checkpoint after so many hours of work on the run, resumed or not; 0: never",
    ),
    key(
        "train.max_cost",
        Kind::NonNegative,
        "stop with a checkpoint when the run has cost so many dollars at run.usd_per_hour; 0: never",
    ),
    key("train.seed", Kind::Whole, "seed of the weights and of the order of the data"),
    key("train.device", Kind::Text, "auto, cpu, cuda or cuda:N"),
    key(
        "train.precision",
        Kind::Choice(&["auto", "f32", "mixed", "bf16"]),
        "auto: mixed on cuda, f32 on cpu; bf16: as mixed, with weights of record (on cuda gradients too) in bf16",
    ),
    key(
        "train.rounding",
        Kind::Choice(&["nearest", "stochastic"]),
        "how updates are rounded into weights of record in bf16",
    ),
    key(
        "train.kernels",
        Kind::Choice(&["fast", "plain"]),
        "on a GPU, where there are two: the fast kernels, or the plain ones they are held to",
    ),
    key(
        "train.graphs",
        Kind::Switch,
        "on a GPU, launch steps as CUDA graphs, with the same bits; the optimizer's part where every step launches the \
         same: not with polar, svd, noise, block-periodic or full diagnostics",
    ),
    key(
        "train.recompute",
        Kind::Choice(&["off", "layers"]),
        "layers: keep only the input of each layer and run it again in the backward pass",
    ),
    key("train.diagnostics", Kind::Choice(&["off", "cheap", "full"]), "what is measured beside the losses"),
    key("train.diagnostics_steps", Kind::Count, "take the full diagnostics every so many steps"),
];

impl Kind {
    /// The kind and the default of an optimizer's own key.
    pub fn of(key: &optim::Key) -> (Self, Value) {
        match key.default {
            optim::Default::Number(x) => (Kind::NonNegative, Value::Float(x)),
            optim::Default::Count(n) => (Kind::Whole, Value::Integer(n as i64)),
            optim::Default::Switch(on) => (Kind::Switch, Value::Boolean(on)),
            optim::Default::Choice { words, default } => {
                (Kind::Choice(words), Value::String(default.to_string()))
            }
            optim::Default::Text(text) => (Kind::AnyText, Value::String(text.to_string())),
        }
    }

    /// Reads a value given as text (environment, flags).
    pub(super) fn parse(self, raw: &str) -> Result<Value, String> {
        let raw = raw.trim();
        let wrong = || format!("is {raw:?} but takes {}", self.describe());
        let value = match self {
            Kind::Text | Kind::AnyText | Kind::Choice(_) => Value::String(raw.to_string()),
            Kind::Count | Kind::Whole => Value::Integer(raw.parse().map_err(|_| wrong())?),
            Kind::CountOrAll if raw == "all" => Value::String(raw.to_string()),
            Kind::CountOrAll => Value::Integer(raw.parse().map_err(|_| wrong())?),
            Kind::Positive | Kind::NonNegative | Kind::Share => {
                Value::Float(raw.parse().map_err(|_| wrong())?)
            }
            Kind::Switch => Value::Boolean(raw.parse().map_err(|_| wrong())?),
            Kind::Betas => {
                let numbers = raw.trim_start_matches('[').trim_end_matches(']').split(',');
                let numbers: Result<Vec<f64>, _> = numbers.map(|n| n.trim().parse()).collect();
                Value::Array(numbers.map_err(|_| wrong())?.into_iter().map(Value::Float).collect())
            }
        };
        self.check(value)
    }

    /// Checks a value's type and range; whole numbers given for other numbers become such.
    pub(super) fn check(self, value: Value) -> Result<Value, String> {
        let value = match (self, value) {
            (Kind::Positive | Kind::NonNegative | Kind::Share, Value::Integer(n)) => Value::Float(n as f64),
            (Kind::Betas, Value::Array(items)) => Value::Array(
                items
                    .into_iter()
                    .map(|v| if let Value::Integer(n) = v { Value::Float(n as f64) } else { v })
                    .collect(),
            ),
            (_, value) => value,
        };
        let fits = match (self, &value) {
            (Kind::Count | Kind::CountOrAll, Value::Integer(n)) => *n >= 1,
            (Kind::Whole, Value::Integer(n)) => *n >= 0,
            (Kind::Positive, Value::Float(x)) => x.is_finite() && *x > 0.0,
            (Kind::NonNegative, Value::Float(x)) => x.is_finite() && *x >= 0.0,
            (Kind::Share, Value::Float(x)) => (0.0..=1.0).contains(x),
            (Kind::Betas, Value::Array(items)) => {
                items.len() == 2
                    && items.iter().all(|v| v.as_float().is_some_and(|x| (0.0..1.0).contains(&x)))
            }
            (Kind::Switch, Value::Boolean(_)) | (Kind::AnyText, Value::String(_)) => true,
            (Kind::Text, Value::String(text)) => !text.is_empty(),
            (Kind::Choice(words), Value::String(text)) => words.contains(&text.as_str()),
            (Kind::CountOrAll, Value::String(text)) => text == "all",
            _ => false,
        };
        if fits { Ok(value) } else { Err(format!("is {value} but takes {}", self.describe())) }
    }

    /// What it accepts, in words.
    pub fn describe(self) -> String {
        match self {
            Kind::Count => "a whole number from 1".into(),
            Kind::Whole => "a whole number from 0".into(),
            Kind::Positive => "a number above 0".into(),
            Kind::NonNegative => "a number from 0".into(),
            Kind::Share => "a number from 0 to 1".into(),
            Kind::Betas => "two numbers from 0 to below 1, such as [0.9, 0.95]".into(),
            Kind::Switch => "true or false".into(),
            Kind::Text => "a text that is not empty".into(),
            Kind::AnyText => "a text".into(),
            Kind::Choice(words) => format!("one of {}", words.join(", ")),
            Kind::CountOrAll => "a whole number from 1, or \"all\"".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_have_a_section() {
        for (i, key) in KEYS.iter().enumerate() {
            assert!(key.name.contains('.'), "{}", key.name);
            assert!(KEYS[..i].iter().all(|other| other.name != key.name), "{} stands twice", key.name);
        }
    }

    #[test]
    fn text_and_toml_agree() {
        for (kind, raw) in [
            (Kind::Count, "7"),
            (Kind::Positive, "1e-4"),
            (Kind::Betas, "[0.9, 0.95]"),
            (Kind::Switch, "true"),
            (Kind::Share, "1"),
            (Kind::CountOrAll, "12"),
        ] {
            let table: toml::Table = format!("v = {raw}").parse().unwrap();
            assert_eq!(kind.parse(raw), kind.check(table["v"].clone()), "{raw}");
        }
        assert_eq!(Kind::Betas.parse("0.9,0.95"), Kind::Betas.parse("[0.9, 0.95]"));
        assert_eq!(Kind::NonNegative.check(Value::Integer(2)), Ok(Value::Float(2.0)));
        assert_eq!(Kind::Text.parse("007"), Ok(Value::String("007".into())));
    }

    #[test]
    fn ranges_are_kept() {
        for (kind, raw) in [
            (Kind::Count, "0"),
            (Kind::Count, "-3"),
            (Kind::Count, "1.5"),
            (Kind::Whole, "99999999999999999999"),
            (Kind::Positive, "0"),
            (Kind::Positive, "nan"),
            (Kind::NonNegative, "inf"),
            (Kind::Share, "1.1"),
            (Kind::Share, "nan"),
            (Kind::Betas, "0.9"),
            (Kind::Betas, "0.9,1.0"),
            (Kind::Switch, "yes"),
            (Kind::Text, " "),
            (Kind::Choice(&["pack"]), "Pack"),
            (Kind::CountOrAll, "some"),
        ] {
            assert!(kind.parse(raw).is_err(), "{kind:?} took {raw:?}");
        }
    }
}
