//! One training step: forward, backward, optimizer; and evaluation. On a GPU a step is launched as CUDA graphs, once a
//! few steps have compiled the kernels and filled the memory pool.

use std::sync::Arc;

use data::Batch;
use models::Model;
use optim::{Findings, Optimizer, Rates, Report, Watch};
use tensor::cuda::Graph;
use tensor::params::Params;
use tensor::tape::{Kernels, Tape};
use tensor::{Arranged, Device, Precision, Tensor, Tokens};

use crate::error::Result;
use crate::recipe::{self, Recompute};

/// Steps that are launched piece by piece before a graph is recorded.
const EAGER_STEPS: u32 = 2;

/// A model with its optimizer.
pub struct Trainer {
    model: Model,
    optimizer: Optimizer,
    kernels: Kernels,
    recompute: bool,
    /// Whether steps on a GPU become graphs.
    graphs: bool,
    pass: Option<Pass>,
    update: Option<Update>,
    /// Steps begun so far, as long as none is recorded.
    eager: u32,
}

/// A batch made ready for a device: host work that can be done while the device is busy.
pub struct Ready {
    rows: usize,
    seq_len: usize,
    inputs: Arranged,
    targets: Arranged,
    /// Positions that count in the loss.
    pub positions: usize,
}

/// A forward and backward pass as a graph: what it reads and what it gives.
struct Pass {
    ids: Arc<Tokens>,
    targets: Tokens,
    graph: Graph,
    loss: Tensor,
}

/// The optimizer's part as a graph.
struct Update {
    watch: Watch,
    graph: Graph,
    findings: Findings,
}

impl Trainer {
    /// Joins a model and the optimizer made for its weights.
    pub fn new(model: Model, optimizer: Optimizer) -> Self {
        let kernels = Kernels::default();
        let (recompute, graphs, eager) = (false, true, 0);
        Trainer { model, optimizer, kernels, recompute, graphs, pass: None, update: None, eager }
    }

    /// The same, stepping as `[train]` of a recipe says.
    #[must_use]
    pub fn as_told(self, plan: &recipe::Train) -> Self {
        self.with_kernels(plan.kernels.into())
            .with_graphs(plan.graphs)
            .with_recompute(plan.recompute == Recompute::Layers)
    }

    /// The same with other kernels.
    #[must_use]
    pub fn with_kernels(self, kernels: Kernels) -> Self {
        Trainer { kernels, pass: None, ..self }
    }

    /// The same, computing each layer again in the backward pass instead of keeping what it computed.
    #[must_use]
    pub fn with_recompute(self, recompute: bool) -> Self {
        Trainer { recompute, pass: None, ..self }
    }

    /// The same with steps on a GPU as graphs, as they are unless told otherwise, or not. The results are the same
    /// bits.
    #[must_use]
    pub fn with_graphs(self, graphs: bool) -> Self {
        Trainer { graphs, pass: None, update: None, eager: 0, ..self }
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The optimizer.
    pub fn optimizer(&self) -> &Optimizer {
        &self.optimizer
    }

    /// Forward and backward pass: leaves the gradients in the model's banks. Waits for nothing; the loss is still on the
    /// device, where the next pass may overwrite it.
    pub fn forward_backward(&mut self, batch: &Ready) -> Result<Tensor> {
        let Device::Cuda(gpu) = self.device().clone() else { return self.piece_by_piece(batch) };
        let records = self.records();
        match &mut self.pass {
            Some(pass) if pass.fits(batch) => {
                let vocab = self.model.config().vocab_size();
                pass.put(batch, vocab)?;
                pass.graph.launch()?;
                Ok(pass.loss.clone())
            }
            None if records => {
                let (ids, targets) = batch.tokens(self.device())?;
                let (graph, loss) = gpu.capture(|| self.launch(&ids, &targets))?;
                graph.launch()?;
                self.pass = Some(Pass { ids, targets, graph, loss: loss.clone() });
                Ok(loss)
            }
            _ => {
                self.eager += 1;
                self.piece_by_piece(batch)
            }
        }
    }

    /// Forward and backward pass; the mean loss of the batch in nats per token, read back.
    pub fn gradient(&mut self, batch: &Ready) -> Result<f64> {
        Ok(f64::from(self.forward_backward(batch)?.to_vec()?[0]))
    }

    /// Moves the weights by the gradients in the banks. A gradient that is not finite is an error and moves nothing.
    /// `meanwhile` is done by the host while a GPU is at work.
    pub fn apply(&mut self, rates: Rates, watch: Watch, meanwhile: impl FnOnce()) -> Result<Report> {
        let norm = self.optimizer.guard(self.model.params())?;
        self.optimizer.prepare(rates, norm)?;
        let records = self.records() && self.optimizer.fixed(watch);
        let (optimizer, params) = (&mut self.optimizer, self.model.params());
        let eager;
        let findings = match (&mut self.update, params.device()) {
            (Some(update), _) if update.watch == watch => {
                update.graph.launch()?;
                &update.findings
            }
            (none @ None, Device::Cuda(gpu)) if records => {
                let (graph, findings) = gpu.capture(|| optimizer.update(params, watch))?;
                graph.launch()?;
                &none.insert(Update { watch, graph, findings }).findings
            }
            _ => {
                eager = optimizer.update(params, watch)?;
                &eager
            }
        };
        meanwhile();
        Ok(optimizer.finish(findings, norm)?)
    }

    /// Bytes of the optimizer's state.
    pub fn state_bytes(&self) -> usize {
        let state = self.optimizer.state(self.params());
        state.iter().map(|(_, tensor)| tensor.numel() * tensor.dtype().size()).sum()
    }

    /// Pieces of work in the graphs of a step.
    pub fn graph_nodes(&self) -> usize {
        let graphs = self.pass.iter().map(|pass| &pass.graph);
        graphs.chain(self.update.iter().map(|update| &update.graph)).map(Graph::nodes).sum()
    }

    /// Sum of the losses over a batch and the number of positions it is the sum of.
    pub fn evaluate(&self, batch: &Batch) -> Result<(f64, usize)> {
        let (ids, targets) = Ready::new(self.device(), batch).tokens(self.device())?;
        let mut tape = Tape::without_gradients(self.device(), self.precision()).with_kernels(self.kernels);
        let loss = self.model.loss(&mut tape, &ids, &targets)?;
        let mean = f64::from(loss.mean.value.to_vec()?[0]);
        Ok((mean * loss.positions as f64, loss.positions))
    }

    /// Whether a graph is to be recorded now.
    fn records(&self) -> bool {
        self.graphs && self.eager >= EAGER_STEPS
    }

    fn piece_by_piece(&self, batch: &Ready) -> Result<Tensor> {
        let (ids, targets) = batch.tokens(self.device())?;
        self.launch(&ids, &targets)
    }

    fn launch(&self, ids: &Arc<Tokens>, targets: &Tokens) -> Result<Tensor> {
        let device = self.device();
        let mut tape =
            Tape::new(device, self.precision()).with_kernels(self.kernels).with_recompute(self.recompute);
        self.params().begin_step();
        tape.lend(self.params().unwritten());
        let loss = self.model.loss(&mut tape, ids, targets)?.mean;
        let seed = device.zeros(&[1], tensor::DType::F32)?;
        tape.backward(&loss, seed)?;
        self.params().finish_grads()?;
        Ok(loss.value)
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

impl Pass {
    fn fits(&self, batch: &Ready) -> bool {
        (self.targets.batch, self.targets.len) == (batch.rows, batch.seq_len)
    }

    /// Puts a batch where the graph reads it.
    fn put(&mut self, batch: &Ready, vocab: usize) -> Result<()> {
        let ids = Arc::get_mut(&mut self.ids).expect("the tape that shared them is gone");
        ids.set(&batch.inputs)?;
        ids.check(vocab, false)?;
        self.targets.set(&batch.targets)?;
        Ok(self.targets.check(vocab, true)?)
    }
}

impl Ready {
    /// Makes a batch ready.
    pub fn new(device: &Device, batch: &Batch) -> Self {
        let [inputs, targets] = [&batch.inputs, &batch.targets].map(|ids| Arranged::new(device, ids));
        let positions = batch.targets.iter().filter(|&&target| target != data::MASKED).count();
        Ready { rows: batch.rows, seq_len: batch.seq_len, inputs, targets, positions }
    }

    fn tokens(&self, device: &Device) -> Result<(Arc<Tokens>, Tokens)> {
        let (rows, len) = (self.rows, self.seq_len);
        let ids = Tokens::arranged(device, &self.inputs, rows, len)?;
        Ok((Arc::new(ids), Tokens::arranged(device, &self.targets, rows, len)?))
    }
}
