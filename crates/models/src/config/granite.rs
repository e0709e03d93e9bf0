//! Configuration of Granite 4.0 models without experts (`granitemoehybrid`).

use serde_json::{Map, Value, json};

use super::fields::Fields;
use super::{TokenIds, head_dim};
use crate::error::Result;

/// What mixes the tokens of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerKind {
    /// A Mamba2 mixer; `linear_attention` or `mamba` in the file.
    Mamba,
    /// Causal attention; `full_attention` or `attention` in the file.
    Attention,
}

/// Granite: scaled residual stream, Mamba2 or attention mixers, gated MLPs.
#[derive(Debug, Clone, PartialEq)]
pub struct GraniteConfig {
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Kind of each layer.
    pub layers: Vec<LayerKind>,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads, each shared by `num_attention_heads / num_key_value_heads` query heads.
    pub num_key_value_heads: usize,
    /// Width of an attention head.
    pub head_dim: usize,
    /// Width of the MLP.
    pub shared_intermediate_size: usize,
    /// Sizes of the Mamba2 mixers.
    pub mamba: Mamba2Config,
    /// Factor on the embedding.
    pub embedding_multiplier: f64,
    /// Factor on what each mixer and MLP adds.
    pub residual_multiplier: f64,
    /// Factor on the attention scores (instead of `1/sqrt(head_dim)`).
    pub attention_multiplier: f64,
    /// Divisor of the logits.
    pub logits_scaling: f64,
    /// Base of the rotary angles; none where attention has no positions (`nope`).
    pub rope_theta: Option<f64>,
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

/// Sizes of a Mamba2 mixer.
#[derive(Debug, Clone, PartialEq)]
pub struct Mamba2Config {
    /// Heads of the scan.
    pub n_heads: usize,
    /// Width of a head.
    pub d_head: usize,
    /// Size of the state per channel.
    pub d_state: usize,
    /// Groups of heads that share B and C.
    pub n_groups: usize,
    /// Width of the causal convolution.
    pub d_conv: usize,
    /// Inner width over hidden width.
    pub expand: usize,
    /// Chunk length that the chunked scan was tuned for; the result does not depend on it.
    pub chunk_size: usize,
    /// Bounds of the time step after softplus; the upper one may be infinite.
    pub time_step_limit: (f64, f64),
}

impl Mamba2Config {
    /// Channels of the scan: `n_heads * d_head`.
    pub fn inner(&self) -> usize {
        self.n_heads * self.d_head
    }

    /// Rows of B, or of C: `n_groups * d_state`.
    pub fn bc(&self) -> usize {
        self.n_groups * self.d_state
    }

    /// Channels of the convolution: x, B and C.
    pub fn conv_dim(&self) -> usize {
        self.inner() + 2 * self.bc()
    }

    /// Rows of the input projection: z, x, B, C and dt.
    pub fn in_proj_rows(&self) -> usize {
        self.inner() + self.conv_dim() + self.n_heads
    }

    fn read(fields: &Fields, hidden: usize) -> Result<Self> {
        fields.require_flag("mamba_conv_bias", true)?;
        fields.require_flag("mamba_proj_bias", false)?;
        let n_heads = fields.size_or("mamba_n_heads", 128)?;
        let expand = fields.size_or("mamba_expand", 2)?;
        let inner = expand * hidden;
        let d_head = match fields.get("mamba_d_head").and_then(Value::as_str) {
            Some("auto") => inner / n_heads,
            _ => fields.size_or("mamba_d_head", inner / n_heads)?,
        };
        if n_heads * d_head != inner {
            return Err(fields.fail(format!(
                "mamba_n_heads {n_heads} x mamba_d_head {d_head} is not mamba_expand {expand} x hidden_size {hidden} = {inner}; make them agree"
            )));
        }
        let n_groups = fields.size_or("mamba_n_groups", 1)?;
        if !n_heads.is_multiple_of(n_groups) {
            return Err(fields.fail(format!(
                "mamba_n_heads {n_heads} is not a multiple of mamba_n_groups {n_groups}; choose a divisor"
            )));
        }
        Ok(Mamba2Config {
            n_heads,
            d_head,
            d_state: fields.size_or("mamba_d_state", 256)?,
            n_groups,
            d_conv: fields.size_or("mamba_d_conv", 4)?,
            expand,
            chunk_size: fields.size_or("mamba_chunk_size", 256)?,
            time_step_limit: time_step_limit(fields)?,
        })
    }

    fn write(&self, map: &mut Map<String, Value>) {
        let special = |x: f64| {
            if x.is_finite() { json!(x) } else { json!({"__float__": "Infinity"}) }
        };
        let fields = [
            ("mamba_n_heads", json!(self.n_heads)),
            ("mamba_d_head", json!(self.d_head)),
            ("mamba_d_state", json!(self.d_state)),
            ("mamba_n_groups", json!(self.n_groups)),
            ("mamba_d_conv", json!(self.d_conv)),
            ("mamba_expand", json!(self.expand)),
            ("mamba_chunk_size", json!(self.chunk_size)),
            ("mamba_conv_bias", json!(true)),
            ("mamba_proj_bias", json!(false)),
            ("time_step_limit", json!([special(self.time_step_limit.0), special(self.time_step_limit.1)])),
        ];
        map.extend(fields.map(|(name, value)| (name.into(), value)));
    }
}

impl GraniteConfig {
    pub(super) fn set_hidden_size(&mut self, hidden: usize) -> Result<(), String> {
        let Mamba2Config { d_head, n_groups, expand, .. } = self.mamba;
        let width = head_dim(hidden, self.num_attention_heads, self.rope_theta.is_some())?;
        let inner = expand * hidden;
        if !inner.is_multiple_of(d_head * n_groups) {
            return Err(format!(
                "is {hidden}, which gives a Mamba2 mixer {inner} channels: no multiple of {n_groups} x {d_head} (groups x width of a head)"
            ));
        }
        (self.hidden_size, self.head_dim, self.mamba.n_heads) = (hidden, width, inner / d_head);
        Ok(())
    }

    pub(super) fn read(fields: &Fields) -> Result<Self> {
        fields.require_common()?;
        fields.require_flag("attention_bias", false)?;
        require_no_experts(fields)?;
        let vocab_size = fields.size("vocab_size")?;
        let hidden_size = fields.size("hidden_size")?;
        let (heads, kv_heads, head_dim) = fields.heads(hidden_size, |heads| heads)?;
        let rope_theta = match fields.text("position_embedding_type")? {
            None | Some("nope") => None,
            Some("rope") => Some(fields.rope_theta()?),
            Some(other) => {
                return Err(fields
                    .fail(format!("position_embedding_type `{other}` is not supported; use nope or rope")));
            }
        };
        if rope_theta.is_some() && !head_dim.is_multiple_of(2) {
            return Err(fields.fail(format!("head_dim {head_dim} is odd; rotary positions need an even one")));
        }
        Ok(GraniteConfig {
            vocab_size,
            hidden_size,
            layers: layers(fields)?,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim,
            shared_intermediate_size: fields.size("shared_intermediate_size")?,
            mamba: Mamba2Config::read(fields, hidden_size)?,
            embedding_multiplier: fields.number_or("embedding_multiplier", 1.0)?,
            residual_multiplier: fields.number_or("residual_multiplier", 1.0)?,
            attention_multiplier: fields.number_or("attention_multiplier", 1.0)?,
            logits_scaling: fields.positive_or("logits_scaling", 1.0)?,
            rope_theta,
            rms_norm_eps: fields.positive_or("rms_norm_eps", 1e-6)?,
            initializer_range: fields.positive_or("initializer_range", 0.02)?,
            tie_word_embeddings: fields.flag_or("tie_word_embeddings", false)?,
            max_position_embeddings: fields.size_or("max_position_embeddings", 2048)?,
            tokens: TokenIds::read(fields, vocab_size, Some(1), Some(2))?,
        })
    }

    pub(super) fn write(&self, map: &mut Map<String, Value>) {
        let layer_types: Vec<&str> = self
            .layers
            .iter()
            .map(|kind| match kind {
                LayerKind::Mamba => "linear_attention",
                LayerKind::Attention => "full_attention",
            })
            .collect();
        let fields = [
            ("architectures", json!(["GraniteMoeHybridForCausalLM"])),
            ("model_type", json!("granitemoehybrid")),
            ("vocab_size", json!(self.vocab_size)),
            ("hidden_size", json!(self.hidden_size)),
            ("num_hidden_layers", json!(self.layers.len())),
            ("layer_types", json!(layer_types)),
            ("num_attention_heads", json!(self.num_attention_heads)),
            ("num_key_value_heads", json!(self.num_key_value_heads)),
            ("head_dim", json!(self.head_dim)),
            ("intermediate_size", json!(self.shared_intermediate_size)),
            ("shared_intermediate_size", json!(self.shared_intermediate_size)),
            ("num_local_experts", json!(0)),
            ("num_experts_per_tok", json!(0)),
            ("embedding_multiplier", json!(self.embedding_multiplier)),
            ("residual_multiplier", json!(self.residual_multiplier)),
            ("attention_multiplier", json!(self.attention_multiplier)),
            ("logits_scaling", json!(self.logits_scaling)),
            ("position_embedding_type", json!(if self.rope_theta.is_some() { "rope" } else { "nope" })),
            ("rms_norm_eps", json!(self.rms_norm_eps)),
            ("initializer_range", json!(self.initializer_range)),
            ("tie_word_embeddings", json!(self.tie_word_embeddings)),
            ("max_position_embeddings", json!(self.max_position_embeddings)),
            ("hidden_act", json!("silu")),
            ("attention_bias", json!(false)),
            ("attention_dropout", json!(0.0)),
        ];
        map.extend(fields.map(|(name, value)| (name.into(), value)));
        if let Some(theta) = self.rope_theta {
            map.insert("rope_theta".into(), json!(theta));
            map.insert("rope_parameters".into(), json!({"rope_theta": theta, "rope_type": "default"}));
        }
        self.mamba.write(map);
        self.tokens.write(map);
    }
}

fn require_no_experts(fields: &Fields) -> Result<()> {
    let name = "num_local_experts";
    let (experts, default) = match fields.get(name) {
        Some(value) => (value.as_u64().ok_or_else(|| fields.wrong(name, value, "0"))?, ""),
        None if fields.has(name) => (0, ""),
        None => (8, " (the default where the field is absent)"),
    };
    if experts == 0 {
        return Ok(());
    }
    Err(fields.fail(format!(
        "{name} is {experts}{default}; mixtures of experts are not supported, only models with 0"
    )))
}

fn layers(fields: &Fields) -> Result<Vec<LayerKind>> {
    let count = fields.layers()?;
    let Some(names) = fields.layer_types(count)? else {
        return Ok(vec![LayerKind::Mamba; count]);
    };
    let kinds = names.into_iter().enumerate().map(|(i, name)| match name {
        "linear_attention" | "mamba" => Ok(LayerKind::Mamba),
        "full_attention" | "attention" => Ok(LayerKind::Attention),
        other => Err(fields.fail(format!(
            "layer_types[{i}] is `{other}`; use linear_attention (or mamba) or full_attention (or attention)"
        ))),
    });
    kinds.collect()
}

fn time_step_limit(fields: &Fields) -> Result<(f64, f64)> {
    let name = "time_step_limit";
    let Some(value) = fields.get(name) else {
        return Ok((0.0, f64::INFINITY));
    };
    let Some([low, high]) = value.as_array().map(Vec::as_slice) else {
        return Err(fields.wrong(name, value, "two numbers [low, high]"));
    };
    let (low, high) = (fields.special_float(name, low)?, fields.special_float(name, high)?);
    if 0.0 <= low && low < high && low.is_finite() {
        Ok((low, high))
    } else {
        Err(fields.fail(format!("{name} is [{low}, {high}]; expected 0 <= low < high")))
    }
}
