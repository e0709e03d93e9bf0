//! The selective state-space scan of Mamba2 (Dao and Gu 2024, "Transformers are SSMs").
//!
//! Per sequence and head, with `dt_t = clamp(softplus(raw_t + dt_bias))` and `A = -exp(A_log)`:
//!
//! ```text
//! S_t = exp(dt_t A) S_{t-1} + dt_t B_t (x) x_t        S [N, P], S_{-1} = 0
//! y_t = C_t^T S_t + D x_t
//! ```
//!
//! `B` and `C` are shared by the heads of a group. The recurrence is evaluated as it stands, in f32: there is no
//! chunk length, and any sequence length is alike. On a GPU in bf16, the sizes of the published models go in chunks on
//! tensor cores instead ([`chunked`]: its rule is a function of sizes and type), unless the tape runs the plain
//! kernels.

mod chunked;
mod cpu;
mod cuda;

pub(super) use chunked::SOURCE as CHUNKED_SOURCE;
pub(super) use cuda::SOURCE;

use crate::ops::{BatchLayout, Cols};
use crate::params::Param;
use crate::tape::{Kernels, Tape, Var};
use crate::{Device, Error, Result};

/// Sizes of a scan.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScanLayout {
    /// Sequences and their length.
    pub rows: BatchLayout,
    /// Heads `H`.
    pub heads: usize,
    /// Width `P` of a head.
    pub head_dim: usize,
    /// Groups `G` that share `B` and `C`; divides `heads`.
    pub groups: usize,
    /// State size `N`.
    pub state: usize,
    /// Bounds of `dt` after softplus.
    pub dt_limit: (f32, f32),
}

impl ScanLayout {
    /// Width `H P` of `x` and `y`.
    pub fn inner(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Columns of `x | B | C`.
    pub fn width(&self) -> usize {
        self.inner() + 2 * self.groups * self.state
    }

    /// First columns of `B` and of `C` for head `h`.
    fn bc(&self, h: usize) -> (usize, usize) {
        let group = h / (self.heads / self.groups);
        let b = self.inner() + group * self.state;
        (b, b + self.groups * self.state)
    }
}

/// Inputs of a scan.
#[derive(Clone)]
pub struct Scan {
    /// `x | B | C`, `[R, H P + 2 G N]`.
    pub xbc: Var,
    /// `raw` time steps, `[R, H]`.
    pub dt: Cols,
    /// `[H]`.
    pub dt_bias: Param,
    /// `[H]`.
    pub a_log: Param,
    /// `[H]`.
    pub d: Param,
}

/// The scan: `[R, H P]`.
pub fn scan(tape: &mut Tape, inputs: &Scan, layout: ScanLayout) -> Result<Var> {
    let rows = layout.rows.batch * layout.rows.len;
    let fits = inputs.xbc.value.shape() == [rows, layout.width()]
        && inputs.dt.width == layout.heads
        && inputs.dt.var.value.rows() == rows
        && [&inputs.dt_bias, &inputs.a_log, &inputs.d].iter().all(|p| p.value.numel() == layout.heads)
        && layout.heads.is_multiple_of(layout.groups);
    if !fits {
        return Err(Error::shape("scan", format!("{:?} does not fit {layout:?}", inputs.xbc.value)));
    }
    let y = tape.device().empty(&[rows, layout.inner()], inputs.xbc.value.dtype())?;
    let in_chunks = match tape.device() {
        Device::Cuda(gpu) => tape.kernels() == Kernels::Fast && chunked::covers(gpu, inputs, layout),
        Device::Cpu => false,
    };
    match tape.device() {
        Device::Cpu => cpu::forward(&y, inputs, layout),
        Device::Cuda(gpu) if in_chunks => chunked::forward(gpu, &y, inputs, layout)?,
        Device::Cuda(gpu) => cuda::forward(gpu, &y, inputs, layout)?,
    }
    let inputs = inputs.clone();
    Ok(tape.push("scan", y, move |dy, grads| {
        let (dxbc, accumulate) = grads.target(&inputs.xbc)?;
        if accumulate {
            return Err(Error::shape("scan", "its input has another reader"));
        }
        let ddt = grads.columns(&inputs.dt.var, inputs.dt.width)?;
        let add = [&inputs.dt_bias, &inputs.a_log, &inputs.d].map(Param::accumulate);
        match dy.device() {
            Device::Cpu => {
                cpu::backward(&dxbc, &ddt, add, dy, &inputs, layout);
                Ok(())
            }
            Device::Cuda(gpu) if in_chunks => chunked::backward(gpu, &dxbc, &ddt, add, dy, &inputs, layout),
            Device::Cuda(gpu) => cuda::backward(gpu, &dxbc, &ddt, add, dy, &inputs, layout),
        }
    }))
}
