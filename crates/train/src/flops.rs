//! Floating-point operations of a training step, counted from the configuration.

use models::{Config, LayerKind, parameters};
use tensor::params::Role;

/// Operations of forward and backward pass for `batch` sequences of `len` tokens, multiplications and additions
/// counted apart: 6 for each token and matrix entry (the head counts, the embedding's look-up does not), the causal
/// half of the attention products, and 12 H P N a token for the scan.
pub fn forward_backward(config: &Config, batch: usize, len: usize) -> f64 {
    let tokens = (batch * len) as f64;
    let specs = parameters(config);
    let count = |role: Role| specs.iter().filter(|s| s.role == role).map(|s| s.numel() as f64).sum::<f64>();
    let head = if config.tied() { count(Role::Embedding) } else { count(Role::Head) };
    let products = 6.0 * tokens * (count(Role::Matrix) + head);
    let attention = |layers: usize, width: usize| 6.0 * tokens * (layers * width * (len + 1)) as f64;
    products
        + match config {
            Config::Granite(c) => {
                let mamba = c.layers.iter().filter(|k| **k == LayerKind::Mamba).count();
                let scan = 12.0 * tokens * (mamba * c.mamba.inner() * c.mamba.d_state) as f64;
                attention(c.layers.len() - mamba, c.num_attention_heads * c.head_dim) + scan
            }
            Config::Qwen2(c) => attention(c.num_hidden_layers, c.num_attention_heads * c.head_dim),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn granite_350m_needs_about_8_teraflop_for_4096_tokens() {
        let config = models::presets::find("granite-4.0-h-350m").unwrap().config();
        let tera = forward_backward(&config, 8, 512) / 1e12;
        // 6 x 340.3 M x 4096 = 8.36 T of products, 0.32 T of scan and 0.04 T of attention besides.
        assert!((8.5..8.9).contains(&tera), "{tera}");
    }
}
