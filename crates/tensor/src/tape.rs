//! The tape: every operation appends its backward step; [`Tape::backward`] runs them last to first.
//!
//! A value that several operations read collects its gradient by addition, in the reverse order of the forward
//! pass, so results do not depend on timing. A value may also be read by columns (the fused projections of a
//! Mamba2 layer): then each reader owns its columns of one gradient buffer and overwrites them; a reader missing
//! at the end is an error.
//!
//! One tensor may be the gradient of two values, of the branch and of the stream that it is added to. Before anything is
//! added to it for one of them, that one gets a copy.
//!
//! A value that its operation can make again from what its backward step reads anyway (a norm's output, say) need not
//! live until then. [`Var::kept`] tells a reader so: a linear layer then keeps nothing of it and, in its backward step,
//! leaves the gradient of its weight to the step that makes the value again, which comes after those of all readers.

use crate::linalg::{Factor, matmul};
use crate::ops::elementwise::PartialSums;
use crate::params::Param;
use crate::{DType, Device, Error, Precision, Result, Tensor};

/// A value on the tape.
#[derive(Clone)]
pub struct Var {
    pub(crate) id: usize,
    /// The value.
    pub value: Tensor,
    /// Whether the backward pass makes the value again.
    remade: bool,
}

impl Var {
    /// What a reader keeps of it that could do with [`Grads::defer`]: nothing where the value is made again.
    pub(crate) fn kept(&self) -> Option<Tensor> {
        (!self.remade).then(|| self.value.clone())
    }
}

/// Which kernels a GPU runs for an operation that has two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kernels {
    /// The fast ones.
    #[default]
    Fast,
    /// The plain ones, to which the fast ones are held.
    Plain,
}

type Backward = Box<dyn FnOnce(&mut Grads) -> Result<()>>;

/// Records operations for the backward pass.
pub struct Tape {
    device: Device,
    precision: Precision,
    kernels: Kernels,
    recompute: bool,
    recording: bool,
    lent: Option<Tensor>,
    steps: Vec<(&'static str, Backward)>,
    count: usize,
}

impl Tape {
    /// A tape that records, for training.
    pub fn new(device: &Device, precision: Precision) -> Self {
        let precision = precision.arithmetic(device);
        let (device, kernels) = (device.clone(), Kernels::default());
        let (steps, lent) = (Vec::new(), None);
        Tape { device, precision, kernels, recompute: false, recording: true, lent, steps, count: 0 }
    }

    /// The same tape with other kernels.
    #[must_use]
    pub fn with_kernels(self, kernels: Kernels) -> Self {
        Tape { kernels, ..self }
    }

    /// A tape that keeps nothing, for evaluation: intermediate values are freed as soon as their readers are done.
    pub fn without_gradients(device: &Device, precision: Precision) -> Self {
        Tape { recording: false, ..Tape::new(device, precision) }
    }

    /// The same tape, which keeps of what runs in [`Tape::again`] nothing but the input.
    #[must_use]
    pub fn with_recompute(self, recompute: bool) -> Self {
        Tape { recompute, ..self }
    }

    /// Lends it memory, `[n]` in f32, whose contents nothing needs before the backward pass writes there: operations
    /// may work in it during the forward pass.
    pub fn lend(&mut self, memory: Option<Tensor>) {
        self.lent = memory;
    }

    /// What was lent; one operation after another may overwrite it.
    pub(crate) fn lent(&self) -> Option<&Tensor> {
        self.lent.as_ref()
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// In what precision it computes: the one asked for, as far as the device has it.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Which kernels it runs on a GPU.
    pub fn kernels(&self) -> Kernels {
        self.kernels
    }

    /// Whether backward steps are kept.
    pub fn recording(&self) -> bool {
        self.recording
    }

    /// A value without history.
    pub fn leaf(&mut self, value: Tensor) -> Var {
        self.count += 1;
        Var { id: self.count - 1, value, remade: false }
    }

    /// Appends an operation's result and its backward step.
    pub(crate) fn push(
        &mut self,
        op: &'static str,
        value: Tensor,
        backward: impl FnOnce(&Tensor, &mut Grads) -> Result<()> + 'static,
    ) -> Var {
        let var = self.leaf(value);
        let id = var.id;
        self.step(op, move |grads| match grads.take(id)? {
            Some(dy) => backward(&dy, grads),
            None => Ok(()),
        });
        var
    }

    /// As [`Tape::push`], for a value that the backward step makes again: it writes it to the tensor that it is given,
    /// of the shape and type of the gradient.
    pub(crate) fn push_remade(
        &mut self,
        op: &'static str,
        value: Tensor,
        backward: impl FnOnce(&Tensor, Option<&Tensor>, &mut Grads) -> Result<()> + 'static,
    ) -> Var {
        let var = self.remade(value);
        let id = var.id;
        self.step(op, move |grads| match grads.take(id)? {
            Some(dy) => grads.remake(id, &dy, |again, grads| backward(&dy, again, grads)),
            None => Ok(()),
        });
        var
    }

    /// A value whose operation appends its step itself and makes the value again in it ([`Grads::remake`]).
    pub(crate) fn remade(&mut self, value: Tensor) -> Var {
        Var { remade: true, ..self.leaf(value) }
    }

    /// Appends the backward step of an operation with several results, which are leaves to the tape: it runs whether or
    /// not they have gradients.
    pub(crate) fn step(
        &mut self,
        op: &'static str,
        backward: impl FnOnce(&mut Grads) -> Result<()> + 'static,
    ) {
        if self.recording {
            self.steps.push((op, Box::new(backward)));
        }
    }

    /// Whether [`Tape::again`] runs its part twice.
    pub fn recomputes(&self) -> bool {
        self.recording && self.recompute
    }

    /// `run(x)`; where the tape recomputes, of all that it computes nothing is kept, and the backward pass runs it once
    /// more: a third more arithmetic against the memory of a layer (Chen et al. 2016). `run` computes the same each
    /// time.
    pub fn again(&mut self, x: &Var, run: impl Fn(&mut Tape, &Var) -> Result<Var> + 'static) -> Result<Var> {
        if !self.recomputes() {
            return run(self, x);
        }
        let mut bare = self.inner(false);
        let input = bare.leaf(x.value.clone());
        let y = run(&mut bare, &input)?.value;
        let (mut inner, x) = (self.inner(true), x.clone());
        Ok(self.push("again", y, move |dy, grads| {
            let input = inner.leaf(x.value);
            let y = run(&mut inner, &input)?;
            match inner.backward(&y, dy.clone())?.take(input.id)? {
                Some(dx) => grads.give(x.id, dx),
                None => Ok(()),
            }
        }))
    }

    /// A tape of its own that computes as this one does.
    fn inner(&self, recording: bool) -> Self {
        Tape {
            device: self.device.clone(),
            steps: Vec::new(),
            count: 0,
            recompute: false,
            recording,
            lent: None,
            ..*self
        }
    }

    /// Runs the backward pass from `root` with gradient `seed` (of `root`'s shape), consuming the tape.
    /// Parameter gradients land in the parameters; gradients of leaves stay in the result.
    pub fn backward(self, root: &Var, seed: Tensor) -> Result<Grads> {
        let mut grads =
            Grads { device: self.device, slots: Vec::new(), deferred: Vec::new(), sums: Vec::new() };
        grads.slots.resize_with(self.count, || None);
        grads.deferred.resize_with(self.count, Vec::new);
        grads.slots[root.id] = Some(Slot::of(seed));
        for (_, step) in self.steps.into_iter().rev() {
            step(&mut grads)?;
        }
        grads.finish_sums()?;
        Ok(grads)
    }
}

struct Slot {
    grad: Tensor,
    covered: Option<usize>,
    /// Whether it was handed over as it is, and so may be in another slot too.
    given: bool,
}

impl Slot {
    /// One for a gradient that is handed over.
    fn of(grad: Tensor) -> Self {
        Slot { grad, covered: None, given: true }
    }
}

/// A product `weight.grad += dy^T x` that waits for `x`.
struct Deferred {
    weight: Param,
    dy: Tensor,
}

/// Gradients of the values on a tape, while the backward pass runs and after it.
pub struct Grads {
    device: Device,
    slots: Vec<Option<Slot>>,
    /// For each value, what waits for it to be made again.
    deferred: Vec<Vec<Deferred>>,
    /// Last stages of sums over rows, for one launch.
    sums: Vec<PartialSums>,
}

impl Grads {
    /// The gradient of a leaf after the pass.
    pub fn of(&self, var: &Var) -> Option<&Tensor> {
        self.slots[var.id].as_ref().map(|s| &s.grad)
    }

    /// The buffer an operation writes the gradient of `var` to, and whether it must add to what is there.
    pub(crate) fn target(&mut self, var: &Var) -> Result<(Tensor, bool)> {
        self.target_of(var.id, var.value.shape(), var.value.dtype())
    }

    /// As [`Grads::target`] for the value `id`, of this shape and type: for operations that need not keep the value.
    pub(crate) fn target_of(&mut self, id: usize, shape: &[usize], dtype: DType) -> Result<(Tensor, bool)> {
        if let Some(grad) = self.own(id)? {
            return Ok((grad, true));
        }
        let grad = self.device.empty(shape, dtype)?;
        self.slots[id] = Some(Slot { given: false, ..Slot::of(grad.clone()) });
        Ok((grad, false))
    }

    /// What the value `id` has of a gradient so far, in memory that no other value's gradient has.
    fn own(&mut self, id: usize) -> Result<Option<Tensor>> {
        let Some(slot) = &mut self.slots[id] else { return Ok(None) };
        if slot.given && slot.grad.is_shared() {
            slot.grad = slot.grad.cast(slot.grad.dtype())?;
        }
        slot.given = false;
        Ok(Some(slot.grad.clone()))
    }

    /// Whether the value `id` has a gradient already.
    pub(crate) fn has(&self, id: usize) -> bool {
        self.slots[id].is_some()
    }

    /// Hands over `grad` as (part of) the gradient of the value `id`: kept as it is where it is the first, and may be
    /// given to another value too.
    pub(crate) fn give(&mut self, id: usize, grad: Tensor) -> Result<()> {
        if let Some(own) = self.own(id)? {
            return crate::ops::elementwise::add_assign(&own, &grad);
        }
        self.slots[id] = Some(Slot::of(grad));
        Ok(())
    }

    /// The buffer of which the caller overwrites `width` columns that no one else writes.
    pub(crate) fn columns(&mut self, var: &Var, width: usize) -> Result<Tensor> {
        self.columns_of(var.id, var.value.shape(), var.value.dtype(), width)
    }

    /// As [`Grads::columns`] for the value `id`, of this shape and type: for operations that need not keep the value.
    pub(crate) fn columns_of(
        &mut self,
        id: usize,
        shape: &[usize],
        dtype: DType,
        width: usize,
    ) -> Result<Tensor> {
        let slot = match self.slots[id].take() {
            Some(Slot { grad, covered: Some(n), given }) => Slot { grad, covered: Some(n + width), given },
            Some(_) => return Err(Error::shape("tape", "a value is read both whole and by columns")),
            None => Slot { grad: self.device.empty(shape, dtype)?, covered: Some(width), given: false },
        };
        let grad = slot.grad.clone();
        self.slots[id] = Some(slot);
        Ok(grad)
    }

    /// Leaves `weight.grad += dy^T x` for when the value `x`, which is not kept, is made again.
    pub(crate) fn defer(&mut self, x: usize, weight: &Param, dy: &Tensor) {
        self.deferred[x].push(Deferred { weight: weight.clone(), dy: dy.clone() });
    }

    /// Runs the backward step of an operation that makes the value `id` again, where anything waits for it, in a tensor
    /// of the shape and type of its gradient `dy`, on a GPU in `dy` itself: an element of `dy` is read before that of
    /// the value is written. Then runs what waits.
    pub(crate) fn remake(
        &mut self,
        id: usize,
        dy: &Tensor,
        backward: impl FnOnce(Option<&Tensor>, &mut Grads) -> Result<()>,
    ) -> Result<()> {
        let waiting = std::mem::take(&mut self.deferred[id]);
        if waiting.is_empty() {
            return backward(None, self);
        }
        let again = match &self.device {
            Device::Cpu => self.device.empty(dy.shape(), dy.dtype())?,
            Device::Cuda(_) => dy.clone(),
        };
        backward(Some(&again), self)?;
        waiting.iter().try_for_each(|Deferred { weight, dy }| {
            matmul(&weight.grad, weight.accumulate(), 1.0, Factor::from(dy).t(), &again)
        })
    }

    /// Leaves the last stage of a sum over rows for a launch together with others, at the end of the pass at the
    /// latest. All that write to one total in a pass do so by way of this, or none: whether a sum overwrites its total
    /// or adds to it is settled when it is left here, so one that overwrites would undo what was written directly
    /// since.
    pub(crate) fn sum_later(&mut self, sums: PartialSums) -> Result<()> {
        // Sums with one total come one after the other.
        let waits = |other: &PartialSums| other.total.ptr() == sums.total.ptr();
        if self.sums.len() == PartialSums::AT_ONCE || self.sums.iter().any(waits) {
            self.finish_sums()?;
        }
        self.sums.push(sums);
        Ok(())
    }

    fn finish_sums(&mut self) -> Result<()> {
        PartialSums::finish(&std::mem::take(&mut self.sums))
    }

    /// Takes the gradient of the value `id`, if it has one.
    pub(crate) fn take(&mut self, id: usize) -> Result<Option<Tensor>> {
        match self.slots[id].take() {
            None => Ok(None),
            Some(Slot { grad, covered: Some(n), .. }) if n != grad.cols() => {
                Err(Error::shape("tape", format!("only {n} of {} columns have a gradient", grad.cols())))
            }
            Some(slot) => Ok(Some(slot.grad)),
        }
    }
}
