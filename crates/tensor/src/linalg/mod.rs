//! Linear algebra on whole tensors, batched over banks: products and the singular value decomposition.

mod product;
mod svd;

pub use product::{Factor, matmul};
pub use svd::{Svd, svd};
