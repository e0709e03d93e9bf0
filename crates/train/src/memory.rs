//! How much device memory a training step takes, estimated from the configuration alone.
//!
//! With `N` weights, `M` of them in matrices, `R = batch * seq_len` rows and `e` bytes an activation (4 in f32, 2 in
//! mixed precision):
//!
//! | part | bytes |
//! |---|---|
//! | weights | `4 N`, and in mixed precision `2` more for each weight that matrix products read; in bf16 on a GPU those take `2` alone |
//! | gradients | `4 N`; in bf16 on a GPU `2` alone for each weight that matrix products read |
//! | optimizer | what the optimizer's row says for each weight of `M`, `8` (the two moments of `AdamW`) for the others; on a GPU half of that where `optimizer.state` is bf16 |
//! | activations | `R` times what each operation keeps for the backward pass, see below |
//! | checkpoint copy | `4 N` (`2` for weights of record in bf16 on a GPU) and the optimizer's state, where they are copied to be saved |
//! | workspace | the largest of: a layer's gradients in the backward pass; logits; the orthogonaliser's banks |
//!
//! Elements that a row keeps, with `h` the hidden size, `f` the width of the MLP, `q` and `k` the widths of all query
//! and key heads, and for Mamba2 `D` channels, `C` channels of the convolution and `P` rows of the input projection:
//!
//! | where | elements |
//! |---|---|
//! | both norms: `x`, in mixed precision `x / rms(x)` | `2 h` |
//! | MLP: gate and up | `2 f` |
//! | attention: queries, keys, values, output | `2 q + 2 k` |
//! | Mamba2: projection, convolution, scan | `P + C + D` |
//! | first norm; last norm's output, gradient of the loss | `h`; `2 h` |
//!
//! Where layers are computed again (`train.recompute`), a row keeps `4 h` bytes a layer (`2 h` in bf16 on a GPU), and
//! one layer at a time what is listed. Outputs of norms and of swiglu are made again in the backward pass always. Statistics of the norms and of
//! the softmax are 4 bytes each a row (and head). On a GPU in f32, attention also keeps its inputs rotated (`q + 2 k`)
//! and the softmax itself (heads times `seq_len`). The backward pass of a scan takes `4 D N / 64` bytes a row in mixed
//! precision and `2 H N + D` floats in f32, with `H` heads of state size `N`. Logits exist for a block of rows only,
//! with bf16 weights of record in bf16, and their gradient takes their place; in mixed precision they and their gradient
//! lie in the memory of the layers' gradients where that is large enough. Token ids and rotary tables are small against
//! all this and left out; so is what a GPU's pool loses between blocks of unlike sizes, some 3 %.
//!
//! The estimate and what a step on the CPU really takes:
//!
//! ```
//! use std::sync::Arc;
//! use tensor::{DType, Device, Precision, Tokens, tape::Tape};
//! use train::memory::{Step, estimate};
//!
//! let config = models::presets::find("granite-nano")?.config();
//! let (optimizer, precision) = (optim::find("adamw")?, Precision::F32);
//! let state = optim::StateType::F32;
//! let (batch_size, seq_len) = (4, 256);
//! let step =
//!     Step { optimizer, state, precision, all_2d: false, cuda: false, recompute: false, batch_size, seq_len };
//! let expected = estimate(&config, &step);
//!
//! let model = models::Model::new(config, &Device::Cpu, precision, 256)?;
//! let tokens = Tokens::new(&Device::Cpu, &[7; 4 * 256], 4, 256)?;
//! let (inputs, targets) = (Arc::new(tokens), Tokens::new(&Device::Cpu, &[8; 4 * 256], 4, 256)?);
//! let mut tape = Tape::new(&Device::Cpu, precision);
//! let loss = model.loss(&mut tape, &inputs, &targets)?.mean;
//! tape.backward(&loss, Device::Cpu.zeros(&[1], DType::F32)?)?;
//!
//! let measured = Device::Cpu.peak_bytes() as f64;
//! let expected = (expected.total() - expected.optimizer) as f64; // no optimizer was made here
//! assert!((expected / measured - 1.0).abs() < 0.1, "{expected} expected, {measured} measured");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::BTreeMap;

use models::{Config, LayerKind};
use tensor::Precision;
use tensor::params::{ParamSpec, Role};

/// Most bytes of f32 logits that exist at once where their gradient takes their place; and of logits and of their
/// gradient where it does not.
const LOGIT_BLOCK: u64 = 256 << 20;
const LOGIT_BLOCK_LOW: u64 = 224 << 20;
const LOGIT_PANEL: u64 = 256 << 20;
/// Most bytes of bf16 logits, with bf16 weights of record.
const BF16_LOGIT_BLOCK: u64 = 1280 << 20;
/// Bytes of state that `AdamW` keeps for a weight: two moments.
const ADAMW_STATE: u64 = 8;

/// An estimate, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// Weights of record, and their bf16 copies in mixed precision.
    pub weights: u64,
    /// Gradients.
    pub gradients: u64,
    /// State of the optimizer.
    pub optimizer: u64,
    /// What the forward pass keeps for the backward pass.
    pub activations: u64,
    /// The most that comes and goes within a step.
    pub workspace: u64,
    /// A copy of weights of record and state, which saving takes where it makes one.
    pub copy: u64,
}

impl Estimate {
    /// All that a step takes: without the copy.
    pub fn total(&self) -> u64 {
        let parts = [self.weights, self.gradients, self.optimizer, self.activations, self.workspace];
        parts.into_iter().fold(0, u64::saturating_add)
    }
}

/// What decides a step's memory, beside the model.
#[derive(Clone, Copy)]
pub struct Step<'a> {
    /// The optimizer.
    pub optimizer: &'a optim::Row,
    /// In what it keeps momenta and moments.
    pub state: optim::StateType,
    /// What it computes in.
    pub precision: Precision,
    /// Whether the matrix rule takes the embedding and the head too.
    pub all_2d: bool,
    /// Whether it computes on a GPU.
    pub cuda: bool,
    /// Whether layers are computed again in the backward pass.
    pub recompute: bool,
    /// Rows a step.
    pub batch_size: usize,
    /// Tokens in a row.
    pub seq_len: usize,
}

/// Estimates the memory of a training step.
pub fn estimate(config: &Config, step: &Step) -> Estimate {
    let specs = models::parameters(config);
    // The CPU, which computes in f32, keeps bf16 weights rounded but in f32.
    let precision =
        if step.cuda || step.precision != Precision::Bf16 { step.precision } else { Precision::F32 };
    let [element, stream] = [precision.compute(), precision.stream()].map(|dtype| dtype.size() as u64);
    // Bytes of a weight that matrix products read, and of its gradient.
    let (weight, gradient) = match precision {
        Precision::F32 => (4, 4),
        Precision::Mixed => (6, 4),
        Precision::Bf16 => (2, 2),
    };
    let sum = |bytes: &dyn Fn(Role) -> u64| {
        specs.iter().map(|spec| spec.numel() as u64 * bytes(spec.role)).sum::<u64>()
    };
    let in_products = |role| matches!(role, Role::Embedding | Role::Head | Role::Matrix);
    let matrix = |role| if step.all_2d { in_products(role) } else { role == Role::Matrix };
    // The CPU keeps bf16 state rounded but in f32.
    let halves = if step.cuda && step.state == optim::StateType::Bf16 { 2 } else { 1 };
    let state = |role| if matrix(role) { step.optimizer.state_bytes as u64 } else { ADAMW_STATE } / halves;

    // Rows may be any number that a recipe holds: what they multiply ends at the largest number.
    let rows = (step.batch_size as u64).saturating_mul(step.seq_len as u64);
    let scratch = if step.optimizer.name == "adamw" { 0 } else { orthogonaliser(&specs, matrix) };
    let layers = layers(config);
    let hidden = config.hidden_size() as u64;
    let len = if step.cuda && precision == Precision::F32 { step.seq_len as u64 } else { 0 };
    let each = layers.iter().map(|layer| layer.kept(hidden, len, element));
    let kept = if step.recompute {
        each.max().unwrap_or(0).saturating_add(stream * hidden * layers.len() as u64)
    } else {
        each.fold(0, u64::saturating_add)
    };
    let backward =
        |layer: &Layer| (stream + element) * hidden + layer.gradients() * element + layer.scan(element);
    let last = layers.iter().map(backward).max().unwrap_or(0);
    let logits = rows.saturating_mul(config.vocab_size() as u64);
    let (twice, four_times) = (logits.saturating_mul(2), logits.saturating_mul(4));
    let logits = match precision {
        Precision::F32 => four_times.min(LOGIT_BLOCK),
        Precision::Mixed => {
            let both = four_times.min(LOGIT_BLOCK_LOW) + twice.min(LOGIT_PANEL);
            let lent = sum(&|role| if matches!(role, Role::Embedding | Role::Head) { 0 } else { 4 });
            if lent < both { both } else { 0 }
        }
        Precision::Bf16 => twice.min(BF16_LOGIT_BLOCK),
    };
    let optimizer = sum(&state);
    let record = sum(&|role| if in_products(role) && precision == Precision::Bf16 { 2 } else { 4 });
    Estimate {
        weights: sum(&|role| if in_products(role) { weight } else { 4 }),
        gradients: sum(&|role| if in_products(role) { gradient } else { 4 }),
        optimizer,
        copy: record + optimizer,
        activations: rows.saturating_mul(kept.saturating_add(3 * hidden * element + 4)),
        workspace: rows.saturating_mul(last).max(logits).max(scratch),
    }
}

/// Bytes that the orthogonaliser takes for the largest bank, `L` matrices `[m, n]` with `r = min(m, n)`: two banks and
/// two Gram matrices each, `8 L (m n + r^2)`.
fn orthogonaliser(specs: &[ParamSpec], takes: impl Fn(Role) -> bool) -> u64 {
    let mut banks: BTreeMap<&[usize], u64> = BTreeMap::new();
    for spec in specs.iter().filter(|spec| takes(spec.role)) {
        *banks.entry(&spec.shape).or_default() += 1;
    }
    let bytes = |(shape, count): (&[usize], u64)| {
        let smaller = shape.iter().copied().min().unwrap_or(0) as u64;
        8 * count * (shape.iter().product::<usize>() as u64 + smaller * smaller)
    };
    banks.into_iter().map(bytes).max().unwrap_or(0)
}

/// Widths of one layer.
struct Layer {
    /// Width of the MLP.
    mlp: u64,
    mixer: Mixer,
}

enum Mixer {
    /// Widths of all query and of all key heads, and the number of query heads.
    Attention { query: u64, key: u64, heads: u64 },
    /// Channels, channels of the convolution, rows of the input projection, heads, and the state size of one.
    Mamba2 { inner: u64, conv: u64, projection: u64, heads: u64, state: u64 },
}

fn layers(config: &Config) -> Vec<Layer> {
    let attention = |heads: usize, kv_heads: usize, dim: usize| Mixer::Attention {
        query: (heads * dim) as u64,
        key: (kv_heads * dim) as u64,
        heads: heads as u64,
    };
    match config {
        Config::Granite(c) => {
            let mixer = |kind: &LayerKind| match kind {
                LayerKind::Attention => attention(c.num_attention_heads, c.num_key_value_heads, c.head_dim),
                LayerKind::Mamba => Mixer::Mamba2 {
                    inner: c.mamba.inner() as u64,
                    conv: c.mamba.conv_dim() as u64,
                    projection: c.mamba.in_proj_rows() as u64,
                    heads: c.mamba.n_heads as u64,
                    state: c.mamba.d_state as u64,
                },
            };
            let mlp = c.shared_intermediate_size as u64;
            c.layers.iter().map(|kind| Layer { mlp, mixer: mixer(kind) }).collect()
        }
        Config::Qwen2(c) => {
            let mixer = || attention(c.num_attention_heads, c.num_key_value_heads, c.head_dim);
            let mlp = c.intermediate_size as u64;
            (0..c.num_hidden_layers).map(|_| Layer { mlp, mixer: mixer() }).collect()
        }
    }
}

impl Layer {
    /// Bytes a row that the forward pass keeps, with `element` bytes an activation; `len` is the length of a row
    /// where attention keeps its softmax, on a GPU in f32, else 0.
    fn kept(&self, hidden: u64, len: u64, element: u64) -> u64 {
        let (mixer, statistics) = match self.mixer {
            Mixer::Attention { query, key, heads } if len > 0 => {
                (3 * query + 4 * key + heads.saturating_mul(len), 2)
            }
            Mixer::Attention { query, key, heads } => (2 * query + 2 * key, 2 + heads),
            Mixer::Mamba2 { inner, conv, projection, .. } => (projection + conv + inner, 3),
        };
        let elements = mixer.saturating_add(2 * hidden + 2 * self.mlp);
        elements.saturating_mul(element).saturating_add(4 * statistics)
    }

    /// Bytes a row that the backward pass of the scan takes: states and their gradients between chunks, or in f32
    /// gradients of B and C of every head, and states.
    fn scan(&self, element: u64) -> u64 {
        match self.mixer {
            Mixer::Attention { .. } => 0,
            Mixer::Mamba2 { inner, state, .. } if element == 2 => 4 * inner * state / 64,
            Mixer::Mamba2 { inner, heads, state, .. } => 4 * (2 * heads * state + inner),
        }
    }

    /// Elements a row that exist at once in the backward pass of the layer, beside the stream's gradient: gradients,
    /// and what is made again.
    fn gradients(&self) -> u64 {
        let mixer = match self.mixer {
            Mixer::Attention { query, key, .. } => 2 * query + 2 * key,
            Mixer::Mamba2 { inner, conv, projection, .. } => projection + inner + conv.max(2 * inner),
        };
        mixer.max(4 * self.mlp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(preset: &str, step: Step) -> (Config, Estimate) {
        let config = models::presets::find(preset).unwrap().config();
        let estimate = estimate(&config, &step);
        (config, estimate)
    }

    fn step(optimizer: &str) -> Step<'static> {
        let optimizer = optim::find(optimizer).unwrap();
        let precision = Precision::F32;
        Step {
            optimizer,
            state: optim::StateType::F32,
            precision,
            all_2d: false,
            cuda: false,
            recompute: false,
            batch_size: 8,
            seq_len: 512,
        }
    }

    #[test]
    fn rows_beyond_any_machine_take_all_there_is() {
        for (batch_size, seq_len) in [(1 << 62, 1 << 62), (1 << 62, 8), (1, i64::MAX as usize)] {
            for cuda in [false, true] {
                let (_, estimate) =
                    of("granite-4.0-350m", Step { cuda, batch_size, seq_len, ..step("muon") });
                assert_eq!(estimate.total(), u64::MAX, "{batch_size} {seq_len}");
            }
        }
    }

    /// Peaks of `muon bench step --model MODEL --optimizer adamw --batch 8 --seq 512` on an H100.
    #[test]
    fn agrees_with_peaks_measured_on_a_gpu() {
        let (f32, bf16) = (optim::StateType::F32, optim::StateType::Bf16);
        for (model, precision, state, measured) in [
            ("granite-4.0-h-350m", Precision::Mixed, f32, 8.91),
            ("qwen-block-muon", Precision::Mixed, f32, 8.37),
            ("qwen-block-muon", Precision::Bf16, f32, 7.35),
            ("qwen-block-muon", Precision::Bf16, bf16, 5.95),
        ] {
            let step = Step { precision, state, cuda: true, ..step("adamw") };
            let expected = of(model, step).1.total() as f64 / (1u64 << 30) as f64;
            let ratio: f64 = expected / measured;
            assert!((ratio - 1.0).abs() < 0.1, "{model}: {expected:.2} GiB expected, {measured} measured");
        }
    }

    #[test]
    fn fixed_parts_follow_the_counts() {
        let (config, adamw) = of("granite-4.0-h-350m", step("adamw"));
        let n = models::count(&config) as u64;
        assert_eq!([adamw.weights, adamw.gradients, adamw.optimizer], [4 * n, 4 * n, 8 * n]);
        let (_, muon) = of("granite-4.0-h-350m", step("muon"));
        let embedding = 100_352 * 768;
        let matrices = (8 * n - muon.optimizer) / 4;
        assert!(matrices > n - embedding - n / 100 && matrices < n - embedding, "{matrices} of {n}");
    }

    #[test]
    fn state_in_bf16_takes_half_on_a_gpu() {
        for optimizer in ["adamw", "muon"] {
            for (cuda, halves) in [(true, 2), (false, 1)] {
                let f32 = Step { cuda, ..step(optimizer) };
                let bf16 = Step { state: optim::StateType::Bf16, ..f32 };
                let [f32, bf16] = [f32, bf16].map(|step| of("granite-4.0-h-350m", step).1);
                assert_eq!(f32.optimizer, halves * bf16.optimizer);
                assert_eq!(f32.copy - bf16.copy, f32.optimizer - bf16.optimizer);
            }
        }
    }

    #[test]
    fn weights_of_record_in_bf16_and_their_gradients_take_two_bytes_on_a_gpu() {
        let bf16 = Step { precision: Precision::Bf16, cuda: true, ..step("muon") };
        let (config, on_gpu) = of("granite-4.0-h-350m", bf16);
        let n = models::count(&config) as u64;
        assert!((2 * n..2 * n + n / 50).contains(&on_gpu.weights), "{}", on_gpu.weights);
        assert_eq!(on_gpu.gradients, on_gpu.weights);
        assert!(on_gpu.workspace >= 2 * 8 * 512 * 100_352);
        let (_, on_cpu) = of("granite-4.0-h-350m", Step { cuda: false, ..bf16 });
        assert_eq!(on_cpu, of("granite-4.0-h-350m", step("muon")).1);
    }

    #[test]
    fn a_copy_to_save_is_of_weights_of_record_and_state() {
        let step = Step { cuda: true, ..step("muon") };
        let (config, f32) = of("granite-4.0-h-350m", step);
        assert_eq!(f32.copy, 4 * models::count(&config) as u64 + f32.optimizer);
        let (_, bf16) = of("granite-4.0-h-350m", Step { precision: Precision::Bf16, ..step });
        assert_eq!(bf16.copy, bf16.weights + bf16.optimizer);
    }

    #[test]
    fn the_matrix_rule_takes_the_embedding_where_it_is_routed_to_it() {
        let (_, hidden) = of("granite-4.0-h-350m", step("muon"));
        let (_, all) = of("granite-4.0-h-350m", Step { all_2d: true, ..step("muon") });
        assert_eq!(hidden.optimizer - all.optimizer, 4 * 100_352 * 768);
        assert!(all.workspace >= 8 * 100_352 * 768);
    }

    #[test]
    fn activations_grow_with_the_rows_and_shrink_with_the_precision() {
        for preset in ["granite-4.0-h-350m", "granite-4.0-350m", "qwen2.5-0.5b"] {
            let (_, one) = of(preset, step("muon"));
            let (_, two) = of(preset, Step { batch_size: 16, ..step("muon") });
            let (_, mixed) = of(preset, Step { precision: Precision::Mixed, ..step("muon") });
            assert_eq!(two.activations, 2 * one.activations);
            // Not quite half: statistics are f32 in both.
            assert!(mixed.activations < one.activations * 51 / 100, "{preset}");
            assert!(mixed.weights > one.weights);
            assert_eq!(
                one.total(),
                one.weights + one.gradients + one.optimizer + one.activations + one.workspace
            );
        }
    }

    #[test]
    fn layers_computed_again_keep_little_more_than_the_stream() {
        let kept = step("adamw");
        let again = Step { recompute: true, ..kept };
        let [(config, kept), (_, again)] = [kept, again].map(|step| of("granite-4.0-h-350m", step));
        assert_eq!(kept.total() - kept.activations, again.total() - again.activations);
        let stream = (4 * config.hidden_size() * config.num_layers() * 8 * 512) as u64;
        assert!((stream..kept.activations / 3).contains(&again.activations), "{again:?}");
        let [mixed, bf16] = [Precision::Mixed, Precision::Bf16].map(|precision| {
            of("granite-4.0-h-350m", Step { precision, cuda: true, recompute: true, ..step("adamw") }).1
        });
        assert_eq!(2 * (mixed.activations - bf16.activations), stream);
    }

    /// The table of the module's documentation, in numbers, for one Mamba2 layer of h-350m.
    #[test]
    fn a_mamba2_layer_by_hand() {
        let config = models::presets::find("granite-4.0-h-350m").unwrap().config();
        let kept = layers(&config)[0].kept(768, 0, 2);
        assert_eq!(kept, 2 * (2 * 768 + 2 * 2048 + 3376 + 1792 + 1536) + 12);
    }
}
