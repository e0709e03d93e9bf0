//! Error and cost of the estimated ranks and of noise.
//!
//! `cargo run --release -p optim --example spectrum -- cpu MOMENTA.safetensors` prints, for every matrix of the file,
//! the exact effective rank and how far both estimates are off. `... -- cuda` times everything for the 136 matrices of
//! granite-4.0-h-350m; `... -- cpu` does so for one matrix.

use std::path::Path;
use std::time::Instant;

use optim::noise::{self, Kind};
use optim::ortho::Ortho;
use optim::spectrum;
use safetensors::{Dtype, SafeTensors};
use tensor::random::{Stream, normal};
use tensor::{DType, Device, Tensor};

type Failure = Box<dyn std::error::Error>;

/// Members, rows and columns of the banks of granite-4.0-h-350m.
const GRANITE: [[usize; 3]; 6] =
    [[32, 4096, 768], [32, 768, 2048], [28, 3376, 768], [28, 768, 1536], [8, 768, 768], [8, 256, 768]];
const STEPS: [usize; 4] = [16, 24, 32, 48];

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let device = Device::parse(args.first().map_or("auto", String::as_str))?;
    match args.get(1) {
        Some(file) => errors(&device, Path::new(file)),
        None => times(&device),
    }
}

fn errors(device: &Device, file: &Path) -> Result<(), Failure> {
    let bytes = std::fs::read(file)?;
    let head = STEPS.map(|k| format!("{:>8}", format!("k={k}"))).concat();
    println!("{:48} {:>12} {:>7} {:>6} {:>8}{head}", "matrix", "shape", "erank", "/ r", "eigen");
    let mut worst = [0f64; 1 + STEPS.len()];
    for (name, view) in SafeTensors::deserialize(&bytes)?.tensors() {
        let &[m, n] = view.shape() else { continue };
        if view.dtype() != Dtype::F32 || m.min(n) < 2 {
            continue;
        }
        let values: Vec<f32> = view.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        let x = device.from_slice(&values, &[1, m, n])?;
        let exact = spectrum::exact(&Device::Cpu.from_slice(&values, &[1, m, n])?)?[0].erank;
        let mut found = vec![spectrum::by_eigenvalues(&x)?[0].erank];
        for steps in STEPS {
            found.push(spectrum::by_quadrature(&x, steps)?[0].erank);
        }
        let off: Vec<f64> = found.iter().map(|erank| 100.0 * (erank / exact - 1.0)).collect();
        worst.iter_mut().zip(&off).for_each(|(worst, off)| *worst = worst.max(off.abs()));
        let cells = off.iter().map(|off| format!("{off:>7.2}%")).collect::<Vec<_>>().concat();
        println!(
            "{name:48} {:>12} {exact:>7.1} {:>6.3} {cells}",
            format!("{m}x{n}"),
            exact / m.min(n) as f64
        );
    }
    println!("largest error: {}", worst.map(|worst| format!("{worst:.2}%")).join(" "));
    Ok(())
}

fn times(device: &Device) -> Result<(), Failure> {
    let banks: &[[usize; 3]] = if device.is_cuda() { &GRANITE } else { &[[1, 768, 2048], [1, 2048, 768]] };
    let mut momenta = Vec::new();
    for (i, &[l, m, n]) in banks.iter().enumerate() {
        let streams: Vec<Stream> = (0..l as u64).map(|j| Stream::new(i as u64, j)).collect();
        momenta.push(normal(device, &streams, &[m, n], 1.0)?);
    }
    for bank in &momenta {
        println!("{:?}", bank.shape());
        all(device, std::slice::from_ref(bank))?;
    }
    if momenta.len() > 1 {
        println!("together");
        all(device, &momenta)?;
    }
    Ok(())
}

fn all(device: &Device, banks: &[Tensor]) -> Result<(), Failure> {
    let draw = |kind: Kind, x: &Tensor| {
        let keys: Vec<u64> = (0..x.shape()[0] as u64).collect();
        noise::draw(kind, device, [x.shape()[1], x.shape()[2]], false, 1, 2, &keys)
    };
    let polar = Ortho::parse("polar", "", 0, DType::F32)?;
    time("Gaussian noise", banks, |x| draw(Kind::Gaussian, x))?;
    time("orthogonal noise", banks, |x| draw(Kind::Orthogonal, x))?;
    time("polar", banks, |x| polar.apply(x))?;
    for steps in STEPS {
        time(&format!("quadrature, {steps} steps"), banks, |x| spectrum::by_quadrature(x, steps))?;
    }
    if !device.is_cuda() {
        time("eigenvalues", banks, spectrum::by_eigenvalues)?;
        time("exact", banks, spectrum::exact)?;
    }
    Ok(())
}

fn time<T>(name: &str, banks: &[Tensor], work: impl Fn(&Tensor) -> optim::Result<T>) -> Result<(), Failure> {
    let device = banks[0].device();
    let mut fastest = f64::INFINITY;
    for _ in 0..if device.is_cuda() { 4 } else { 2 } {
        device.synchronize()?;
        let start = Instant::now();
        for bank in banks {
            work(bank)?;
        }
        device.synchronize()?;
        fastest = fastest.min(1e3 * start.elapsed().as_secs_f64());
    }
    println!("  {name:24} {fastest:9.2} ms");
    Ok(())
}
