//! `muon bench step`: how fast a training step is, on random tokens.

use std::time::Instant;

use clap::Args;
use data::Batch;
use models::Model;
use optim::{Common, Optimizer, Rates, Watch};
use report::format;
use tensor::random::Stream;
use tensor::{Device, Precision};
use train::{Trainer, flops};

use super::{median, range_ms};
use crate::output::{columns, print};

/// Flags of `bench step`.
#[derive(Debug, Args)]
pub struct StepArgs {
    /// A preset, or a folder with config.json
    #[arg(long, value_name = "PRESET|DIR", default_value = "granite-nano")]
    model: String,
    /// Sequences in a batch
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Tokens in a sequence
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    seq: u32,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    device: String,
    /// f32 or mixed; unset, mixed on cuda and f32 on the CPU
    #[arg(long)]
    precision: Option<Precision>,
    /// Name of the optimizer
    #[arg(long, default_value = "muon")]
    optimizer: String,
    /// Steps timed, after three to warm up
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
}

/// Times the steps and prints medians.
pub fn run(args: &StepArgs) -> anyhow::Result<()> {
    let (batch, seq) = (args.batch as usize, args.seq as usize);
    let device = Device::parse(&args.device)?;
    let precision =
        args.precision.unwrap_or(if device.is_cuda() { Precision::Mixed } else { Precision::F32 });
    let config = super::config(&args.model)?;
    let work = flops::forward_backward(&config, batch, seq);
    let vocab = config.vocab_size();
    let model = Model::new(config, &device, precision, seq)?;
    model.initialize(0)?;
    let optimizer = Optimizer::new(
        &args.optimizer,
        &std::collections::BTreeMap::new(),
        &Common::default(),
        model.params(),
    )?;
    let mut trainer = Trainer::new(model, optimizer);

    let mut passes = Vec::new();
    let mut wholes = Vec::new();
    device.reset_peak();
    for i in 0..args.steps + 3 {
        let tokens = random(vocab, batch, seq, u64::from(i));
        device.synchronize()?;
        let start = Instant::now();
        trainer.forward_backward(&tokens)?;
        device.synchronize()?;
        let pass = start.elapsed().as_secs_f64();
        trainer.apply(Rates { matrices: 1e-4, rest: 1e-4 }, Watch::Off)?;
        device.synchronize()?;
        if i >= 3 {
            passes.push(pass);
            wholes.push(start.elapsed().as_secs_f64());
        }
    }
    let row = |name: &str, times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        let median = median(times);
        [
            name.to_string(),
            format!("{:.2} ms", 1e3 * median),
            range_ms(times),
            format::short((batch * seq) as f64 / median),
            format!("{:.3}", work / median / 1e12),
        ]
    };
    let head = ["", "median", "range, ms", "tokens/s", "model TFLOP/s"].map(String::from);
    let table = [head, row("forward + backward", &mut passes), row("whole step", &mut wholes)];
    let machine = crate::machine::Found::on(device.clone())?;
    Ok(print(&format!(
        "{} {batch} x {seq} {precision} on {} ({}), {} parameters, optimizer {}, {} steps\n{}\npeak memory {}",
        args.model,
        machine.place.name,
        machine.flag,
        format::count(trainer.model().params().numel() as u64),
        args.optimizer,
        args.steps,
        columns(&table),
        format::bytes(device.peak_bytes() as u64),
    ))?)
}

/// Random tokens, each to be followed by another.
fn random(vocab: usize, rows: usize, seq_len: usize, step: u64) -> Batch {
    let stream = Stream::new(1, step);
    let ids = |offset: u64| {
        (0..rows * seq_len).map(|i| (stream.uniform(offset + i as u64) * vocab as f64) as i32).collect()
    };
    Batch { rows, seq_len, inputs: ids(0), targets: ids(1 << 40) }
}
