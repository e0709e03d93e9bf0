//! Linear algebra on whole tensors, batched over banks: products, transposes, QR, eigenvalues and the singular value
//! decomposition.

mod eigen;
mod product;
mod qr;
mod svd;
mod symmetric;
mod transpose;

pub use eigen::symmetric_eigenvalues;
pub(crate) use product::biased;
pub use product::{Factor, affine, matmul};
pub use qr::qr;
pub use svd::{Svd, polar_f64, svd};
pub(crate) use symmetric::SOURCE as SYMMETRIC;
pub use symmetric::{Finish, finish, symmetric, symmetric_finished};
pub(crate) use transpose::SOURCE;
pub use transpose::transpose;
