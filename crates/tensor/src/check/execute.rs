//! Running a case and comparing what comes out.

use super::case::{Case, Input, Kind, Operand, Operands, Plain, Program};
use super::poison::poison;
use super::reference::{Function, gradient};
use super::{Outcome, bound, refuse};
use crate::params::Param;
use crate::random::Stream;
use crate::tape::Tape;
use crate::{DType, Device, Error, Precision, Result, Tensor};

/// Multiplications that the central differences of one tensor may take: it limits how many of its entries are
/// compared, evenly spread; all of them in small cases.
const WORK: usize = 6_000_000;
/// Entries compared however dear they are, and at most.
const ENTRIES: (usize, usize) = (10, 1_000);
/// Root mean square below which a reference is zero: rounding of the central differences.
const ZERO: f64 = 1e-8;
/// The stream of the gradient that the backward pass starts from; inputs have the streams from 0.
const SEED_GRADIENT: u64 = 1 << 32;

impl Case {
    /// Runs it twice on `device` and compares every tensor.
    pub fn check(&self, device: &Device, precision: Precision) -> Result<Vec<Outcome>> {
        refuse(device, precision)?;
        let values = self.values(precision);
        let found = self.execute(device, precision, precision, &values)?;
        let again = self.execute(device, precision, precision, &values)?;
        let expected = if device.is_cuda() {
            let results = self.execute(&Device::Cpu, Precision::F32, precision, &values)?;
            self.compared(results).into_iter().map(|(_, _, values)| Entries::all(values)).collect()
        } else {
            self.reference(&values)
        };
        let repeatable: Vec<bool> = found.iter().zip(&again).map(|(a, b)| same_bits(&a.2, &b.2)).collect();
        let whole = repeatable.iter().all(|&same| same);
        let found = self.compared(found);
        if found.len() != expected.len() {
            return Err(Error::shape(self.op, format!("{}: outputs differ in number", self.shape)));
        }
        let outcome = |(i, ((tensor, is_gradient, found), expected)): (usize, (Compared, Entries))| Outcome {
            op: self.op,
            shape: self.shape.clone(),
            tensor,
            error: expected.error(&found),
            bound: if self.exact { 0.0 } else { bound(precision, is_gradient) },
            repeatable: if matches!(self.program, Program::Plain(_)) { whole } else { repeatable[i] },
        };
        Ok(found.into_iter().zip(expected).enumerate().map(outcome).collect())
    }

    fn values(&self, precision: Precision) -> Vec<Vec<f32>> {
        let value = |(i, input): (usize, &Input)| input.values(Stream::new(self.seed, i as u64), precision);
        self.inputs.iter().enumerate().map(value).collect()
    }

    /// Runs it on `device` in `precision`; `compared_in` is what the comparison is about, also where the CPU computes
    /// the f32 side of it.
    fn execute(
        &self,
        device: &Device,
        precision: Precision,
        compared_in: Precision,
        values: &[Vec<f32>],
    ) -> Result<Vec<Named>> {
        let numels: Vec<usize> = self.inputs.iter().map(Input::numel).collect();
        let tensors = self
            .inputs
            .iter()
            .zip(values)
            .map(|(input, values)| put(device, &input.shape, input.dtype(precision), values))
            .collect::<Result<Vec<_>>>()?;
        poison(device, &numels)?;
        let (run, mean) = match &self.program {
            Program::Tape { run, mean, .. } => (run, *mean),
            Program::Plain(plain) => {
                let outputs = (plain.run)(device, compared_in, &tensors)?;
                return outputs.iter().map(|t| Ok((String::new(), false, t.to_vec()?))).collect();
            }
        };
        // Without gradients first: several operations take another path then.
        let mut tape = Tape::without_gradients(device, precision).with_kernels(self.kernels);
        let operands = self.operands(&mut tape, precision, &tensors)?;
        let y = run(&mut tape, &operands)?;
        let mut results = vec![("y (evaluation)".to_string(), false, y.value.to_vec()?)];
        let shape = y.value.shape().to_vec();
        drop((y, operands));

        let mut tape = Tape::new(device, precision).with_kernels(self.kernels);
        let operands = self.operands(&mut tape, precision, &tensors)?;
        poison(device, &[numels, vec![shape.iter().product()]].concat())?;
        let y = run(&mut tape, &operands)?;
        results.push(("y".to_string(), false, y.value.to_vec()?));
        let dy = self.seed_gradient(y.value.numel(), compared_in, mean);
        let dy = put(device, &shape, y.value.dtype(), &dy)?;
        let grads = tape.backward(&y, dy)?;
        for (input, operand) in self.inputs.iter().zip(&operands.0) {
            let grad = match operand {
                Operand::Param(param) => &param.grad,
                Operand::Value(var) => grads.of(var).ok_or_else(|| {
                    Error::shape(self.op, format!("{}: {} has no gradient", self.shape, input.name))
                })?,
            };
            let grad = grad.to_vec()?;
            let read = input.positions().into_iter().map(|at| grad[at]).collect();
            results.push((format!("d{}", input.name), true, read));
        }
        Ok(results)
    }

    /// The inputs on a tape, gradients of parameters filled with NaN: the first write must overwrite them.
    fn operands(&self, tape: &mut Tape, precision: Precision, tensors: &[Tensor]) -> Result<Operands> {
        let operand = |(input, tensor): (&Input, &Tensor)| match input.kind {
            Kind::Value | Kind::Stream => Ok(Operand::Value(tape.leaf(tensor.clone()))),
            Kind::Matrix | Kind::Vector => {
                let unwritten = vec![f32::NAN; input.numel()];
                let dtype = input.gradient_dtype(precision);
                let grad = put(tensor.device(), &input.shape, dtype, &unwritten)?;
                Ok(Operand::Param(Param::alone(tensor.clone(), grad)))
            }
        };
        Ok(Operands(self.inputs.iter().zip(tensors).map(operand).collect::<Result<Vec<_>>>()?))
    }

    fn seed_gradient(&self, numel: usize, precision: Precision, mean: bool) -> Vec<f32> {
        if mean {
            return vec![1.0; numel];
        }
        Input::value("y", &[numel]).values(Stream::new(self.seed, SEED_GRADIENT), precision)
    }

    /// What is held to the reference, of what was run.
    fn compared(&self, results: Vec<Named>) -> Vec<Compared> {
        match &self.program {
            Program::Tape { .. } => {
                results.into_iter().map(|(name, gradient, x)| (name, gradient, widened(&x))).collect()
            }
            Program::Plain(Plain { compared, .. }) => {
                let raw: Vec<Vec<f32>> = results.into_iter().map(|(_, _, values)| values).collect();
                compared(&raw).into_iter().map(|(name, x)| (name.to_string(), false, x)).collect()
            }
        }
    }

    /// The same in f64, gradients by central differences.
    fn reference(&self, values: &[Vec<f32>]) -> Vec<Entries> {
        let inputs: Vec<Vec<f64>> = values.iter().map(|x| widened(x)).collect();
        match &self.program {
            Program::Plain(plain) => (plain.reference)(&inputs).into_iter().map(Entries::all).collect(),
            Program::Tape { reference, mean, .. } => {
                let y = reference(&inputs);
                let dy = widened(&self.seed_gradient(y.len(), Precision::F32, *mean));
                let mut entries = vec![Entries::all(y.clone()), Entries::all(y)];
                entries.extend((0..inputs.len()).map(|i| self.differences(reference, &inputs, i, &dy)));
                entries
            }
        }
    }

    fn differences(&self, f: &Function, inputs: &[Vec<f64>], which: usize, dy: &[f64]) -> Entries {
        let read = self.inputs[which].positions();
        let count = (WORK / self.work.max(1)).clamp(ENTRIES.0, ENTRIES.1).min(read.len());
        let pick = Stream::new(self.seed, SEED_GRADIENT + 1);
        // One position out of each of `count` equal runs.
        let at: Vec<usize> = (0..count)
            .map(|i| {
                let (from, to) = (i * read.len() / count, (i + 1) * read.len() / count);
                from + (pick.uniform(i as u64) * (to - from) as f64) as usize
            })
            .collect();
        let positions: Vec<usize> = at.iter().map(|&i| read[i]).collect();
        let mut values = gradient(f, inputs, which, &positions, dy);
        if let Some(row) = self.inputs[which].frozen {
            let width = self.inputs[which].numel() / self.inputs[which].shape[0];
            values
                .iter_mut()
                .zip(&positions)
                .filter(|(_, at)| **at / width == row)
                .for_each(|(x, _)| *x = 0.0);
        }
        Entries { values, at: Some(at) }
    }
}

/// Name, whether it is a gradient, elements.
type Named = (String, bool, Vec<f32>);
type Compared = (String, bool, Vec<f64>);

/// A tensor of the reference, or some entries of it.
struct Entries {
    values: Vec<f64>,
    at: Option<Vec<usize>>,
}

impl Entries {
    fn all(values: Vec<f64>) -> Self {
        Entries { values, at: None }
    }

    /// See [`Outcome::error`].
    fn error(&self, found: &[f64]) -> f64 {
        let chosen: Vec<f64> = match &self.at {
            Some(at) => at.iter().map(|&i| found[i]).collect(),
            None => found.to_vec(),
        };
        if chosen.len() != self.values.len() {
            return f64::NAN;
        }
        // Unwritten entries show even where they are not compared.
        if found.iter().any(|x| !x.is_finite()) {
            return f64::NAN;
        }
        let squares = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>();
        let size = squares(&mut self.values.iter().copied());
        let count = self.values.len().max(1) as f64;
        let off = squares(&mut chosen.iter().zip(&self.values).map(|(x, y)| x - y));
        if size > ZERO * ZERO * count { (off / size).sqrt() } else { (off / count).sqrt() }
    }
}

fn put(device: &Device, shape: &[usize], dtype: DType, values: &[f32]) -> Result<Tensor> {
    let tensor = device.empty(shape, dtype)?;
    tensor.copy_from_slice(values)?;
    Ok(tensor)
}

fn widened(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| f64::from(x)).collect()
}

fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}
