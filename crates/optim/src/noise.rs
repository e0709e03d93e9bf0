//! Noise for matrices: Haar semi-orthogonal matrices (`OrthoNoise`) and Gaussian ones of the same norm (the control).
//!
//! A member's noise depends on (seed, step, its key) and its declared orientation alone: neither the composition of the
//! bank, nor a resume, nor another number of workers changes it. It is drawn in the weight's orientation `[out, in]`;
//! a weight that stores `[in, out]` gets the transpose of what the same weight stored as `[out, in]` would get.

use tensor::cuda::{Arg, Source};
use tensor::random::{self, Stream};
use tensor::{DType, Device, Tensor, linalg};

use crate::error::Result;

/// What is drawn. Both have Frobenius norm `sqrt(min(m, n))`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Uniformly distributed (Haar) with orthonormal columns, or rows where it is wide: Q of the QR decomposition of a
    /// matrix of independent normal entries, the diagonal of R positive (Mezzadri 2007, arXiv math-ph/0609050).
    Orthogonal,
    /// Independent normal entries, scaled to the norm above.
    Gaussian,
}

/// The stream of noise among those of a seed.
const STREAM: u64 = 0x006e_6f69_7365;

pub(crate) static SOURCE: Source = Source { name: "noise.cu", text: include_str!("noise.cu") };

/// Noise `[L, m, n]` of f32 for the L members of a bank, whose weights are stored as `shape = [m, n]`; `transposed` says
/// that this is `[in, out]`. Member `i` is drawn for `keys[i]`, which must stay the same from step to step.
pub fn draw(
    kind: Kind,
    device: &Device,
    shape: [usize; 2],
    transposed: bool,
    seed: u64,
    step: u64,
    keys: &[u64],
) -> Result<Tensor> {
    let [m, n] = shape;
    let (long, short) = (m.max(n), m.min(n));
    let streams: Vec<Stream> =
        keys.iter().map(|&key| Stream::new(seed, STREAM).child(step).child(key)).collect();
    let normal = random::normal(device, &streams, &[long, short], 1.0)?;
    let tall = match kind {
        Kind::Orthogonal => linalg::qr(&normal)?,
        Kind::Gaussian => {
            scale_to(&normal, (short as f64).sqrt())?;
            normal
        }
    };
    // As [out, in] the noise is the tall matrix, or its transpose where `out` is the smaller.
    if m > n || (m == n && !transposed) { Ok(tall) } else { Ok(linalg::transpose(&tall)?) }
}

/// Scales each member of a bank in place to a Frobenius norm.
fn scale_to(x: &Tensor, norm: f64) -> Result<()> {
    let members = x.shape()[0];
    let size = x.numel() / members;
    match x.device() {
        Device::Cpu => {
            for member in x.write().chunks_exact_mut(size) {
                let square: f64 = member.iter().map(|&x| f64::from(x).powi(2)).sum();
                let scale = norm / square.sqrt();
                member.iter_mut().for_each(|x| *x = (f64::from(*x) * scale) as f32);
            }
            Ok(())
        }
        Device::Cuda(gpu) => {
            let args = [Arg::Ptr(x.ptr()), Arg::I64(size as i64), Arg::F32((norm * norm) as f32)];
            Ok(gpu.launch(&SOURCE, DType::F32, "scale_to", [members as u32, 1, 1], [1024, 1, 1], 0, &args)?)
        }
    }
}
