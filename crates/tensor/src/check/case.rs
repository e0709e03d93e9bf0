//! What a case is: inputs from a seed, the operation on a tape or on tensors, and the same in f64.

use super::reference::Function;
use crate::params::Param;
use crate::random::Stream;
use crate::tape::{Kernels, Tape, Var};
use crate::{DType, Device, Precision, Result, Tensor};

/// An operation with shapes and inputs.
pub struct Case {
    pub(super) op: &'static str,
    pub(super) shape: String,
    pub(super) inputs: Vec<Input>,
    pub(super) program: Program,
    /// Multiplications of one forward pass, about: how dear the reference is.
    pub(super) work: usize,
    pub(super) seed: u64,
    /// Whether results must be those of the reference exactly.
    pub(super) exact: bool,
    /// Which kernels a GPU runs.
    pub(super) kernels: Kernels,
}

impl Case {
    /// The operation's name.
    pub fn op(&self) -> &'static str {
        self.op
    }

    /// Sizes and variant.
    pub fn shape(&self) -> &str {
        &self.shape
    }

    /// The same with other inputs.
    #[must_use]
    pub fn seeded(self, seed: u64) -> Self {
        Case { seed, ..self }
    }

    /// Whether this is another computation than in the precisions before it: in bf16 only what leaves the gradient of a
    /// matrix, or has to do with the residual stream, does otherwise than in mixed.
    pub fn has_its_own(&self, precision: Precision) -> bool {
        let taped = matches!(self.program, Program::Tape { .. });
        let differs = |input: &Input| matches!(input.kind, Kind::Matrix | Kind::Stream);
        precision != Precision::Bf16 || taped && self.inputs.iter().any(differs)
    }

    /// The same by the plain kernels, of an operation that has fast ones too.
    #[must_use]
    pub(super) fn plain_kernels(self) -> Self {
        Case { shape: format!("{} plain kernels", self.shape), kernels: Kernels::Plain, ..self }
    }

    /// A case of an operation on a tape.
    pub(super) fn new(
        op: &'static str,
        shape: String,
        inputs: Vec<Input>,
        work: usize,
        run: impl Fn(&mut Tape, &Operands) -> Result<Var> + 'static,
        reference: impl Fn(&[Vec<f64>]) -> Vec<f64> + Send + Sync + 'static,
    ) -> Self {
        let program = Program::Tape { run: Box::new(run), reference: Box::new(reference), mean: false };
        Case { op, shape, inputs, program, work, seed: 0, exact: false, kernels: Kernels::Fast }
    }

    /// A case of an operation that has no backward pass.
    pub(super) fn plain(op: &'static str, shape: String, inputs: Vec<Input>, plain: Plain) -> Self {
        Case {
            op,
            shape,
            inputs,
            program: Program::Plain(plain),
            work: 0,
            seed: 0,
            exact: false,
            kernels: Kernels::Fast,
        }
    }

    /// Says that the result is a mean loss, whose gradient is 1.
    pub(super) fn mean(mut self) -> Self {
        if let Program::Tape { mean, .. } = &mut self.program {
            *mean = true;
        }
        self
    }
}

pub(super) enum Program {
    Tape { run: Box<Run>, reference: Box<Function>, mean: bool },
    Plain(Plain),
}

type Run = dyn Fn(&mut Tape, &Operands) -> Result<Var>;

/// An operation on tensors. What it gives must repeat bit by bit; what `compared` makes of that is held to `reference`.
pub(super) struct Plain {
    pub run: Box<PlainRun>,
    pub compared: Box<Compared>,
    pub reference: Box<PlainReference>,
}

/// Inputs in f64 to what is compared, in its order.
type PlainReference = dyn Fn(&[Vec<f64>]) -> Vec<Vec<f64>>;

/// Outputs of one run, to what is compared and its names.
pub(super) type Compared = dyn Fn(&[Vec<f32>]) -> Vec<(&'static str, Vec<f64>)>;

/// Device, precision of the comparison (on the CPU too) and inputs, to outputs.
type PlainRun = dyn Fn(&Device, Precision, &[Tensor]) -> Result<Vec<Tensor>>;

/// What an input is to the operation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A value on the tape, in the compute type.
    Value,
    /// A value of the residual stream, in its type.
    Stream,
    /// A parameter that matrix products or an embedding read, in the compute type.
    Matrix,
    /// A parameter in f32.
    Vector,
}

/// Declaration of an input: normal entries.
#[derive(Clone)]
pub(super) struct Input {
    pub name: &'static str,
    pub shape: Vec<usize>,
    pub kind: Kind,
    pub mean: f32,
    pub std: f32,
    /// The columns that the operation reads, first and number, if not all.
    pub read: Option<(usize, usize)>,
    /// The row that gets no gradient by definition.
    pub frozen: Option<usize>,
}

impl Input {
    /// A value of unit size.
    pub fn value(name: &'static str, shape: &[usize]) -> Self {
        Input {
            name,
            shape: shape.to_vec(),
            kind: Kind::Value,
            mean: 0.0,
            std: 1.0,
            read: None,
            frozen: None,
        }
    }

    /// A matrix `[N, K]` that keeps the size of what it multiplies.
    pub fn matrix(name: &'static str, shape: &[usize]) -> Self {
        let std = 1.0 / (shape[shape.len() - 1] as f32).sqrt();
        Input { kind: Kind::Matrix, std, ..Input::value(name, shape) }
    }

    /// A value of the residual stream.
    pub fn stream(name: &'static str, shape: &[usize]) -> Self {
        Input { kind: Kind::Stream, ..Input::value(name, shape) }
    }

    /// A vector of entries about `mean`.
    pub fn vector(name: &'static str, shape: &[usize], mean: f32, std: f32) -> Self {
        Input { kind: Kind::Vector, mean, std, ..Input::value(name, shape) }
    }

    /// The same with entries about `mean`.
    pub fn about(self, mean: f32, std: f32) -> Self {
        Input { mean, std, ..self }
    }

    /// The same, of which only some columns are read.
    pub fn columns(self, start: usize, width: usize) -> Self {
        Input { read: Some((start, width)), ..self }
    }

    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// Flat positions of the entries that are read.
    pub fn positions(&self) -> Vec<usize> {
        let cols = self.shape[self.shape.len() - 1];
        let (start, width) = self.read.unwrap_or((0, cols));
        (0..self.numel()).filter(|i| (start..start + width).contains(&(i % cols))).collect()
    }

    /// Its entries, rounded to what `precision` can hold.
    pub fn values(&self, stream: Stream, precision: Precision) -> Vec<f32> {
        let mut values = vec![0.0; self.numel()];
        stream.fill_normal(&mut values, self.std);
        for x in &mut values {
            *x += self.mean;
            if self.dtype(precision) == DType::BF16 {
                *x = half::bf16::from_f32(*x).to_f32();
            }
        }
        values
    }

    pub fn dtype(&self, precision: Precision) -> DType {
        match self.kind {
            Kind::Vector => DType::F32,
            Kind::Stream => precision.stream(),
            Kind::Value | Kind::Matrix => precision.compute(),
        }
    }

    /// Element type of the gradient that a parameter collects.
    pub fn gradient_dtype(&self, precision: Precision) -> DType {
        if self.kind == Kind::Matrix { precision.record() } else { DType::F32 }
    }
}

/// Inputs on a device, in the order of their declarations.
pub(super) struct Operands(pub Vec<Operand>);

pub(super) enum Operand {
    Value(Var),
    Param(Param),
}

impl Operands {
    /// Input `i`, declared a value.
    pub fn value(&self, i: usize) -> &Var {
        match &self.0[i] {
            Operand::Value(var) => var,
            Operand::Param(_) => panic!("input {i} is a parameter"),
        }
    }

    /// Input `i`, declared a matrix or a vector.
    pub fn param(&self, i: usize) -> &Param {
        match &self.0[i] {
            Operand::Param(param) => param,
            Operand::Value(_) => panic!("input {i} is a value"),
        }
    }
}
