//! Parameters in banks: weights of one shape and role lie next to each other in one allocation, and so do their
//! gradients; a bank `[L, ..shape]` is the batch an optimizer steps at once.
//!
//! A model declares its weights as [`ParamSpec`]s; [`Params::new`] lays the banks out on a device; the model's
//! forward pass takes [`Param`] handles by index; an optimizer takes whole [`Bank`]s.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{DType, Device, Error, Precision, Result, Tensor};

/// Banks of gradients start at multiples of so many elements, 256 bytes.
const ALIGN: usize = 64;

/// What a weight is for; optimizers route by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Token embedding `[vocab, hidden]` (also the head where the two are tied).
    Embedding,
    /// Untied output head `[vocab, hidden]`.
    Head,
    /// A two-dimensional weight inside a layer, `[out, in]`.
    Matrix,
    /// Depthwise convolution kernel `[channels, 1, width]`.
    Conv,
    /// Norm weights, biases, `A_log`, `D`, `dt_bias`.
    Vector,
}

/// A run of rows of a fused weight (along its out axis), such as `z` of a Mamba2 input projection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Name, such as `gate`.
    pub name: &'static str,
    /// Number of consecutive rows.
    pub rows: usize,
    /// Number of equal heads these rows consist of (1 where heads mean nothing).
    pub heads: usize,
}

/// The initial value of a weight trained from scratch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Independent normal entries with this standard deviation.
    Normal(f32),
    /// All ones.
    Ones,
    /// All zeros.
    Zeros,
    /// `ln(1), ln(2), ..., ln(n)`.
    LogRange,
}

/// Declaration of one weight.
#[derive(Debug, Clone, PartialEq)]
pub struct ParamSpec {
    /// Name in the model's file.
    pub name: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// What it is for.
    pub role: Role,
    /// The axis of a matrix that is `out`: 0 where it is stored `[out, in]`, as in all models here.
    pub out_axis: usize,
    /// Segments of the out axis, covering all of it; one entry where the weight is not fused. Empty for vectors.
    pub segments: Vec<Segment>,
    /// Value at the start.
    pub init: Init,
}

impl ParamSpec {
    /// Number of entries.
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Weights of one shape and role.
pub struct Bank {
    /// Shape of one member.
    pub shape: Vec<usize>,
    /// Role of all members.
    pub role: Role,
    /// Which axis of a matrix is `out`.
    pub out_axis: usize,
    /// Indices of the members in [`Params::specs`], in order of their slots.
    pub members: Vec<usize>,
    /// Weights of record `[L, ..shape]`: f32, or bf16 on a GPU where matrices of record are bf16.
    pub weight: Tensor,
    /// Element type whose values the weights of record take; they are rounded to it wherever they are set.
    pub record: DType,
    /// What the forward pass reads: a bf16 copy in mixed precision, else the weights of record themselves.
    pub compute: Tensor,
    /// Gradients `[L, ..shape]`, f32.
    pub grad: Tensor,
}

/// Handle to one weight inside its bank; cheap to clone.
#[derive(Clone)]
pub struct Param {
    /// What the forward pass reads.
    pub value: Tensor,
    /// Its gradient, f32.
    pub grad: Tensor,
    /// Of each weight that it consists of.
    written: Vec<Arc<AtomicBool>>,
}

impl Param {
    /// A weight by itself, outside any bank (checks and tests).
    pub fn alone(value: Tensor, grad: Tensor) -> Self {
        Param { value, grad, written: vec![Arc::default()] }
    }

    /// These weights as one, along their first axis, where they and their gradients lie next to each other in this
    /// order.
    pub fn joined(parts: &[&Param]) -> Option<Self> {
        let values: Vec<&Tensor> = parts.iter().map(|part| &part.value).collect();
        let grads: Vec<&Tensor> = parts.iter().map(|part| &part.grad).collect();
        let written = parts.iter().flat_map(|part| part.written.iter().cloned()).collect();
        Some(Param { value: Tensor::joined(&values)?, grad: Tensor::joined(&grads)?, written })
    }

    /// Whether a backward pass must add to `grad` (true) or overwrite it: the first write of a step overwrites.
    ///
    /// # Panics
    /// If of the weights that it consists of some were written in this step and some were not.
    pub(crate) fn accumulate(&self) -> bool {
        let before: Vec<bool> =
            self.written.iter().map(|written| written.swap(true, Ordering::Relaxed)).collect();
        assert!(
            before.windows(2).all(|pair| pair[0] == pair[1]),
            "only a part of a joined weight was written"
        );
        before[0]
    }
}

/// All weights of a model on one device.
pub struct Params {
    device: Device,
    precision: Precision,
    specs: Vec<ParamSpec>,
    banks: Vec<Bank>,
    handles: Vec<Param>,
    /// The gradients of all banks but embedding and head, `[n]`; none on the CPU, where a buffer is locked as a whole.
    layer_grads: Option<Tensor>,
}

impl Params {
    /// Lays out zeroed banks for `specs` on `device`.
    pub fn new(device: &Device, precision: Precision, specs: Vec<ParamSpec>) -> Result<Self> {
        if precision == Precision::Mixed && !device.is_cuda() {
            let remedy = "mixed precision needs a GPU; use --precision f32 or bf16, or --device cuda";
            return Err(Error::NoGpu(remedy.into()));
        }
        let mut groups: Vec<(&ParamSpec, Vec<usize>)> = Vec::new();
        let mut index: HashMap<(&[usize], Role, usize), usize> = HashMap::new();
        for (i, spec) in specs.iter().enumerate() {
            let slot = *index.entry((&spec.shape, spec.role, spec.out_axis)).or_insert_with(|| {
                groups.push((spec, Vec::new()));
                groups.len() - 1
            });
            groups[slot].1.push(i);
        }
        let mut banks = Vec::with_capacity(groups.len());
        let mut handles: Vec<Option<Param>> = vec![None; specs.len()];
        let place = |(spec, members): &(&ParamSpec, Vec<usize>)| match spec.role {
            Role::Embedding | Role::Head => 0,
            _ => (spec.numel() * members.len()).next_multiple_of(ALIGN),
        };
        let (count, mut used) = (groups.iter().map(place).sum(), 0);
        let layer_grads = device.is_cuda().then(|| device.zeros(&[count], DType::F32)).transpose()?;
        for group in groups {
            let length = place(&group);
            let (ParamSpec { shape, role, out_axis, .. }, members) = group;
            let (shape, role, out_axis) = (shape.clone(), *role, *out_axis);
            let mut full = vec![members.len()];
            full.extend_from_slice(&shape);
            let grad = match &layer_grads {
                Some(all) if length > 0 => {
                    used += length;
                    all.range(used - length, full.iter().product()).view(&full)
                }
                _ => device.zeros(&full, DType::F32)?,
            };
            let low = precision.arithmetic(device).compute() == DType::BF16
                && !matches!(role, Role::Vector | Role::Conv);
            let record = precision.record();
            let (weight, compute) = if low && record == DType::BF16 {
                let weight = device.zeros(&full, DType::BF16)?;
                (weight.clone(), weight)
            } else {
                let weight = device.zeros(&full, DType::F32)?;
                (weight.clone(), if low { device.zeros(&full, DType::BF16)? } else { weight })
            };
            for (slot, &i) in members.iter().enumerate() {
                handles[i] = Some(Param::alone(compute.slot(slot), grad.slot(slot)));
            }
            banks.push(Bank { shape, role, out_axis, members, weight, record, compute, grad });
        }
        let handles = handles.into_iter().flatten().collect();
        Ok(Params { device: device.clone(), precision, specs, banks, handles, layer_grads })
    }

    /// The device the banks are on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Precision the banks were laid out for.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Declarations, in the model's order.
    pub fn specs(&self) -> &[ParamSpec] {
        &self.specs
    }

    /// All banks.
    pub fn banks(&self) -> &[Bank] {
        &self.banks
    }

    /// Handle of weight `i`.
    pub fn get(&self, i: usize) -> &Param {
        &self.handles[i]
    }

    /// Number of entries of all weights.
    pub fn numel(&self) -> usize {
        self.specs.iter().map(ParamSpec::numel).sum()
    }

    /// Weight of record of parameter `i`, read back to the host.
    pub fn weight(&self, i: usize) -> Result<Vec<f32>> {
        self.record(i).to_vec()
    }

    /// Sets the weight of record of parameter `i`, rounded to its type; call [`Params::refresh`] after the last one.
    pub fn set_weight(&self, i: usize, values: &[f32]) -> Result<()> {
        match self.precision.record() {
            DType::BF16 => {
                let rounded: Vec<f32> = values.iter().map(|&x| half::bf16::from_f32(x).to_f32()).collect();
                self.record(i).copy_from_slice(&rounded)
            }
            _ => self.record(i).copy_from_slice(values),
        }
    }

    /// Writes the low-precision copies anew from the weights of record.
    pub fn refresh(&self) -> Result<()> {
        self.banks.iter().try_for_each(Bank::refresh)
    }

    /// Starts a step: the next write to each gradient overwrites it.
    pub fn begin_step(&self) {
        for handle in &self.handles {
            handle.written[0].store(false, Ordering::Relaxed);
        }
    }

    /// Ends the backward passes of a step: zeroes the gradients that none of them wrote.
    pub fn finish_grads(&self) -> Result<()> {
        for handle in &self.handles {
            if !handle.written[0].swap(true, Ordering::Relaxed) {
                handle.grad.fill_zero()?;
            }
        }
        Ok(())
    }

    /// On a GPU, the memory of the gradients of all weights but embedding and head, `[n]`, f32, as long as nothing in
    /// it is written in this step: what the forward pass may work in (see [`crate::tape::Tape::lend`]).
    pub fn unwritten(&self) -> Option<Tensor> {
        let apart = |i: usize| matches!(self.specs[i].role, Role::Embedding | Role::Head);
        let mut inside = self.handles.iter().enumerate().filter(|(i, _)| !apart(*i));
        let written = inside.any(|(_, handle)| handle.written[0].load(Ordering::Relaxed));
        self.layer_grads.clone().filter(|_| !written)
    }

    fn record(&self, i: usize) -> Tensor {
        let bank = self.banks.iter().find(|b| b.members.contains(&i)).expect("every weight is in a bank");
        let slot = bank.members.iter().position(|&m| m == i).expect("found above");
        bank.weight.slot(slot)
    }
}

impl Bank {
    /// Writes the low-precision copy anew from the weights of record.
    pub fn refresh(&self) -> Result<()> {
        if self.compute.dtype() == self.weight.dtype() {
            Ok(())
        } else {
            self.weight.cast_into(&self.compute)
        }
    }
}
