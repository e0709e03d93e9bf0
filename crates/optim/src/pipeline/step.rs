//! One step of the pipeline on one bank.

use tensor::params::Bank;
use tensor::{DType, Device, Tensor};

use super::noise::{Drawn, Place};
use super::{Blocks, MatrixRule};
use crate::diagnostics::{Findings, Watch, in_f32};
use crate::error::Result;
use crate::kernels::{self, Compose};
use crate::optimizer::{Rule, SCALARS, Step};
use crate::ortho::{Method, Ortho, Start};
use crate::quantile;
use crate::rounding::{self, Part, StateType};
use crate::tiles::Lattice;

/// Convergent cubic step of `OrthoNoise`, `X <- 1.5 X - 0.5 X X^T X`.
const CUBIC: [f64; 3] = [1.5, -0.5, 0.0];

/// What the orthogonaliser gave for a whole bank, and the factor it still needs.
struct Update {
    tensor: Tensor,
    factor: f32,
}

impl Rule for MatrixRule {
    fn scalars(&self, number: u64, rate: f32) -> [f32; SCALARS] {
        let rate = rate * self.rate_ratio(number);
        [rate * self.plan.weight_decay, rate, 0.0]
    }

    fn fixed(&self) -> bool {
        let periodic = self.plan.blocks.as_ref().is_some_and(|blocks| blocks.period > 0);
        self.ortho.fixed() && self.plan.noise.is_none() && !periodic
    }

    fn step(&mut self, step: &Step, findings: &mut Findings) -> Result<()> {
        let Bank { weight, out_axis, shape, .. } = step.bank;
        let update = if let Some(update) = self.in_one_pass(step, findings)? {
            update
        } else {
            let buffer = in_f32(&self.buffer)?;
            let update = self.by_stages(&buffer, step, findings)?;
            if let (StateType::Bf16, Some(streams)) = (step.common.state, step.streams) {
                rounding::keep(&buffer, &self.buffer, streams, Part::First)?;
            }
            update
        };
        if step.watch == Watch::Full {
            findings.look(&in_f32(&self.buffer)?, weight)?;
        }
        if let (Some(neurons), Some(moments)) = (&self.plan.neurons, &self.moments) {
            let target = 0.2 * ((shape[0] * shape[1]) as f64).sqrt() as f32;
            kernels::neurons(&update.tensor, *out_axis, moments, neurons.beta, neurons.eps, target)?;
        }
        let changes = step.record(findings).apply(&update.tensor, update.factor)?;
        findings.moved(changes);
        Ok(())
    }

    fn state(&self) -> Vec<(&'static str, &Tensor)> {
        let moments = self.moments.iter().map(|moments| ("neuron_moments", moments));
        [("momentum", &self.buffer)].into_iter().chain(moments).collect()
    }
}

impl MatrixRule {
    /// Whether this step takes tiles.
    fn in_tiles(&self, number: u64) -> bool {
        self.plan
            .blocks
            .as_ref()
            .is_some_and(|b| b.period == 0 || !(number - 1).is_multiple_of(b.period as u64))
    }

    fn rate_ratio(&self, number: u64) -> f32 {
        match &self.plan.blocks {
            Some(blocks) if self.in_tiles(number) => blocks.rate_ratio,
            _ => 1.0,
        }
    }

    /// The update where one pass over the bank makes the momentum and what the orthogonaliser begins with: where nothing
    /// else looks at the momentum, on a GPU.
    fn in_one_pass(&self, step: &Step, findings: &mut Findings) -> Result<Option<Update>> {
        let (plan, out_axis) = (&self.plan, step.bank.out_axis);
        let [m, n] = [0, 1].map(|axis| step.bank.shape[axis]);
        let whole = matches!(&self.units[..], [unit] if unit.is_whole());
        let (Device::Cuda(gpu), true, None, None) =
            (self.buffer.device(), whole, &plan.momentum_scale, &plan.noise)
        else {
            return Ok(None);
        };
        let tiled = match plan.blocks.as_ref().filter(|_| self.in_tiles(step.number)) {
            None => None,
            Some(blocks) => {
                let tiles = Lattice::blocks(m, n, blocks.size);
                // Neurons would be divided before the scales of tiles.
                match self.ortho.fused(gpu, &tiles).filter(|_| plan.neurons.is_none()) {
                    None => return Ok(None),
                    Some(fused) => Some((blocks, tiles, fused)),
                }
            }
        };
        let dtype = if tiled.is_some() { Some(DType::BF16) } else { self.ortho.start_type() };
        let Some(dtype) = dtype else { return Ok(None) };
        let nesterov = plan.nesterov.then_some((plan.momentum, plan.gradient_weight));
        let how = Compose { nesterov, gate: plan.gate, self_gate: plan.self_gate };
        let weights = (plan.momentum, plan.gradient_weight);
        let (buffer, grad) = ((&self.buffer, step.streams), &step.bank.grad);
        let (x, sums) = kernels::momentum_taken(gpu, buffer, grad, weights, how, dtype)?;
        if let Some((blocks, tiles, fused)) = tiled {
            let factors = fused.factors(gpu, &x, &tiles)?;
            return self.scaled((blocks, &tiles), factors, step, findings).map(Some);
        }
        let update = self.ortho.continued(Start::new(gpu, x, &sums)?)?;
        findings.factor(&update, 0)?;
        Ok(Some(Update { tensor: update, factor: self.shape_factor(m, n, out_axis) }))
    }

    /// The factors of tiles, in their places, with their shape scale.
    fn scaled(
        &self,
        (blocks, tiles): (&Blocks, &[Lattice]),
        factors: Tensor,
        step: &Step,
        findings: &mut Findings,
    ) -> Result<Update> {
        let Bank { shape, out_axis, .. } = step.bank;
        let scale = |tiles| self.tile_factor(blocks, tiles, [shape[0], shape[1]], *out_axis);
        if step.watch == Watch::Full {
            let first = factors.range(0, 1);
            tiles.iter().try_for_each(|tiles| findings.factor(&tiles.gather(&first)?, 0))?;
        }
        let scales: Vec<f32> = tiles.iter().map(scale).collect();
        if scales.iter().all(|scale| scale.to_bits() == scales[0].to_bits()) {
            return Ok(Update { tensor: factors, factor: scales[0] });
        }
        let whole = factors.device().empty(factors.shape(), DType::F32)?;
        for (tiles, scale) in tiles.iter().zip(scales) {
            tiles.scatter(&tiles.gather(&factors)?, &whole, scale)?;
        }
        Ok(Update { tensor: whole, factor: 1.0 })
    }

    /// The same update stage by stage, with all that a plan may have, on the momentum in f32.
    fn by_stages(&self, buffer: &Tensor, step: &Step, findings: &mut Findings) -> Result<Update> {
        let (plan, grad) = (&self.plan, &step.bank.grad);
        kernels::momentum(buffer, grad, plan.momentum, plan.gradient_weight, plan.gate)?;
        if let Some(scale) = &plan.momentum_scale {
            let thresholds = quantile::of_magnitudes(grad, scale.quantile)?;
            kernels::scale_above(buffer, grad, &thresholds, scale.factor)?;
        }
        self.update(buffer, step, findings)
    }

    fn shape_factor(&self, m: usize, n: usize, out_axis: usize) -> f32 {
        if out_axis == 0 { self.plan.scale.of(m, n) } else { self.plan.scale.of(n, m) }
    }

    /// The shape scale of tiles of matrices of a shape.
    fn tile_factor(&self, blocks: &Blocks, tiles: &Lattice, [m, n]: [usize; 2], out_axis: usize) -> f32 {
        let [m, n] = if blocks.scale_by_tile { [tiles.height, tiles.width] } else { [m, n] };
        self.shape_factor(m, n, out_axis)
    }

    /// From the momentum to the orthogonalised update of the whole bank.
    fn update(&self, buffer: &Tensor, step: &Step, findings: &mut Findings) -> Result<Update> {
        let plan = &self.plan;
        let Bank { grad, out_axis, .. } = step.bank;
        let source = if plan.nesterov {
            let nesterov = Some((plan.momentum, plan.gradient_weight));
            kernels::compose(buffer, grad, Compose { nesterov, gate: plan.gate, self_gate: false })?
        } else {
            buffer.clone()
        };
        if let [unit] = &self.units[..]
            && unit.is_whole()
        {
            let x = self.projected(self.noisy(step, (unit, 0), buffer, source, findings)?)?;
            return self.orthogonal(step.number, &x, *out_axis, findings);
        }
        let whole = step.bank.weight.device().empty(grad.shape(), DType::F32)?;
        for (at, unit) in self.units.iter().enumerate() {
            let x =
                self.projected(self.noisy(step, (unit, at), buffer, unit.gather(&source)?, findings)?)?;
            let update = self.orthogonal(step.number, &x, *out_axis, findings)?;
            unit.scatter(&update.tensor, &whole, update.factor)?;
        }
        Ok(Update { tensor: whole, factor: 1.0 })
    }

    /// The matrices `x` of unit number `at` with their noise.
    fn noisy(
        &self,
        step: &Step,
        (unit, at): (&Lattice, usize),
        buffer: &Tensor,
        x: Tensor,
        findings: &mut Findings,
    ) -> Result<Tensor> {
        let Some(noise) = &self.plan.noise else { return Ok(x) };
        let momenta = unit.gather(buffer)?;
        let each = unit.count() as u64;
        let keys: Vec<u64> = step
            .keys
            .iter()
            .flat_map(|key| (0..each).map(move |tile| key.wrapping_add((at as u64) << 32 | tile)))
            .collect();
        let drawn = noise.draw(&Place {
            momenta: &momenta,
            gradients: &unit.gather(&step.bank.grad)?,
            transposed: step.bank.out_axis == 1,
            seed: step.common.seed,
            number: step.number,
            keys: &keys,
        })?;
        let added = drawn.as_ref().map_or(0, |drawn| drawn.members.len());
        findings.noise(added, keys.len() - added);
        let mut x = x;
        if let Some(Drawn { noise: drawn, members }) = drawn {
            // A copy: `x` may be the buffer itself.
            let sum = x.cast(DType::F32)?;
            kernels::axpby(&sum, 1.0, &drawn, 1.0)?;
            x = sum;
            if noise.in_momentum {
                if unit.is_whole() {
                    kernels::axpby(buffer, 1.0, &drawn, 1.0)?;
                } else {
                    unit.scatter_add(&drawn, buffer)?;
                }
            }
            if noise.reorthogonalize > 0 {
                reorthogonalize(&x, &members, noise.reorthogonalize)?;
            }
        }
        Ok(x)
    }

    /// What becomes of the matrices `x` before the orthogonaliser.
    fn projected(&self, x: Tensor) -> Result<Tensor> {
        if !self.plan.self_gate {
            return Ok(x);
        }
        kernels::compose(&x, &x, Compose { nesterov: None, gate: self.plan.gate, self_gate: true })
    }

    /// The polar factors of the matrices `x`, whole or in tiles, and their shape scale.
    fn orthogonal(
        &self,
        number: u64,
        x: &Tensor,
        out_axis: usize,
        findings: &mut Findings,
    ) -> Result<Update> {
        let [_, m, n] = *x.shape() else { panic!("{x:?} is no bank of matrices") };
        let Some(blocks) = self.plan.blocks.as_ref().filter(|_| self.in_tiles(number)) else {
            return Ok(Update {
                tensor: self.polar(x, findings)?,
                factor: self.shape_factor(m, n, out_axis),
            });
        };
        let out = x.device().empty(x.shape(), DType::F32)?;
        for tiles in Lattice::blocks(m, n, blocks.size) {
            let factor = self.tile_factor(blocks, &tiles, [m, n], out_axis);
            let update = self.polar(&tiles.gather(x)?, findings)?;
            if tiles.is_whole() {
                return Ok(Update { tensor: update, factor });
            }
            tiles.scatter(&update, &out, factor)?;
        }
        Ok(Update { tensor: out, factor: 1.0 })
    }

    fn polar(&self, x: &Tensor, findings: &mut Findings) -> Result<Tensor> {
        let (factor, deficient) = self.ortho.counted(x)?;
        findings.factor(&factor, deficient)?;
        Ok(factor)
    }
}

/// So many cubic Newton-Schulz steps on these members of `x [K, m, n]`, in place, each from norm 1.
fn reorthogonalize(x: &Tensor, members: &[usize], steps: usize) -> Result<()> {
    let [_, m, n] = *x.shape() else { panic!("{x:?} is no bank of matrices") };
    let chosen = x.device().empty(&[members.len(), m, n], DType::F32)?;
    for (slot, &member) in members.iter().enumerate() {
        x.slot(member).cast_into(&chosen.slot(slot))?;
    }
    let ortho = Ortho { method: Method::NewtonSchulz(vec![CUBIC; steps]), dtype: DType::F32 };
    let chosen = ortho.apply(&chosen)?;
    for (slot, &member) in members.iter().enumerate() {
        chosen.slot(slot).cast_into(&x.slot(member))?;
    }
    Ok(())
}
