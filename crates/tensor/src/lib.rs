//! Devices, tensors, the tape and the fused operations of a training step.
//!
//! The cast: a [`Device`] allocates [`Tensor`]s from a pool; [`params::Params`] lays a model's weights out in banks;
//! operations in [`ops`] compute on a [`tape::Tape`], each with a forward and a backward pass for CPU and CUDA;
//! [`linalg`] has products and decompositions of whole banks. This room knows no optimizer and no model.
//!
//! ```
//! use tensor::{DType, Device, Precision, linalg, tape::Tape};
//!
//! let device = Device::Cpu;
//! let a = device.from_slice(&[1.0, 2.0, 3.0, 4.0], &[2, 2])?;
//! let product = device.empty(&[2, 2], DType::F32)?;
//! linalg::matmul(&product, false, 1.0, &a, &a)?;
//! assert_eq!(product.to_vec()?, [7.0, 10.0, 15.0, 22.0]);
//! # Ok::<(), tensor::Error>(())
//! ```

pub mod check;
mod cpu;
pub mod cuda;
mod device;
mod error;
mod host;
pub mod linalg;
pub mod ops;
pub mod params;
pub mod random;
pub mod tape;
mod tensor;
mod tokens;

pub use device::{DType, Device, Precision};
pub use error::{Error, Result};
pub use tensor::{HostMut, HostRef, Tensor};
pub use tokens::{Arranged, Tokens};
