//! Parameters in banks: weights of one shape and role lie next to each other in one allocation, and so do their
//! gradients; a bank `[L, ..shape]` is the batch an optimizer steps at once.
//!
//! A model declares its weights as [`ParamSpec`]s; [`Params::new`] lays the banks out on a device; the model's
//! forward pass takes [`Param`] handles by index; an optimizer takes whole [`Bank`]s.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{DType, Device, Error, Precision, Result, Tensor};

/// Bytes at whose multiples banks of gradients start.
const ALIGN: usize = 256;

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
    /// Gradients `[L, ..shape]`, in the element type of `weight`.
    pub grad: Tensor,
}

/// Handle to one weight inside its bank; cheap to clone.
#[derive(Clone)]
pub struct Param {
    /// What the forward pass reads.
    pub value: Tensor,
    /// Its gradient: f32, or bf16 on a GPU where the weight of record is stored so.
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
    /// The memory of the gradients of all banks but embedding and head, f32 `[n]`; none on the CPU, where a buffer is
    /// locked as a whole.
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
        let record = precision.record();
        let low = |role| {
            precision.arithmetic(device).compute() == DType::BF16
                && !matches!(role, Role::Vector | Role::Conv)
        };
        // Element type in which the weights of record are stored, and their gradients.
        let kept = |role| if low(role) { record } else { DType::F32 };
        // f32 that the gradients of a bank take among those of the layers.
        let place = |(spec, members): &(&ParamSpec, Vec<usize>)| match spec.role {
            Role::Embedding | Role::Head => 0,
            role => (spec.numel() * members.len() * kept(role).size()).next_multiple_of(ALIGN) / 4,
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
                    all.range(used - length, length).recast(&full, kept(role))
                }
                _ => device.zeros(&full, kept(role))?,
            };
            let weight = device.zeros(&full, kept(role))?;
            let copied = low(role) && weight.dtype() == DType::F32;
            let compute = if copied { device.zeros(&full, DType::BF16)? } else { weight.clone() };
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

    /// On a GPU, the memory of the gradients of all weights but embedding and head, as f32 `[n]` whatever they are, as
    /// long as nothing in it is written in this step: what the forward pass may work in (see [`crate::tape::Tape::lend`]).
    pub fn unwritten(&self) -> Option<Tensor> {
        let apart = |i: usize| matches!(self.specs[i].role, Role::Embedding | Role::Head);
        let mut inside = self.handles.iter().enumerate().filter(|(i, _)| !apart(*i));
        let written = inside.any(|(_, handle)| handle.written[0].load(Ordering::Relaxed));
        self.layer_grads.clone().filter(|_| !written)
    }

    /// Weight of record of parameter `i`, where it lies.
    pub fn record(&self, i: usize) -> Tensor {
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

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const EMBEDDING: usize = 0;
    const TALL: usize = 1;
    /// Three of one shape, in this order in their bank.
    const THREE: [usize; 3] = [2, 3, 4];

    fn params(device: &Device, precision: Precision) -> Params {
        let spec = |name: &str, shape: &[usize], role| ParamSpec {
            name: name.into(),
            shape: shape.to_vec(),
            role,
            out_axis: 0,
            segments: vec![],
            init: Init::Zeros,
        };
        let specs = vec![
            spec("embedding", &[5, 3], Role::Embedding),
            spec("tall", &[4, 3], Role::Matrix),
            spec("first", &[2, 3], Role::Matrix),
            spec("second", &[2, 3], Role::Matrix),
            spec("third", &[2, 3], Role::Matrix),
        ];
        Params::new(device, precision, specs).unwrap()
    }

    fn on_cpu() -> Params {
        params(&Device::Cpu, Precision::F32)
    }

    #[test]
    fn weights_side_by_side_are_one() {
        let params = on_cpu();
        let [first, second, _] = THREE.map(|i| params.get(i));
        let both = Param::joined(&[first, second]).unwrap();
        params.set_weight(THREE[0], &[1.0; 6]).unwrap();
        params.set_weight(THREE[1], &[2.0; 6]).unwrap();
        assert_eq!((both.value.shape(), both.grad.shape()), (&[4, 3][..], &[4, 3][..]));
        assert_eq!(both.value.to_vec().unwrap(), [[1.0; 6], [2.0; 6]].concat());
        assert!(!both.accumulate(), "the first write of a step overwrites");
        both.grad.copy_from_slice(&[[3.0; 6], [4.0; 6]].concat()).unwrap();
        assert!(first.accumulate() && second.accumulate() && both.accumulate(), "all of it was written");
        params.finish_grads().unwrap();
        let grads = THREE.map(|i| params.get(i).grad.to_vec().unwrap());
        assert_eq!(grads, [[3.0; 6], [4.0; 6], [0.0; 6]]);
        params.begin_step();
        assert!(!both.accumulate());
    }

    #[test]
    fn weights_that_do_not_follow_each_other_are_not_one() {
        let params = on_cpu();
        let [first, second, third] = THREE.map(|i| params.get(i));
        for apart in [&[second, first][..], &[first, third], &[first, first], &[params.get(TALL), first], &[]]
        {
            assert!(Param::joined(apart).is_none());
        }
        // Where the weights are neighbours but their gradients are not.
        let alone = |param: &Param| {
            let grad = Device::Cpu.zeros(param.grad.shape(), DType::F32).unwrap();
            Param::alone(param.value.clone(), grad)
        };
        assert!(Param::joined(&[&alone(first), &alone(second)]).is_none());
    }

    #[test]
    #[should_panic(expected = "only a part of a joined weight was written")]
    fn a_joined_weight_of_which_a_part_was_written_is_a_bug() {
        let params = on_cpu();
        let [first, second, _] = THREE.map(|i| params.get(i));
        let both = Param::joined(&[first, second]).unwrap();
        second.accumulate();
        both.accumulate();
    }

    /// The gradients' memory may be worked in until one of the layers' gradients is written.
    fn is_lent_until_written(params: &Params) {
        for _ in 0..2 {
            params.begin_step();
            assert!(params.unwritten().is_some());
            params.get(EMBEDDING).accumulate();
            assert!(params.unwritten().is_some(), "the embedding's gradient lies elsewhere");
            params.get(THREE[1]).accumulate();
            assert!(params.unwritten().is_none());
            params.finish_grads().unwrap();
            assert!(params.unwritten().is_none(), "what nobody wrote was zeroed");
        }
    }

    #[test]
    fn gradients_are_lent_until_the_first_is_written() {
        let params = on_cpu();
        assert!(params.unwritten().is_none(), "on the CPU nothing is lent");
        let layer_grads = Some(Device::Cpu.zeros(&[30], DType::F32).unwrap());
        is_lent_until_written(&Params { layer_grads, ..params });
    }

    #[test]
    fn on_a_gpu_gradients_are_lent_until_the_first_is_written() {
        let device = match Device::parse("cuda") {
            Ok(device) => device,
            Err(error @ Error::NoGpu(_)) => {
                let test = "on_a_gpu_gradients_are_lent_until_the_first_is_written";
                // Past the test harness, which hides what passing tests print.
                return writeln!(std::io::stderr(), "SKIPPED {test}: {error}").expect("standard error");
            }
            Err(error) => panic!("{error}"),
        };
        let params = params(&device, Precision::Mixed);
        let lent = params.unwritten().expect("no step has begun");
        assert!(lent.numel() >= 12 + 3 * 6, "{lent:?}");
        lent.copy_from_slice(&vec![1.0; lent.numel()]).unwrap();
        assert_eq!(params.get(EMBEDDING).grad.to_vec().unwrap(), [0.0; 15]);
        assert_eq!(params.get(TALL).grad.to_vec().unwrap(), [1.0; 12]);
        is_lent_until_written(&params);
    }
}
