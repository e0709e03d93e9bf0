//! Configuration of Qwen2 and Qwen2.5 models (`qwen2`).

use serde_json::{Map, Value, json};

use super::fields::Fields;
use super::{TokenIds, head_dim};
use crate::error::Result;

/// Qwen2: pre-norm decoder, rotary attention with biased q, k and v, gated MLP.
#[derive(Debug, Clone, PartialEq)]
pub struct Qwen2Config {
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads, each shared by `num_attention_heads / num_key_value_heads` query heads.
    pub num_key_value_heads: usize,
    /// Width of an attention head; scores are scaled by its inverse square root.
    pub head_dim: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Base of the rotary angles.
    pub rope_theta: f64,
    /// Added to the mean square in every norm.
    pub rms_norm_eps: f64,
    /// Standard deviation of the initial weights.
    pub initializer_range: f64,
    /// Whether the output head is the embedding.
    pub tie_word_embeddings: bool,
    /// Longest sequence the model was made for.
    pub max_position_embeddings: usize,
    /// Token ids with a meaning of their own.
    pub tokens: TokenIds,
}

impl Qwen2Config {
    pub(super) fn read(fields: &Fields) -> Result<Self> {
        fields.require_common()?;
        let vocab_size = fields.size("vocab_size")?;
        let hidden_size = fields.size("hidden_size")?;
        let num_hidden_layers = fields.layers()?;
        require_full_attention(fields, num_hidden_layers)?;
        let (heads, kv_heads, head_dim) = fields.heads(hidden_size, |_| 32)?;
        if !head_dim.is_multiple_of(2) {
            return Err(fields.fail(format!("head_dim {head_dim} is odd; rotary positions need an even one")));
        }
        Ok(Qwen2Config {
            vocab_size,
            hidden_size,
            num_hidden_layers,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim,
            intermediate_size: fields.size("intermediate_size")?,
            rope_theta: fields.rope_theta()?,
            rms_norm_eps: fields.positive_or("rms_norm_eps", 1e-6)?,
            initializer_range: fields.positive_or("initializer_range", 0.02)?,
            tie_word_embeddings: fields.flag_or("tie_word_embeddings", false)?,
            max_position_embeddings: fields.size_or("max_position_embeddings", 32768)?,
            tokens: TokenIds::read(fields, vocab_size, None, None)?,
        })
    }

    pub(super) fn set_hidden_size(&mut self, hidden: usize) -> Result<(), String> {
        self.head_dim = head_dim(hidden, self.num_attention_heads, true)?;
        self.hidden_size = hidden;
        Ok(())
    }

    pub(super) fn write(&self, map: &mut Map<String, Value>) {
        let fields = [
            ("architectures", json!(["Qwen2ForCausalLM"])),
            ("model_type", json!("qwen2")),
            ("vocab_size", json!(self.vocab_size)),
            ("hidden_size", json!(self.hidden_size)),
            ("num_hidden_layers", json!(self.num_hidden_layers)),
            ("num_attention_heads", json!(self.num_attention_heads)),
            ("num_key_value_heads", json!(self.num_key_value_heads)),
            ("head_dim", json!(self.head_dim)),
            ("intermediate_size", json!(self.intermediate_size)),
            ("rope_theta", json!(self.rope_theta)),
            ("rope_parameters", json!({"rope_theta": self.rope_theta, "rope_type": "default"})),
            ("rms_norm_eps", json!(self.rms_norm_eps)),
            ("initializer_range", json!(self.initializer_range)),
            ("tie_word_embeddings", json!(self.tie_word_embeddings)),
            ("max_position_embeddings", json!(self.max_position_embeddings)),
            ("use_sliding_window", json!(false)),
            ("hidden_act", json!("silu")),
            ("attention_dropout", json!(0.0)),
        ];
        map.extend(fields.map(|(name, value)| (name.into(), value)));
        self.tokens.write(map);
    }
}

/// Refuses sliding windows, whether layer by layer or by rule.
fn require_full_attention(fields: &Fields, layers: usize) -> Result<()> {
    let Some(names) = fields.layer_types(layers)? else {
        return fields.require_flag("use_sliding_window", false);
    };
    match names.iter().enumerate().find(|(_, name)| !matches!(**name, "full_attention" | "attention")) {
        None => Ok(()),
        Some((i, name)) => {
            Err(fields.fail(format!("layer_types[{i}] is `{name}`; only full_attention is supported")))
        }
    }
}
