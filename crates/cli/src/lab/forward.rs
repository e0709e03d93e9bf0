//! `muon lab forward`: logits, loss and gradients of a model folder for given tokens, to hold against another
//! framework.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use models::{Config, Model};
use safetensors::{Dtype, SafeTensors};
use tensor::tape::Tape;
use tensor::{Device, Precision, Tokens};

use super::tensors::{self, Tensors};
use crate::error::BadFile;
use crate::output::Page;
use crate::store_args::number;

/// Flags of `lab forward`.
#[derive(Debug, Args)]
pub struct ForwardArgs {
    /// A folder with config.json and safetensors weights
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// A safetensors file with `input_ids` [B, T], int32 or int64
    #[arg(long, value_name = "FILE")]
    tokens: PathBuf,
    /// Where to write `logits` [B, T, V], `loss` [1] (mean over positions 0..T-2) and gradients
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Also write `grad.<tensor name>` of the loss for every weight
    #[arg(long)]
    grads: bool,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
    /// f32 or mixed
    #[arg(long, default_value = "f32", value_parser = |text: &str| text.parse::<Precision>())]
    precision: Precision,
}

/// Computes and writes; nothing is written unless everything succeeded.
pub fn run(args: &ForwardArgs) -> anyhow::Result<()> {
    tensors::check_out(&args.out)?;
    let (ids, [batch, len]) = read_ids(&args.tokens)?;
    let config = Config::load(&args.model)?;
    let vocab = config.vocab_size();
    let device = Device::parse(&args.device)?;
    let model = Model::new(config, &device, args.precision, len)?;
    model.load(&args.model)?;
    let targets: Vec<i32> =
        (0..ids.len()).map(|i| if (i + 1) % len == 0 { -1 } else { ids[i + 1] }).collect();
    let tokens = Arc::new(Tokens::new(&device, &ids, batch, len)?);
    let targets = Tokens::new(&device, &targets, batch, len)?;

    let mut out = Tensors::new();
    let mut tape = Tape::without_gradients(&device, args.precision);
    let logits = model.logits(&mut tape, &tokens)?;
    out.insert("logits".into(), (vec![batch, len, vocab], logits.to_vec()?));
    drop(logits);
    let mut tape = if args.grads { Tape::new(&device, args.precision) } else { tape };
    model.params().begin_step();
    let loss = model.loss(&mut tape, &tokens, &targets)?.mean;
    let value = loss.value.to_vec()?;
    let mut page = Page::default();
    page.add("loss", number(value[0].into()), &format!("loss {}", value[0]))?;
    out.insert("loss".into(), (vec![1], value));
    if args.grads {
        let seed = device.zeros(&[1], tensor::DType::F32)?;
        tape.backward(&loss, seed)?;
        model.params().finish_grads()?;
        for (i, spec) in model.params().specs().iter().enumerate() {
            let grad = model.params().get(i).grad.to_vec()?;
            out.insert(format!("grad.{}", spec.name), (spec.shape.clone(), grad));
        }
    }
    tensors::write(&args.out, &out)?;
    page.end()
}

fn read_ids(path: &Path) -> anyhow::Result<(Vec<i32>, [usize; 2])> {
    let fail = |reason: String| BadFile { path: path.to_owned(), reason };
    let bytes = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|error| fail(format!("not a whole safetensors file: {error}")))?;
    let ids = file.tensor("input_ids").map_err(|_| fail("no tensor `input_ids`".into()))?;
    let &[batch, len] = ids.shape() else {
        return Err(fail(format!("`input_ids` has shape {:?}; expected [B, T]", ids.shape())).into());
    };
    let values: Option<Vec<i32>> = match ids.dtype() {
        Dtype::I32 => ids.data().as_chunks().0.iter().map(|&b| Some(i32::from_le_bytes(b))).collect(),
        Dtype::I64 => {
            ids.data().as_chunks().0.iter().map(|&b| i32::try_from(i64::from_le_bytes(b)).ok()).collect()
        }
        other => return Err(fail(format!("`input_ids` is {other:?}; expected I32 or I64")).into()),
    };
    let values = values.ok_or_else(|| fail("`input_ids` holds a value beyond 32 bits".into()))?;
    if values.is_empty() {
        return Err(fail(format!("`input_ids` {:?} holds no token", ids.shape())).into());
    }
    Ok((values, [batch, len]))
}
