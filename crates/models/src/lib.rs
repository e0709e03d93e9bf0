//! Granite hybrid and Qwen2 models, and their Hugging Face layout.
//!
//! [`Config`] says what a model is: read from a `config.json`, or taken from a preset in [`presets::ALL`].
//! [`parameters`] lists its weights. [`Weights`] reads them from safetensors files, [`save`] writes them, and
//! transformers loads what it wrote.
//!
//! ```
//! let config = models::presets::find("granite-4.0-h-350m")?.config();
//! assert_eq!(models::count(&config), 340_332_224);
//! # Ok::<(), models::Error>(())
//! ```

mod attention;
pub mod config;
mod error;
mod granite;
mod model;
mod params;
pub mod presets;
mod qwen2;
mod save;
mod stack;
mod weights;

pub use config::{Config, GraniteConfig, LayerKind, Mamba2Config, Qwen2Config, TokenIds};
pub use error::{Error, Result};
pub use model::Model;
pub use params::{EMBEDDING, HEAD, count, parameters};
pub use save::{save, save_tensors};
pub use tensor::DType;
pub use weights::{Weights, widen};
