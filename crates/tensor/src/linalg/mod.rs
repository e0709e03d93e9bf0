//! Linear algebra on whole tensors, batched over banks: products, transposes, QR, eigenvalues and the singular value
//! decomposition.

mod eigen;
mod product;
mod qr;
mod svd;
mod transpose;

pub use eigen::symmetric_eigenvalues;
pub use product::{Factor, affine, matmul, symmetric};
pub use qr::qr;
pub use svd::{Svd, polar_f64, svd};
pub(crate) use transpose::SOURCE;
pub use transpose::transpose;
