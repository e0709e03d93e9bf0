//! The weights of a model: names, shapes, roles, segments and initial values, all from its configuration.
//!
//! The order is that of the forward pass: embedding; layer by layer the input norm, the mixer, the second
//! norm and the MLP; the last norm; the head where it is not the embedding. Names are those of the Hugging
//! Face layout.
//!
//! Initial values are those of the transformers library: matrices, embeddings and convolution kernels
//! `N(0, initializer_range)`, norms, `D` and `dt_bias` 1, biases 0, `A_log = ln(1..n_heads)`.

use tensor::params::{Init, ParamSpec, Role, Segment};

use crate::config::{Config, GraniteConfig, LayerKind, Mamba2Config, Qwen2Config};

/// Name of the embedding.
pub const EMBEDDING: &str = "model.embed_tokens.weight";
/// Name of the output head of a model that is not tied.
pub const HEAD: &str = "lm_head.weight";

/// Every weight of a model, in order.
pub fn parameters(config: &Config) -> Vec<ParamSpec> {
    let (vocab, hidden) = (config.vocab_size(), config.hidden_size());
    let range = match config {
        Config::Granite(config) => config.initializer_range,
        Config::Qwen2(config) => config.initializer_range,
    };
    let mut list = List { specs: Vec::new(), normal: Init::Normal(range as f32) };
    list.push(EMBEDDING, &[vocab, hidden], Role::Embedding, vec![segment("vocabulary", vocab, 1)]);
    match config {
        Config::Granite(config) => granite(&mut list, config),
        Config::Qwen2(config) => qwen2(&mut list, config),
    }
    list.vector("model.norm.weight", hidden, Init::Ones);
    if !config.tied() {
        list.push(HEAD, &[vocab, hidden], Role::Head, vec![segment("vocabulary", vocab, 1)]);
    }
    list.specs
}

/// Number of entries of all weights; a tied head counts once.
pub fn count(config: &Config) -> usize {
    parameters(config).iter().map(ParamSpec::numel).sum()
}

struct List {
    specs: Vec<ParamSpec>,
    normal: Init,
}

impl List {
    /// A weight with normal initial values.
    fn push(&mut self, name: impl Into<String>, shape: &[usize], role: Role, segments: Vec<Segment>) {
        let shape = shape.to_vec();
        self.specs.push(ParamSpec {
            name: name.into(),
            shape,
            role,
            out_axis: 0,
            segments,
            init: self.normal,
        });
    }

    /// A matrix `[rows of all segments, columns]`.
    fn matrix(&mut self, name: String, columns: usize, segments: Vec<Segment>) {
        let rows = segments.iter().map(|segment| segment.rows).sum();
        self.push(name, &[rows, columns], Role::Matrix, segments);
    }

    fn vector(&mut self, name: impl Into<String>, len: usize, init: Init) {
        let (shape, segments) = (vec![len], Vec::new());
        self.specs.push(ParamSpec {
            name: name.into(),
            shape,
            role: Role::Vector,
            out_axis: 0,
            segments,
            init,
        });
    }
}

fn segment(name: &'static str, rows: usize, heads: usize) -> Segment {
    Segment { name, rows, heads }
}

fn granite(list: &mut List, config: &GraniteConfig) {
    let (hidden, ff) = (config.hidden_size, config.shared_intermediate_size);
    for (i, kind) in config.layers.iter().enumerate() {
        let layer = format!("model.layers.{i}");
        list.vector(format!("{layer}.input_layernorm.weight"), hidden, Init::Ones);
        match kind {
            LayerKind::Mamba => mamba2(list, &format!("{layer}.mamba"), hidden, &config.mamba),
            LayerKind::Attention => {
                let heads = (config.num_attention_heads, config.num_key_value_heads, config.head_dim);
                attention(list, &format!("{layer}.self_attn"), hidden, heads, false);
            }
        }
        list.vector(format!("{layer}.post_attention_layernorm.weight"), hidden, Init::Ones);
        let gate_up = vec![segment("gate", ff, 1), segment("up", ff, 1)];
        list.matrix(format!("{layer}.shared_mlp.input_linear.weight"), hidden, gate_up);
        list.matrix(format!("{layer}.shared_mlp.output_linear.weight"), ff, vec![segment("down", hidden, 1)]);
    }
}

fn mamba2(list: &mut List, at: &str, hidden: usize, mamba: &Mamba2Config) {
    let (inner, bc, heads, groups) = (mamba.inner(), mamba.bc(), mamba.n_heads, mamba.n_groups);
    let (b, c) = (segment("B", bc, groups), segment("C", bc, groups));
    let fused = vec![
        segment("z", inner, heads),
        segment("x", inner, heads),
        b.clone(),
        c.clone(),
        segment("dt", heads, heads),
    ];
    list.matrix(format!("{at}.in_proj.weight"), hidden, fused);
    let channels = vec![segment("x", inner, heads), b, c];
    list.push(format!("{at}.conv1d.weight"), &[mamba.conv_dim(), 1, mamba.d_conv], Role::Conv, channels);
    list.vector(format!("{at}.conv1d.bias"), mamba.conv_dim(), Init::Zeros);
    list.vector(format!("{at}.dt_bias"), heads, Init::Ones);
    list.vector(format!("{at}.A_log"), heads, Init::LogRange);
    list.vector(format!("{at}.D"), heads, Init::Ones);
    list.vector(format!("{at}.norm.weight"), inner, Init::Ones);
    list.matrix(format!("{at}.out_proj.weight"), inner, vec![segment("out", hidden, 1)]);
}

/// `heads` is `(query heads, key and value heads, width of a head)`; a bias follows its weight.
fn attention(list: &mut List, at: &str, hidden: usize, heads: (usize, usize, usize), biased: bool) {
    let (q, kv, dim) = heads;
    for (name, heads) in [("q", q), ("k", kv), ("v", kv)] {
        list.matrix(format!("{at}.{name}_proj.weight"), hidden, vec![segment(name, heads * dim, heads)]);
        if biased {
            list.vector(format!("{at}.{name}_proj.bias"), heads * dim, Init::Zeros);
        }
    }
    list.matrix(format!("{at}.o_proj.weight"), q * dim, vec![segment("o", hidden, 1)]);
}

fn qwen2(list: &mut List, config: &Qwen2Config) {
    let (hidden, ff) = (config.hidden_size, config.intermediate_size);
    let heads = (config.num_attention_heads, config.num_key_value_heads, config.head_dim);
    for i in 0..config.num_hidden_layers {
        let layer = format!("model.layers.{i}");
        list.vector(format!("{layer}.input_layernorm.weight"), hidden, Init::Ones);
        attention(list, &format!("{layer}.self_attn"), hidden, heads, true);
        list.vector(format!("{layer}.post_attention_layernorm.weight"), hidden, Init::Ones);
        list.matrix(format!("{layer}.mlp.gate_proj.weight"), hidden, vec![segment("gate", ff, 1)]);
        list.matrix(format!("{layer}.mlp.up_proj.weight"), hidden, vec![segment("up", ff, 1)]);
        list.matrix(format!("{layer}.mlp.down_proj.weight"), ff, vec![segment("down", hidden, 1)]);
    }
}
