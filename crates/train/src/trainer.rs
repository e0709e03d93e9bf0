//! One training step: forward, backward, optimizer; and evaluation.

use std::sync::Arc;

use data::Batch;
use models::Model;
use optim::{Optimizer, Rates, Report, Watch};
use tensor::params::Params;
use tensor::tape::{Kernels, Tape};
use tensor::{Device, Precision, Tokens};

use crate::error::Result;

/// A model with its optimizer.
pub struct Trainer {
    model: Model,
    optimizer: Optimizer,
    kernels: Kernels,
}

impl Trainer {
    /// Joins a model and the optimizer made for its weights.
    pub fn new(model: Model, optimizer: Optimizer) -> Self {
        Trainer { model, optimizer, kernels: Kernels::default() }
    }

    /// The same with other kernels.
    #[must_use]
    pub fn with_kernels(self, kernels: Kernels) -> Self {
        Trainer { kernels, ..self }
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The optimizer.
    pub fn optimizer(&self) -> &Optimizer {
        &self.optimizer
    }

    /// Forward and backward pass: leaves the gradients in the model's banks. Waits for nothing; the loss is still
    /// on the device.
    pub fn forward_backward(&self, batch: &Batch) -> Result<tensor::Tensor> {
        let (device, precision) = (self.device(), self.precision());
        let (ids, targets) = tokens(device, batch)?;
        let mut tape = Tape::new(device, precision).with_kernels(self.kernels);
        self.model.params().begin_step();
        let loss = self.model.loss(&mut tape, &ids, &targets)?.mean;
        let seed = device.zeros(&[1], tensor::DType::F32)?;
        tape.backward(&loss, seed)?;
        self.model.params().finish_grads()?;
        Ok(loss.value)
    }

    /// Forward and backward pass; the mean loss of the batch in nats per token, read back.
    pub fn gradient(&self, batch: &Batch) -> Result<f64> {
        Ok(f64::from(self.forward_backward(batch)?.to_vec()?[0]))
    }

    /// Moves the weights by the gradients in the banks. A gradient that is not finite is an error and moves nothing.
    pub fn apply(&mut self, rates: Rates, watch: Watch) -> Result<Report> {
        Ok(self.optimizer.step(self.model.params(), rates, watch)?)
    }

    /// Bytes of the optimizer's state.
    pub fn state_bytes(&self) -> usize {
        let state = self.optimizer.state(self.params());
        state.iter().map(|(_, tensor)| tensor.numel() * tensor.dtype().size()).sum()
    }

    /// Sum of the losses over a batch and the number of positions it is the sum of.
    pub fn evaluate(&self, batch: &Batch) -> Result<(f64, usize)> {
        let (ids, targets) = tokens(self.device(), batch)?;
        let mut tape = Tape::without_gradients(self.device(), self.precision()).with_kernels(self.kernels);
        let loss = self.model.loss(&mut tape, &ids, &targets)?;
        let mean = f64::from(loss.mean.value.to_vec()?[0]);
        Ok((mean * loss.positions as f64, loss.positions))
    }

    fn params(&self) -> &Params {
        self.model.params()
    }

    fn device(&self) -> &Device {
        self.params().device()
    }

    fn precision(&self) -> Precision {
        self.params().precision()
    }
}

fn tokens(device: &Device, batch: &Batch) -> Result<(Arc<Tokens>, Tokens)> {
    let ids = Tokens::new(device, &batch.inputs, batch.rows, batch.seq_len)?;
    let targets = Tokens::new(device, &batch.targets, batch.rows, batch.seq_len)?;
    Ok((Arc::new(ids), targets))
}
