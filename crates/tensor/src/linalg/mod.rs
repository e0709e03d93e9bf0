//! Linear algebra on whole tensors, batched over banks: products and the singular value decomposition.

mod product;
mod svd;

pub use product::{Factor, affine, matmul, symmetric};
pub use svd::{Svd, polar_f64, svd};
