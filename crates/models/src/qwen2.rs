//! Forward pass of Qwen2: pre-norm layers of rotary attention with biases and a gated MLP.

use tensor::Device;
use tensor::ops::{self, BatchLayout, Cols, Heads, Rope};
use tensor::params::Param;
use tensor::tape::{Tape, Var};

use crate::attention::Attention;
use crate::config::Qwen2Config;
use crate::error::Result;
use crate::model::Handles;
use crate::stack::Layers;

/// The layers of a Qwen2 model, between embedding and head.
pub(crate) struct Qwen2 {
    layers: Vec<Layer>,
    norm: Param,
    rope: Rope,
    eps: f32,
}

struct Layer {
    input_norm: Param,
    attention: Attention,
    post_norm: Param,
    /// Gate and up projection in one where they lie next to each other, else one after the other.
    gate_up: Vec<Param>,
    down: Param,
}

impl Qwen2 {
    pub fn new(config: &Qwen2Config, handles: &Handles, device: &Device, max_len: usize) -> Result<Self> {
        let heads = Heads {
            query: config.num_attention_heads,
            key: config.num_key_value_heads,
            dim: config.head_dim,
            scale: (config.head_dim as f32).sqrt().recip(),
        };
        let layer = |i: usize| {
            let at = |name: &str| handles.get(&format!("model.layers.{i}.{name}.weight"));
            Layer {
                input_norm: at("input_layernorm"),
                attention: Attention::new(handles, &format!("model.layers.{i}.self_attn"), heads, true),
                post_norm: at("post_attention_layernorm"),
                gate_up: match [at("mlp.gate_proj"), at("mlp.up_proj")] {
                    [gate, up] => Param::joined(&[&gate, &up]).map_or(vec![gate, up], |both| vec![both]),
                },
                down: at("mlp.down_proj"),
            }
        };
        Ok(Qwen2 {
            layers: (0..config.num_hidden_layers).map(layer).collect(),
            norm: handles.get("model.norm.weight"),
            rope: Rope::new(device, max_len, config.head_dim, config.rope_theta)?,
            eps: config.rms_norm_eps as f32,
        })
    }
}

impl Layers for Qwen2 {
    fn count(&self) -> usize {
        self.layers.len()
    }

    fn norm(&self, i: usize) -> &Param {
        self.layers.get(i).map_or(&self.norm, |layer| &layer.input_norm)
    }

    fn eps(&self) -> f32 {
        self.eps
    }

    fn multiplier(&self) -> f32 {
        1.0
    }

    fn layer(
        &self,
        tape: &mut Tape,
        i: usize,
        x: &Var,
        normed: &Var,
        layout: BatchLayout,
    ) -> tensor::Result<(Var, Var)> {
        let layer = &self.layers[i];
        let mixed = layer.attention.forward(tape, normed, layout, Some(&self.rope))?;
        let (x, normed) = ops::residual_norm(tape, x, &mixed, 1.0, &layer.post_norm, self.eps)?;
        let y = match &layer.gate_up[..] {
            [both] => ops::feed_forward(tape, &normed, both, &layer.down)?,
            [gate, up] => {
                let [gate, up] =
                    [gate, up].map(|weight| ops::linear(tape, &normed, weight, None).map(|x| Cols::all(&x)));
                let active = ops::swiglu(tape, &gate?, &up?)?;
                ops::linear(tape, &active, &layer.down, None)?
            }
            _ => unreachable!("there are two projections, or one of both"),
        };
        Ok((x, y))
    }
}
