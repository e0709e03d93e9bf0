//! Forward pass of Granite 4.0 hybrids: pre-norm layers, each a Mamba2 or attention mixer and a gated MLP, on a
//! scaled residual stream (transformers' `granitemoehybrid` without experts).

use tensor::Device;
use tensor::ops::{self, BatchLayout, Cols, Heads, Rope, Scan, ScanLayout};
use tensor::params::Param;
use tensor::tape::{Tape, Var};

use crate::attention::Attention;
use crate::config::{GraniteConfig, LayerKind};
use crate::error::Result;
use crate::model::Handles;
use crate::stack::Layers;

/// The layers of a Granite model, between embedding and head.
pub(crate) struct Granite {
    config: GraniteConfig,
    layers: Vec<Layer>,
    norm: Param,
    rope: Option<Rope>,
}

struct Layer {
    input_norm: Param,
    mixer: Mixer,
    post_norm: Param,
    gate_up: Param,
    down: Param,
}

enum Mixer {
    Attention(Box<Attention>),
    Mamba(Box<Mamba>),
}

struct Mamba {
    in_proj: Param,
    conv_weight: Param,
    conv_bias: Param,
    dt_bias: Param,
    a_log: Param,
    d: Param,
    norm: Param,
    out_proj: Param,
}

impl Granite {
    pub fn new(config: &GraniteConfig, handles: &Handles, device: &Device, max_len: usize) -> Result<Self> {
        let heads = Heads {
            query: config.num_attention_heads,
            key: config.num_key_value_heads,
            dim: config.head_dim,
            scale: config.attention_multiplier as f32,
        };
        let layer = |(i, kind): (usize, &LayerKind)| {
            let at = |name: &str| handles.get(&format!("model.layers.{i}.{name}"));
            let mamba = |name: &str| at(&format!("mamba.{name}"));
            Layer {
                input_norm: at("input_layernorm.weight"),
                mixer: match kind {
                    LayerKind::Attention => {
                        let at = format!("model.layers.{i}.self_attn");
                        Mixer::Attention(Box::new(Attention::new(handles, &at, heads, false)))
                    }
                    LayerKind::Mamba => Mixer::Mamba(Box::new(Mamba {
                        in_proj: mamba("in_proj.weight"),
                        conv_weight: mamba("conv1d.weight"),
                        conv_bias: mamba("conv1d.bias"),
                        dt_bias: mamba("dt_bias"),
                        a_log: mamba("A_log"),
                        d: mamba("D"),
                        norm: mamba("norm.weight"),
                        out_proj: mamba("out_proj.weight"),
                    })),
                },
                post_norm: at("post_attention_layernorm.weight"),
                gate_up: at("shared_mlp.input_linear.weight"),
                down: at("shared_mlp.output_linear.weight"),
            }
        };
        let rope = config.rope_theta.map(|theta| Rope::new(device, max_len, config.head_dim, theta));
        Ok(Granite {
            config: config.clone(),
            layers: config.layers.iter().enumerate().map(layer).collect(),
            norm: handles.get("model.norm.weight"),
            rope: rope.transpose()?,
        })
    }
}

impl Layers for Granite {
    fn count(&self) -> usize {
        self.layers.len()
    }

    fn norm(&self, i: usize) -> &Param {
        self.layers.get(i).map_or(&self.norm, |layer| &layer.input_norm)
    }

    fn eps(&self) -> f32 {
        self.config.rms_norm_eps as f32
    }

    fn multiplier(&self) -> f32 {
        self.config.residual_multiplier as f32
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
        let mixed = match &layer.mixer {
            Mixer::Attention(attention) => attention.forward(tape, normed, layout, self.rope.as_ref())?,
            Mixer::Mamba(mamba) => self.mamba(tape, mamba, normed, layout)?,
        };
        let (x, normed) =
            ops::residual_norm(tape, x, &mixed, self.multiplier(), &layer.post_norm, self.eps())?;
        let y = ops::feed_forward(tape, &normed, &layer.gate_up, &layer.down)?;
        Ok((x, y))
    }
}

impl Granite {
    fn mamba(&self, tape: &mut Tape, weights: &Mamba, x: &Var, layout: BatchLayout) -> tensor::Result<Var> {
        let sizes = &self.config.mamba;
        let scan_layout = ScanLayout {
            rows: layout,
            heads: sizes.n_heads,
            head_dim: sizes.d_head,
            groups: sizes.n_groups,
            state: sizes.d_state,
            dt_limit: (sizes.time_step_limit.0 as f32, sizes.time_step_limit.1 as f32),
        };
        let (inner, conv) = (sizes.inner(), sizes.conv_dim());
        let projected = ops::linear(tape, x, &weights.in_proj, None)?;
        let z = Cols::new(&projected, 0, inner);
        let xbc = Cols::new(&projected, inner, conv);
        let dt = Cols::new(&projected, inner + conv, sizes.n_heads);
        let xbc = ops::conv1d_silu(tape, &xbc, layout, &weights.conv_weight, &weights.conv_bias)?;
        let inputs = Scan {
            xbc,
            dt,
            dt_bias: weights.dt_bias.clone(),
            a_log: weights.a_log.clone(),
            d: weights.d.clone(),
        };
        let y = ops::scan(tape, &inputs, scan_layout)?;
        let y = ops::gated_rms_norm(tape, &y, &z, &weights.norm, self.eps())?;
        ops::linear(tape, &y, &weights.out_proj, None)
    }
}
