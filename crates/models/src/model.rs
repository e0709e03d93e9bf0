//! A model on a device: its weights in banks, and the way from token ids to a loss.

use std::path::Path;
use std::sync::Arc;

use tensor::ops::{self, BatchLayout, Loss};
use tensor::params::{Init, Param, Params};
use tensor::random::Stream;
use tensor::tape::{Tape, Var};
use tensor::{Device, Precision, Tensor, Tokens};

use crate::config::Config;
use crate::error::Result;
use crate::granite::Granite;
use crate::params::{EMBEDDING, HEAD, parameters};
use crate::qwen2::Qwen2;
use crate::stack::Stack;
use crate::weights::Weights;
use crate::{DType, save};

/// A model on a device.
pub struct Model {
    config: Config,
    params: Params,
    stack: Stack,
    embedding: Param,
    head: Param,
}

/// Looks weights up by name.
pub(crate) struct Handles<'a>(pub &'a Params);

impl Handles<'_> {
    /// The handle of a weight that [`parameters`] lists.
    pub fn get(&self, name: &str) -> Param {
        let index = self.0.specs().iter().position(|spec| spec.name == name);
        self.0.get(index.unwrap_or_else(|| panic!("{name} is not declared"))).clone()
    }
}

impl Model {
    /// Lays the model out on `device` for sequences of up to `max_len` tokens; all weights are zero.
    pub fn new(config: Config, device: &Device, precision: Precision, max_len: usize) -> Result<Self> {
        let params = Params::new(device, precision, parameters(&config))?;
        let handles = Handles(&params);
        let embedding = handles.get(EMBEDDING);
        let head = if config.tied() { embedding.clone() } else { handles.get(HEAD) };
        let stack = match &config {
            Config::Granite(config) => Stack::new(Granite::new(config, &handles, device, max_len)?, max_len),
            Config::Qwen2(config) => Stack::new(Qwen2::new(config, &handles, device, max_len)?, max_len),
        };
        Ok(Model { config, params, stack, embedding, head })
    }

    /// Sets all weights to their initial values; each weight has a random stream of its own.
    pub fn initialize(&self, seed: u64) -> Result<()> {
        for (i, spec) in self.params.specs().iter().enumerate() {
            let mut values = vec![0.0; spec.numel()];
            match spec.init {
                Init::Normal(std) => Stream::new(seed, i as u64).fill_normal(&mut values, std),
                Init::Ones => values.fill(1.0),
                Init::Zeros => {}
                Init::LogRange => {
                    values.iter_mut().enumerate().for_each(|(i, v)| *v = ((i + 1) as f64).ln() as f32);
                }
            }
            self.params.set_weight(i, &values)?;
        }
        Ok(self.params.refresh()?)
    }

    /// Reads all weights from the model folder `dir`.
    pub fn load(&self, dir: &Path) -> Result<()> {
        let weights = Weights::open(dir, self.params.specs())?;
        for (i, spec) in self.params.specs().iter().enumerate() {
            self.params.set_weight(i, &weights.read(&spec.name)?)?;
        }
        Ok(self.params.refresh()?)
    }

    /// Writes the model folder `dir`: config.json and model.safetensors in f32.
    pub fn save(&self, dir: &Path) -> Result<()> {
        save(dir, &self.config, DType::F32, |i| Ok(self.params.weight(i)?))
    }

    /// Its configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Its weights.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Mean next-token cross-entropy of `targets` (-1: ignored) given `ids`, both `[B, T]`.
    pub fn loss(&self, tape: &mut Tape, ids: &Arc<Tokens>, targets: &Tokens) -> Result<Loss> {
        let x = self.hidden(tape, ids)?;
        Ok(ops::linear_cross_entropy(tape, &x, &self.head, targets, self.logit_scale())?)
    }

    /// Logits `[B * T, V]` for `ids [B, T]`, in the tape's element type.
    pub fn logits(&self, tape: &mut Tape, ids: &Arc<Tokens>) -> Result<Tensor> {
        let x = self.hidden(tape, ids)?;
        let logits = tape.device().empty(&[x.value.rows(), self.config.vocab_size()], tensor::DType::F32)?;
        let head = tensor::linalg::Factor::from(&self.head.value).t();
        tensor::linalg::matmul(&logits, false, self.logit_scale(), &x.value, head)?;
        Ok(logits)
    }

    /// The last hidden state after the final norm, `[B * T, H]`.
    fn hidden(&self, tape: &mut Tape, ids: &Arc<Tokens>) -> Result<Var> {
        let layout = BatchLayout { batch: ids.batch, len: ids.len };
        let scale = match &self.config {
            Config::Granite(config) => config.embedding_multiplier as f32,
            Config::Qwen2(_) => 1.0,
        };
        let x = ops::embedding(tape, ids, &self.embedding, scale, self.config.tokens().pad)?;
        self.stack.forward(tape, x, layout)
    }

    fn logit_scale(&self) -> f32 {
        match &self.config {
            Config::Granite(config) => (1.0 / config.logits_scaling) as f32,
            Config::Qwen2(_) => 1.0,
        }
    }
}
