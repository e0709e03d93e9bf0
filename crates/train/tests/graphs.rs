//! Steps launched as CUDA graphs against steps launched piece by piece: the same bits. Skipped, loudly, where there is no
//! GPU.

use std::collections::BTreeMap;
use std::io::Write;

use data::Batch;
use models::{Model, presets};
use optim::{Common, Optimizer, Rates, Rounding, StateType, Value, Watch};
use tensor::cuda::Gpu;
use tensor::random::Stream;
use tensor::{Device, Precision};
use train::{Ready, Trainer};

fn batch(rows: usize, seq_len: usize, step: u64) -> Batch {
    let stream = Stream::new(3, step);
    let ids =
        |from: u64| (0..rows * seq_len).map(|i| (stream.uniform(from + i as u64) * 256.0) as i32).collect();
    let mut targets: Vec<i32> = ids(1 << 40);
    // Another number of unmasked positions in each step.
    targets[..step as usize].fill(data::MASKED);
    Batch { rows, seq_len, inputs: ids(0), targets }
}

/// Losses of some steps, among them one of another shape, and of evaluations, and all weights afterwards, as bits.
fn trained(
    device: &Device,
    precision: Precision,
    (rounding, state): (Rounding, StateType),
    graphs: bool,
) -> Result<Vec<u64>, Box<dyn std::error::Error>> {
    let config = presets::find("granite-nano")?.config();
    let model = Model::new(config, device, precision, 64)?;
    model.initialize(1)?;
    let keys = BTreeMap::from([("ortho".to_owned(), Value::Word("gram".to_owned()))]);
    let common = Common { clip: 1.0, rounding, state, ..Common::default() };
    let optimizer = Optimizer::new("muon", &keys, &common, model.params())?;
    let mut trainer = Trainer::new(model, optimizer).with_graphs(graphs);
    let mut bits = Vec::new();
    for step in 0..8 {
        let rows = if step == 5 { 3 } else { 4 };
        bits.push(trainer.gradient(&Ready::new(device, &batch(rows, 64, step)))?.to_bits());
        let rate = 0.01 / (step + 1) as f32;
        let rates = Rates { matrices: rate, rest: 0.1 * rate };
        let watch = if step == 6 { Watch::Full } else { Watch::Cheap };
        let report = trainer.apply(rates, watch, || ())?;
        bits.push(report.grad_norm.to_bits());
        bits.extend(report.values.iter().map(|(_, value)| value.to_bits()));
        bits.push(trainer.evaluate(&batch(2, 64, 10 + step))?.0.to_bits());
    }
    assert_eq!(trainer.graph_nodes() > 0, graphs && device.is_cuda());
    let params = trainer.model().params();
    for i in 0..params.specs().len() {
        bits.extend(params.weight(i)?.iter().map(|x| u64::from(x.to_bits())));
    }
    Ok(bits)
}

#[test]
fn on_a_gpu_graphs_give_the_bits_of_steps_launched_piece_by_piece() -> Result<(), Box<dyn std::error::Error>>
{
    if Gpu::count() == 0 {
        // Past the test harness, which hides what passing tests print.
        let line = b"SKIPPED on_a_gpu_graphs_give_the_bits_of_steps_launched_piece_by_piece: no GPU\n";
        return Ok(std::io::stderr().write_all(line)?);
    }
    let device = Device::parse("cuda")?;
    for (precision, rounding) in [
        (Precision::Mixed, (Rounding::Nearest, StateType::F32)),
        (Precision::Bf16, (Rounding::Nearest, StateType::F32)),
        (Precision::Bf16, (Rounding::Stochastic, StateType::F32)),
        (Precision::Bf16, (Rounding::Stochastic, StateType::Bf16)),
    ] {
        let [as_graphs, apart] = [true, false].map(|graphs| trained(&device, precision, rounding, graphs));
        assert!(as_graphs? == apart?, "{precision} {rounding:?}");
    }
    Ok(())
}

/// The same steps where graphs change nothing: what the test above relies on repeats.
#[test]
fn on_the_cpu_the_same_steps_give_the_same_bits() -> Result<(), Box<dyn std::error::Error>> {
    let rounding = (Rounding::Nearest, StateType::Bf16);
    let [one, other] = [true, false].map(|graphs| trained(&Device::Cpu, Precision::F32, rounding, graphs));
    assert!(one? == other?);
    Ok(())
}
