//! Named models with the training defaults that go with them: one table, [`ALL`].

use crate::config::{Config, GraniteConfig, LayerKind, Mamba2Config, Qwen2Config, TokenIds};
use crate::error::{Error, Result};

/// A named model.
pub struct Preset {
    /// Name on the command line and in recipes.
    pub name: &'static str,
    /// One line for `--help`.
    pub about: &'static str,
    /// How it is trained unless told otherwise.
    pub defaults: Defaults,
    build: fn() -> Config,
}

/// Training defaults of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Defaults {
    /// Optimizer steps.
    pub steps: u64,
    /// Tokens in a row.
    pub seq_len: usize,
    /// Rows a step for runs of at most 50 steps, at most 500, and longer; see [`Defaults::batch_size`].
    pub batch_sizes: [usize; 3],
    /// Peak learning rate of matrices whose updates are orthogonal.
    pub lr: f64,
    /// Peak learning rate of matrices whose updates are scaled to the root mean square of `AdamW`'s, 0.2.
    pub rms_lr: f64,
    /// Learning rate of `AdamW` for the other weights.
    pub adamw_lr: f64,
    /// Steps over which the rate rises.
    pub warmup: u64,
    /// Evaluate every so many steps.
    pub eval_steps: u64,
    /// Most validation batches an evaluation reads.
    pub eval_batches: usize,
    /// Save the model every so many steps.
    pub save_steps: u64,
}

/// Every preset.
pub static ALL: &[Preset] = &[
    Preset {
        name: "granite-nano",
        about: "small Granite hybrid, 1.3 M parameters: 4 Mamba2 layers and 1 attention layer, for a CPU",
        defaults: NANO,
        build: granite_nano,
    },
    Preset {
        name: "qwen-nano",
        about: "small Qwen2 model, 1.2 M parameters, for a CPU",
        defaults: NANO,
        build: qwen_nano,
    },
    Preset {
        name: "granite-4.0-h-350m",
        about: "Granite 4.0 hybrid, 340 M parameters: 28 Mamba2 layers and 4 attention layers",
        defaults: PUBLISHED,
        build: granite_h_350m,
    },
    Preset {
        name: "granite-4.0-h-1b",
        about: "Granite 4.0 hybrid, 1.5 B parameters: 36 Mamba2 layers and 4 attention layers",
        defaults: PUBLISHED_1B,
        build: granite_h_1b,
    },
    Preset {
        name: "granite-4.0-350m",
        about: "Granite 4.0, 352 M parameters: 28 attention layers with rotary positions",
        defaults: PUBLISHED,
        build: granite_350m,
    },
    Preset {
        name: "granite-4.0-1b",
        about: "Granite 4.0, 1.6 B parameters: 40 attention layers with rotary positions",
        defaults: PUBLISHED_1B,
        build: granite_1b,
    },
    Preset {
        name: "qwen2.5-0.5b",
        about: "Qwen2.5, 494 M parameters, 24 layers",
        defaults: PUBLISHED,
        build: qwen_0_5b,
    },
    Preset {
        name: "qwen-block-muon",
        about: "the 12-layer Qwen2 model of the block-Muon study, 385 M parameters",
        defaults: PUBLISHED,
        build: qwen_block_muon,
    },
];

/// As published for Granite 4.0, and `rms_lr` as in the block-Muon study.
const PUBLISHED: Defaults = Defaults {
    steps: 500,
    seq_len: 512,
    batch_sizes: [4, 8, 16],
    lr: 1e-4,
    rms_lr: 1e-3,
    adamw_lr: 3e-4,
    warmup: 50,
    eval_steps: 50,
    eval_batches: 50,
    save_steps: 100,
};

/// As published for the 1B models: half the batch.
const PUBLISHED_1B: Defaults = Defaults { batch_sizes: [2, 4, 8], ..PUBLISHED };

/// For the small models: rates at which 200 steps visibly learn.
const NANO: Defaults = Defaults {
    steps: 200,
    seq_len: 256,
    batch_sizes: [4, 4, 4],
    lr: 0.04,
    rms_lr: 0.01,
    adamw_lr: 3e-3,
    warmup: 20,
    eval_steps: 50,
    eval_batches: 16,
    save_steps: 100,
};

/// The preset of that name.
pub fn find(name: &str) -> Result<&'static Preset> {
    ALL.iter().find(|preset| preset.name == name).ok_or_else(|| Error::UnknownPreset {
        name: name.into(),
        known: ALL.iter().map(|preset| preset.name).collect::<Vec<_>>().join(", "),
    })
}

impl Preset {
    /// Its configuration.
    pub fn config(&self) -> Config {
        (self.build)()
    }
}

impl Defaults {
    /// Rows a step for a run of that length.
    pub fn batch_size(&self, steps: u64) -> usize {
        let [short, medium, long] = self.batch_sizes;
        match steps {
            0..=50 => short,
            51..=500 => medium,
            _ => long,
        }
    }

    /// Defaults for a model that is no preset, by its number of parameters.
    pub fn for_size(parameters: usize) -> &'static Defaults {
        if parameters < 1_000_000_000 { &PUBLISHED } else { &PUBLISHED_1B }
    }
}

/// What all Granite 4.0 models have in common; `layers` of one kind except those at `attention`.
fn granite(hidden: usize, layers: usize, attention: Option<&[usize]>) -> GraniteConfig {
    let kind = |i| match attention {
        Some(at) if !at.contains(&i) => LayerKind::Mamba,
        _ => LayerKind::Attention,
    };
    GraniteConfig {
        vocab_size: 100_352,
        hidden_size: hidden,
        layers: (0..layers).map(kind).collect(),
        num_attention_heads: 12,
        num_key_value_heads: 4,
        head_dim: hidden / 12,
        shared_intermediate_size: 2048,
        mamba: Mamba2Config {
            n_heads: hidden / 16,
            d_head: 32,
            d_state: 128,
            n_groups: 1,
            d_conv: 4,
            expand: 2,
            chunk_size: 256,
            time_step_limit: (0.0, f64::INFINITY),
        },
        embedding_multiplier: 12.0,
        residual_multiplier: 0.22,
        attention_multiplier: 0.015_625,
        logits_scaling: 3.0,
        rope_theta: None,
        rms_norm_eps: 1e-5,
        initializer_range: 0.1,
        tie_word_embeddings: true,
        max_position_embeddings: 32_768,
        tokens: TokenIds { bos: Some(100_257), eos: vec![100_257], pad: Some(100_256) },
    }
}

fn granite_h_350m() -> Config {
    Config::Granite(GraniteConfig { residual_multiplier: 0.246, ..granite(768, 32, Some(&[10, 13, 17, 27])) })
}

fn granite_h_1b() -> Config {
    let base = granite(1536, 40, Some(&[5, 15, 25, 35]));
    Config::Granite(GraniteConfig {
        shared_intermediate_size: 4096,
        mamba: Mamba2Config { n_heads: 48, d_head: 64, ..base.mamba },
        attention_multiplier: 0.007_812_5,
        logits_scaling: 6.0,
        max_position_embeddings: 131_072,
        ..base
    })
}

fn granite_350m() -> Config {
    Config::Granite(GraniteConfig {
        num_attention_heads: 16,
        head_dim: 64,
        residual_multiplier: 0.263,
        logits_scaling: 4.0,
        rope_theta: Some(1e7),
        ..granite(1024, 28, None)
    })
}

fn granite_1b() -> Config {
    Config::Granite(GraniteConfig {
        num_attention_heads: 16,
        head_dim: 128,
        shared_intermediate_size: 4096,
        attention_multiplier: 0.007_812_5,
        logits_scaling: 8.0,
        rope_theta: Some(1e7),
        max_position_embeddings: 131_072,
        ..granite(2048, 40, None)
    })
}

fn granite_nano() -> Config {
    let base = granite(128, 5, Some(&[2]));
    Config::Granite(GraniteConfig {
        vocab_size: 512,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 32,
        shared_intermediate_size: 384,
        mamba: Mamba2Config { d_state: 32, chunk_size: 64, ..base.mamba },
        attention_multiplier: 0.031_25,
        residual_multiplier: 0.246,
        max_position_embeddings: 4096,
        tokens: TokenIds::default(),
        ..base
    })
}

/// Qwen2.5-0.5B; the other Qwen2 presets are changes of it.
fn qwen() -> Qwen2Config {
    Qwen2Config {
        vocab_size: 151_936,
        hidden_size: 896,
        num_hidden_layers: 24,
        num_attention_heads: 14,
        num_key_value_heads: 2,
        head_dim: 64,
        intermediate_size: 4864,
        rope_theta: 1e6,
        rms_norm_eps: 1e-6,
        initializer_range: 0.02,
        tie_word_embeddings: true,
        max_position_embeddings: 32_768,
        tokens: TokenIds { bos: Some(151_643), eos: vec![151_643], pad: None },
    }
}

fn qwen_0_5b() -> Config {
    Config::Qwen2(qwen())
}

fn qwen_block_muon() -> Config {
    Config::Qwen2(Qwen2Config {
        hidden_size: 1024,
        num_hidden_layers: 12,
        num_attention_heads: 16,
        num_key_value_heads: 16,
        max_position_embeddings: 513,
        ..qwen()
    })
}

fn qwen_nano() -> Config {
    Config::Qwen2(Qwen2Config {
        vocab_size: 512,
        hidden_size: 128,
        num_hidden_layers: 6,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 32,
        intermediate_size: 384,
        max_position_embeddings: 4096,
        tokens: TokenIds::default(),
        ..qwen()
    })
}
