//! `muon bench step`: how fast a training step is, on random tokens, and where its time goes.

use clap::Args;
use data::Batch;
use models::Model;
use optim::{Optimizer, Rates, Watch};
use report::format;
use serde_json::json;
use tensor::random::Stream;
use tensor::tape::Kernels;
use tensor::{DType, Device};
use train::recipe::{self, Diagnostics, Resolved, Sources, model_key};
use train::{Ready, Trainer, flops};

use super::stopwatch::Stopwatch;
use super::{breakdown, median, peer, range_ms};
use crate::args::{key_value, setting};
use crate::error::Usage;
use crate::output::{Page, columns};
use crate::progress::Work;

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
    /// f32, mixed or bf16; unset, mixed on cuda and f32 on the CPU
    #[arg(long)]
    precision: Option<String>,
    /// Name of the optimizer
    #[arg(long, default_value = "muon")]
    optimizer: String,
    /// How the optimizer orthogonalises
    #[arg(long, value_name = "METHOD")]
    ortho: Option<String>,
    /// Set any recipe key, such as train.kernels=plain; may be given many times
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Steps timed, after some to warm up
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// On cuda: the time of every kernel and product, in a table; the first N rows, 0 for all
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "0")]
    detail: Option<usize>,
    /// Time the other ways too: plain kernels, and PyTorch where python3 has it
    #[arg(long)]
    compare: bool,
}

/// Steps before those that are timed.
const WARM_UP: u32 = 5;

/// Times the steps and prints medians.
pub fn run(args: &StepArgs) -> anyhow::Result<()> {
    let device = Device::parse(&args.device)?;
    let resolved = args.resolve()?;
    let bench = Bench { args, device: &device, resolved: &resolved };
    if args.detail.is_some() && !device.is_cuda() {
        return Err(Usage("--detail tells of the kernels of a GPU; use --device cuda".into()).into());
    }
    let mut trainer = bench.trainer(resolved.recipe.train.kernels.into())?;
    let mut times = bench.time(&mut trainer)?;
    let pieces = trainer.graph_nodes();
    let machine = crate::machine::Found::on(device.clone())?;
    let precision = trainer.model().params().precision();
    let parameters = format::count(trainer.model().params().numel() as u64);
    let mut page = Page::default();
    let setup = json!({
        "model": args.model,
        "batch": args.batch,
        "seq": args.seq,
        "precision": precision.to_string(),
        "machine": machine.place.name,
        "device": machine.flag,
        "parameters": trainer.model().params().numel(),
        "optimizer": args.label(),
        "steps": args.steps,
    });
    page.add(
        "setup",
        setup,
        &format!(
            "{} {} x {} {precision} on {} ({}), {parameters} parameters, optimizer {}, {} steps",
            args.model,
            args.batch,
            args.seq,
            machine.place.name,
            machine.flag,
            args.label(),
            args.steps,
        ),
    )?;
    let element = precision.arithmetic(&device).compute();
    let ceiling = breakdown::ceiling(&device, element)?;
    let work = flops::forward_backward(&resolved.config, args.batch as usize, args.seq as usize);
    let head = ["", "median", "range, ms", "tokens/s", "model TFLOP/s", "of the ceiling"].map(String::from);
    let (mut table, mut values) = (vec![head], Vec::new());
    let mut add = |name: &str, times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        let median = median(times);
        values.push(json!({
            "what": name,
            "median_ms": 1e3 * median,
            "least_ms": 1e3 * times[0],
            "most_ms": 1e3 * times[times.len() - 1],
            "tokens_per_s": f64::from(args.batch * args.seq) / median,
            "model_tflops": work / median / 1e12,
            "share_of_ceiling": work / median / ceiling,
        }));
        table.push([
            name.to_string(),
            format!("{:.2} ms", 1e3 * median),
            range_ms(times),
            format::short(f64::from(args.batch * args.seq) / median),
            format!("{:.3}", work / median / 1e12),
            format!("{:.1} %", 100.0 * work / median / ceiling),
        ]);
    };
    add("forward + backward", &mut times.passes);
    add("whole step", &mut times.wholes);
    let mut eager = median(&times.wholes);
    if pieces > 0 {
        trainer = trainer.with_graphs(false);
        let mut apart = bench.time(&mut trainer)?;
        add("launched piece by piece, forward + backward", &mut apart.passes);
        add("launched piece by piece, whole step", &mut apart.wholes);
        eager = median(&apart.wholes);
        // What the optimizer's graph holds is there during a pass too, but not the pass's own.
        times.peaks[0] = apart.peaks[0];
    }
    if args.compare && device.is_cuda() {
        drop(trainer);
        trainer = bench.trainer(Kernels::Plain)?;
        let mut times = bench.time(&mut trainer)?;
        add("plain kernels, forward + backward", &mut times.passes);
        add("plain kernels, whole step", &mut times.wholes);
        drop(trainer);
        trainer = bench.trainer(resolved.recipe.train.kernels.into())?;
        trainer = trainer.with_graphs(false);
    }
    page.add("times", values.into(), &columns(&table))?;
    let (kind, peaks) = (if element == DType::BF16 { "bf16" } else { "f32" }, times.peaks);
    page.add(
        "machine",
        json!({ "ceiling_tflops": ceiling / 1e12, "ceiling_in": kind, "peak_bytes": peaks, "graph_pieces": pieces }),
        &format!(
            "ceiling {:.1} TFLOP/s: one large product in {kind}; peak memory {} forward + backward, {} whole step{}",
            ceiling / 1e12,
            format::bytes(peaks[0]),
            format::bytes(peaks[1]),
            if pieces > 0 { format!("; {pieces} pieces of work in graphs") } else { String::new() },
        ),
    )?;
    if let (Device::Cuda(gpu), Some(rows)) = (&device, args.detail) {
        let step = |batch: &Ready| bench.step(&mut trainer, batch).map(|_| ());
        breakdown::of(gpu, eager, rows, &bench.batch(0), step, &mut page)?;
    }
    if args.compare {
        drop(trainer);
        let told = peer::run(&resolved.config, args.batch, args.seq, &machine.flag)?;
        page.add("pytorch", json!(told), &told)?;
    }
    page.end()
}

impl StepArgs {
    fn resolve(&self) -> anyhow::Result<Resolved> {
        let mut flags = vec![
            setting(model_key(&self.model), &self.model, "--model"),
            setting("optimizer.name", &self.optimizer, "--optimizer"),
            setting("train.batch_size", &self.batch.to_string(), "--batch"),
            setting("data.seq_len", &self.seq.to_string(), "--seq"),
        ];
        flags.extend(self.precision.iter().map(|word| setting("train.precision", word, "--precision")));
        flags.extend(self.ortho.iter().map(|method| setting("optimizer.ortho", method, "--ortho")));
        for text in &self.set {
            let (key, value) = key_value(text)?;
            flags.push(setting(key, value, &format!("--set {key}")));
        }
        Ok(recipe::resolve(&Sources { flags: &flags, ..Sources::default() })?)
    }

    fn label(&self) -> String {
        let more = self.ortho.iter().chain(&self.set);
        more.fold(self.optimizer.clone(), |label, part| label + " " + part)
    }
}

/// Seconds of each step, and bytes.
struct Times {
    passes: Vec<f64>,
    wholes: Vec<f64>,
    /// Most bytes in use: forward and backward pass with the state already there left out, whole step.
    peaks: [u64; 2],
}

struct Bench<'a> {
    args: &'a StepArgs,
    device: &'a Device,
    resolved: &'a Resolved,
}

impl Bench<'_> {
    fn trainer(&self, kernels: Kernels) -> anyhow::Result<Trainer> {
        let recipe = &self.resolved.recipe;
        let precision = recipe.train.precision.on(self.device.is_cuda());
        let model = Model::new(self.resolved.config.clone(), self.device, precision, self.args.seq as usize)?;
        model.initialize(0)?;
        let settings = recipe.optimizer.settings();
        let optimizer = Optimizer::new(&recipe.optimizer.name, &settings, &recipe.common(), model.params())?;
        Ok(Trainer::new(model, optimizer).as_told(&recipe.train).with_kernels(kernels))
    }

    fn time(&self, trainer: &mut Trainer) -> anyhow::Result<Times> {
        let mut times = Times { passes: Vec::new(), wholes: Vec::new(), peaks: [0; 2] };
        let mut progress = Work::new("timing steps", (self.args.steps + WARM_UP) as usize);
        for i in 0..self.args.steps + WARM_UP {
            if i == 1 {
                self.device.reset_peak();
            }
            let [pass, whole] = self.step(trainer, &self.batch(u64::from(i)))?;
            if i >= WARM_UP {
                times.passes.push(pass);
                times.wholes.push(whole);
            }
            progress.one_more();
        }
        times.peaks[1] = self.device.peak_bytes() as u64;
        // The optimizer's state is there all the time; what is asked here is a pass without it.
        self.device.reset_peak();
        trainer.forward_backward(&self.batch(0))?;
        self.device.synchronize()?;
        let state: usize = trainer.state_bytes();
        times.peaks[0] = (self.device.peak_bytes() - state) as u64;
        Ok(times)
    }

    /// Seconds of the forward and backward pass, and of the whole step as training has it: the loss is read, and what the
    /// recipe's diagnostics take in most steps is taken.
    fn step(&self, trainer: &mut Trainer, batch: &Ready) -> anyhow::Result<[f64; 2]> {
        let watch = Stopwatch::start(self.device)?;
        trainer.gradient(batch)?;
        let watch = watch.lap()?;
        let usual = match self.resolved.recipe.train.diagnostics {
            Diagnostics::Off => Watch::Off,
            Diagnostics::Cheap | Diagnostics::Full => Watch::Cheap,
        };
        trainer.apply(Rates { matrices: 1e-4, rest: 1e-4 }, usual, || ())?;
        let seconds = watch.lap()?.stop()?;
        Ok([seconds[0], seconds[1]])
    }

    /// Random tokens, each to be followed by another, made ready as the host does in training while a GPU is busy.
    fn batch(&self, step: u64) -> Ready {
        let (rows, seq_len) = (self.args.batch as usize, self.args.seq as usize);
        let (stream, vocab) = (Stream::new(1, step), self.resolved.config.vocab_size() as f64);
        let ids = |offset: u64| {
            (0..rows * seq_len).map(|i| (stream.uniform(offset + i as u64) * vocab) as i32).collect()
        };
        Ready::new(self.device, &Batch { rows, seq_len, inputs: ids(0), targets: ids(1 << 40) })
    }
}
