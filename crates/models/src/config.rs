//! Model configurations in the Hugging Face layout: read from `config.json`, checked once, written back.
//!
//! A configuration that [`Config::parse`] returned describes a model that this crate can build: every shape
//! is positive and every division comes out even. Absent fields take the defaults of the transformers
//! library, except the sizes that define the model, which must be there.

mod fields;
mod granite;
mod qwen2;

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::params::parameters;
use fields::Fields;
pub use granite::{GraniteConfig, LayerKind, Mamba2Config};
pub use qwen2::Qwen2Config;

/// No model has more weights.
const MOST_WEIGHTS: usize = 1 << 40;

/// Architecture and sizes of a model.
#[derive(Debug, Clone, PartialEq)]
pub enum Config {
    /// `granitemoehybrid` without experts: Mamba2 and attention layers in any mixture.
    Granite(GraniteConfig),
    /// `qwen2`: rotary attention with biases, and a gated MLP.
    Qwen2(Qwen2Config),
}

/// Token ids with a meaning of their own; [`None`] (or empty) is `null` in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenIds {
    /// Beginning of text.
    pub bos: Option<u32>,
    /// End of text: none, one or several.
    pub eos: Vec<u32>,
    /// Padding. In transformers, looking this id up gives its embedding no gradient.
    pub pad: Option<u32>,
}

impl Config {
    /// Reads a `config.json`, given itself or its folder.
    pub fn load(path: &Path) -> Result<Self> {
        let file = match std::fs::metadata(path) {
            Ok(found) if found.is_dir() => path.join("config.json"),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io(path, &error));
            }
            _ => path.to_owned(),
        };
        let text = std::fs::read_to_string(&file).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::Io {
                path: file.clone(),
                reason: "not found; a model folder holds config.json, in the Hugging Face layout".into(),
            },
            _ => Error::io(&file, &error),
        })?;
        Config::parse(&text, &file.display().to_string())
    }

    /// Parses the text of a `config.json`; `file` is what errors call it.
    pub fn parse(text: &str, file: &str) -> Result<Self> {
        let fail = |reason: String| Error::Config { file: file.into(), reason };
        let value: Value = serde_json::from_str(&fields::tag_special_floats(text))
            .map_err(|error| fail(format!("not valid JSON: {error}")))?;
        let Value::Object(map) = value else {
            return Err(fail("expected a JSON object of model settings".into()));
        };
        let fields = Fields::new(file, &map);
        let config = match fields.text("model_type")? {
            Some("granitemoehybrid") => Config::Granite(GraniteConfig::read(&fields)?),
            Some("qwen2") => Config::Qwen2(Qwen2Config::read(&fields)?),
            Some(other) => {
                return Err(fail(format!(
                    "model_type `{other}` is not supported; use granitemoehybrid or qwen2"
                )));
            }
            None => return Err(fail("no field `model_type`; set it to granitemoehybrid or qwen2".into())),
        };
        config.bounded().map_err(|reason| fail(format!("it {reason}")))
    }

    /// The same, unless its weights are more than any machine can hold.
    fn bounded(self) -> Result<Self, String> {
        let size = |shape: &[usize]| shape.iter().try_fold(1_usize, |size, &n| size.checked_mul(n));
        let specs = parameters(&self);
        let total = specs.iter().try_fold(0_usize, |sum, spec| sum.checked_add(size(&spec.shape)?));
        match total {
            Some(total) if total <= MOST_WEIGHTS => Ok(self),
            _ => Err(format!("makes a model of more than {MOST_WEIGHTS} weights; correct its sizes")),
        }
    }

    /// The object that a `config.json` holds; transformers loads it as it is.
    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        match self {
            Config::Granite(config) => config.write(&mut map),
            Config::Qwen2(config) => config.write(&mut map),
        }
        Value::Object(map)
    }

    /// `model_type` in the file.
    pub fn model_type(&self) -> &'static str {
        match self {
            Config::Granite(_) => "granitemoehybrid",
            Config::Qwen2(_) => "qwen2",
        }
    }

    /// Rows of the embedding; token ids are below it.
    pub fn vocab_size(&self) -> usize {
        match self {
            Config::Granite(config) => config.vocab_size,
            Config::Qwen2(config) => config.vocab_size,
        }
    }

    /// Width of the residual stream.
    pub fn hidden_size(&self) -> usize {
        match self {
            Config::Granite(config) => config.hidden_size,
            Config::Qwen2(config) => config.hidden_size,
        }
    }

    /// Number of layers.
    pub fn num_layers(&self) -> usize {
        match self {
            Config::Granite(config) => config.layers.len(),
            Config::Qwen2(config) => config.num_hidden_layers,
        }
    }

    /// Whether the output head is the embedding.
    pub fn tied(&self) -> bool {
        match self {
            Config::Granite(config) => config.tie_word_embeddings,
            Config::Qwen2(config) => config.tie_word_embeddings,
        }
    }

    /// Token ids with a meaning of their own.
    pub fn tokens(&self) -> &TokenIds {
        match self {
            Config::Granite(config) => &config.tokens,
            Config::Qwen2(config) => &config.tokens,
        }
    }

    /// The same model with another width of the residual stream, or why there is none. The number of attention heads, the
    /// MLP and the width of a Mamba2 head stay as they are: attention heads become `hidden / heads` wide, and a Mamba2
    /// mixer has `expand * hidden / d_head` heads.
    pub fn with_hidden_size(mut self, hidden: usize) -> Result<Self, String> {
        if hidden as u64 > fields::MOST_SIZE {
            return Err(format!("is {hidden}; take at most {}", fields::MOST_SIZE));
        }
        match &mut self {
            Config::Granite(config) => config.set_hidden_size(hidden)?,
            Config::Qwen2(config) => config.set_hidden_size(hidden)?,
        }
        self.bounded()
    }

    /// The same model over another vocabulary: `vocab_size` ids, one ends a text, one pads (the embedding of a pad is
    /// not trained, so a pad that also ends texts is left out).
    #[must_use]
    pub fn with_vocab(mut self, vocab_size: usize, end_of_text: u32, pad: u32) -> Self {
        let (size, tokens) = match &mut self {
            Config::Granite(config) => (&mut config.vocab_size, &mut config.tokens),
            Config::Qwen2(config) => (&mut config.vocab_size, &mut config.tokens),
        };
        *size = vocab_size;
        *tokens = TokenIds {
            bos: Some(end_of_text),
            eos: vec![end_of_text],
            pad: (pad != end_of_text).then_some(pad),
        };
        self
    }
}

impl TokenIds {
    fn read(fields: &Fields, vocab_size: usize, bos: Option<u32>, eos: Option<u32>) -> Result<Self> {
        let tokens = TokenIds {
            bos: fields.token("bos_token_id", bos)?,
            eos: fields.tokens("eos_token_id", eos)?,
            pad: fields.token("pad_token_id", None)?,
        };
        match tokens.pad {
            Some(pad) if pad as usize >= vocab_size => Err(fields.fail(format!(
                "pad_token_id {pad} is outside the vocabulary of {vocab_size}; set it below vocab_size or to null"
            ))),
            _ => Ok(tokens),
        }
    }

    fn write(&self, map: &mut Map<String, Value>) {
        map.insert("bos_token_id".into(), self.bos.into());
        map.insert(
            "eos_token_id".into(),
            match self.eos.as_slice() {
                [] => Value::Null,
                &[one] => one.into(),
                several => several.into(),
            },
        );
        map.insert("pad_token_id".into(), self.pad.into());
    }
}

/// Width of `heads` equal attention heads of a model `hidden` wide; rotary positions need an even one.
fn head_dim(hidden: usize, heads: usize, rotary: bool) -> Result<usize, String> {
    let unit = if rotary { 2 * heads } else { heads };
    if hidden == 0 || !hidden.is_multiple_of(unit) {
        let even = if rotary { " of an even width" } else { "" };
        return Err(format!(
            "is {hidden}, which {heads} attention heads{even} do not divide; take a multiple of {unit}"
        ));
    }
    Ok(hidden / heads)
}
