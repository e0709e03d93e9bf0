//! NaN and infinity in a gradient at some step: nothing moves, and what follows is what it would have been. On the CPU, and
//! on a GPU where there is one.

use std::collections::BTreeMap;
use std::io::Write;

use data::Batch;
use models::{Model, presets};
use optim::{Common, Error, Optimizer, Rates, Value, Watch};
use tensor::cuda::Gpu;
use tensor::random::Stream;
use tensor::{Device, Precision};
use train::{Ready, Trainer};

type Failure = Box<dyn std::error::Error>;

const STEPS: u64 = 5;
const RATES: Rates = Rates { matrices: 0.01, rest: 0.001 };

fn trainer(device: &Device) -> Result<Trainer, Failure> {
    let config = presets::find("granite-nano")?.config();
    let precision = if device.is_cuda() { Precision::Mixed } else { Precision::F32 };
    let model = Model::new(config, device, precision, 32)?;
    model.initialize(1)?;
    let keys = BTreeMap::from([("ortho".to_owned(), Value::Word("gram".to_owned()))]);
    let optimizer =
        Optimizer::new("muon", &keys, &Common { clip: 1.0, ..Common::default() }, model.params())?;
    Ok(Trainer::new(model, optimizer))
}

fn batch(device: &Device, step: u64) -> Ready {
    let stream = Stream::new(3, step);
    let ids = |from: u64| (0..64).map(|i| (stream.uniform(from + i) * 256.0) as i32).collect();
    Ready::new(device, &Batch { rows: 2, seq_len: 32, inputs: ids(0), targets: ids(1 << 40) })
}

/// All weights and the whole state, as bits, and the number of steps.
fn standing(trainer: &Trainer) -> Result<Vec<u64>, Failure> {
    let params = trainer.model().params();
    let mut bits = vec![trainer.optimizer().steps()];
    let weights = (0..params.specs().len()).map(|i| params.record(i));
    for tensor in weights.chain(trainer.optimizer().state(params).into_iter().map(|(_, tensor)| tensor)) {
        bits.extend(tensor.to_vec()?.iter().map(|x| u64::from(x.to_bits())));
    }
    Ok(bits)
}

/// Puts `value` into the gradient of one weight of bank `at`; gives the weight's name.
fn poison(trainer: &Trainer, at: usize, value: f32) -> Result<String, Failure> {
    let params = trainer.model().params();
    let bank = &params.banks()[at];
    let slot = bank.members.len() - 1;
    let grad = bank.grad.slot(slot);
    let mut values = grad.to_vec()?;
    let last = values.len() - 1;
    values[last] = value;
    grad.copy_from_slice(&values)?;
    Ok(params.specs()[bank.members[slot]].name.clone())
}

fn holds_on(device: &Device) -> Result<(), Failure> {
    let mut whole = trainer(device)?;
    let mut losses = Vec::new();
    for step in 1..=STEPS {
        losses.push(whole.gradient(&batch(device, step))?.to_bits());
        whole.apply(RATES, Watch::Cheap, || ())?;
    }
    let mut hurt = trainer(device)?;
    let banks = hurt.model().params().banks().len();
    for step in 1..=STEPS {
        // Before graphs are recorded, when they are, and when they run.
        for (at, value) in (0..banks).zip([f32::NAN, f32::INFINITY, f32::NEG_INFINITY].into_iter().cycle()) {
            let loss = hurt.gradient(&batch(device, step))?;
            assert!(loss.is_finite(), "the loss shows nothing");
            let (name, before) = (poison(&hurt, at, value)?, standing(&hurt)?);
            match hurt.apply(RATES, Watch::Cheap, || ()) {
                Err(train::Error::Optimizer(Error::NotFinite { weight })) => assert_eq!(weight, name),
                other => {
                    panic!("{value} in {name} at step {step}: {:?}", other.map(|report| report.grad_norm))
                }
            }
            assert!(standing(&hurt)? == before, "{value} in {name} at step {step} moved something");
        }
        assert_eq!(hurt.gradient(&batch(device, step))?.to_bits(), losses[step as usize - 1]);
        hurt.apply(RATES, Watch::Cheap, || ())?;
    }
    assert!(standing(&hurt)? == standing(&whole)?);
    Ok(())
}

#[test]
fn a_gradient_that_is_not_finite_moves_nothing() -> Result<(), Failure> {
    holds_on(&Device::Cpu)
}

#[test]
fn on_a_gpu_a_gradient_that_is_not_finite_moves_nothing() -> Result<(), Failure> {
    if Gpu::count() == 0 {
        // Past the test harness, which hides what passing tests print.
        let line = b"SKIPPED on_a_gpu_a_gradient_that_is_not_finite_moves_nothing: no GPU\n";
        return Ok(std::io::stderr().write_all(line)?);
    }
    holds_on(&Device::parse("cuda")?)
}
