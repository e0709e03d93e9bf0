//! `muon lab orthogonalize`: polar factors of the matrices in a file, by any method, with what tells how good they are.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use optim::ortho::{self, Method, Ortho, measure};
use tensor::{DType, Device, Tensor};

use super::tensors;
use crate::error::{BadFile, EXIT_CODES, Usage};
use crate::output::Page;
use crate::progress::Work;

/// Flags of `lab orthogonalize`.
#[derive(Debug, Args)]
pub struct OrthogonalizeArgs {
    /// A safetensors file; every tensor with two axes [m, n] or three [L, m, n] (a bank of L matrices) is taken, in
    /// f32, bf16 or f16
    #[arg(long = "in", value_name = "FILE")]
    input: PathBuf,
    /// How: polar, svd and svd-f64 are exact, the others take a fixed number of steps
    #[arg(long, value_name = "METHOD", value_parser = clap::builder::PossibleValuesParser::new(Method::NAMES))]
    method: String,
    /// Where to write the factors under their names, f32
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// For newton-schulz and gram: jordan, you, convergent, polar-express, or "a,b,c; a,b,c"
    #[arg(
        long,
        value_name = "SET",
        default_value = "",
        allow_hyphen_values = true,
        hide_default_value = true
    )]
    coefficients: String,
    /// Steps of the methods that take a fixed number; 0: the method's own
    #[arg(long, value_name = "N", default_value_t = 0)]
    steps: u16,
    /// Arithmetic of the methods with a fixed number of steps: f32 or bf16
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = ["f32", "bf16"])]
    dtype: String,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
}

/// What `--help` says of the table, and the exit codes.
pub fn after_help() -> String {
    format!("{COLUMNS}\n\n{EXIT_CODES}")
}

const COLUMNS: &str = "\
Columns, for a wide matrix X and its factor Y: R = Y Y^T, H = Y X^T (tall: Y^T Y, Y^T X), r the
smaller side, |.| the Frobenius norm; each at its worst over a bank:
  rank                 exact methods only: trace of R, rounded
  orthogonality        |R - I| / sqrt(r): 0 for orthonormal rows (tall: columns)
  on the rank          exact methods only: |R R - R| / sqrt(rank): 0 also where rank is missing
  asymmetry            |H - H^T| / |H|: 0 for the polar factor, more where Y turns X
  smallest eigenvalue  of (H + H^T) / 2, over |H|: below 0 where Y reverses a direction of X
  residual             |X - X Y^T Y| / |X| (tall: Y Y^T X): what of X is outside the span of Y
  ms                   time of the factors, all matrices of a bank together";

/// Prints a row for every matrix, the worst one of each bank; nothing is written unless everything succeeded.
pub fn run(args: &OrthogonalizeArgs) -> anyhow::Result<()> {
    let dtype = if args.dtype == "bf16" { DType::BF16 } else { DType::F32 };
    let exact = matches!(args.method.as_str(), "polar" | "svd" | "svd-f64");
    if exact && args.steps > 0 {
        return Err(Usage(format!(
            "--steps {}: {} takes the steps it needs; leave --steps out or choose another --method",
            args.steps, args.method
        ))
        .into());
    }
    let ortho = Ortho::parse(&args.method, &args.coefficients, args.steps.into(), dtype)?;
    tensors::check_out(&args.out)?;
    let device = Device::parse(&args.device)?;
    let fail = |reason: String| BadFile { path: args.input.clone(), reason };
    let mut given =
        tensors::read(&args.input, |_, shape| matches!(shape.len(), 2 | 3) && !shape.contains(&0))?;
    if given.is_empty() {
        return Err(fail("no tensor with two or three axes and an entry".into()).into());
    }
    let head = [
        "tensor",
        "shape",
        "rank",
        "orthogonality",
        "on the rank",
        "asymmetry",
        "smallest eigenvalue",
        "residual",
        "ms",
    ];
    let mut rows = vec![head.map(String::from)];
    let mut progress = Work::new("orthogonalising", given.len());
    for (name, (shape, values)) in &mut given {
        let bank = if shape.len() == 2 { [&[1], &shape[..]].concat() } else { shape.clone() };
        let x = device.from_slice(values, &bank)?;
        ortho::check_finite(&x).map_err(|error| fail(format!("`{name}`: {error}")))?;
        device.synchronize()?;
        let start = Instant::now();
        let y = ortho.apply(&x)?;
        device.synchronize()?;
        let seconds = start.elapsed().as_secs_f64();
        let y = y.cast(DType::F32)?;
        let told = worst(&x, &y)?;
        rows.push([
            name.clone(),
            shape.iter().map(usize::to_string).collect::<Vec<_>>().join(" x "),
            if exact { told.rank.to_string() } else { String::new() },
            format!("{:.2e}", told.orthogonality),
            if exact { format!("{:.2e}", told.projector) } else { String::new() },
            format!("{:.2e}", told.asymmetry),
            format!("{:.2e}", told.positivity),
            format!("{:.2e}", told.residual),
            format!("{:.2}", 1e3 * seconds),
        ]);
        *values = y.to_vec()?;
        progress.one_more();
    }
    drop(progress);
    let mut page = Page::default();
    page.table("tensors", &rows)?;
    tensors::write(&args.out, &given)?;
    page.end()
}

/// Each figure at its worst over the members of a bank.
fn worst(x: &Tensor, y: &Tensor) -> anyhow::Result<measure::Quality> {
    let mut all = measure::quality(&x.slot(0), &y.slot(0))?;
    for i in 1..x.shape()[0] {
        let one = measure::quality(&x.slot(i), &y.slot(i))?;
        all = measure::Quality {
            orthogonality: all.orthogonality.max(one.orthogonality),
            rank: all.rank.min(one.rank),
            projector: all.projector.max(one.projector),
            asymmetry: all.asymmetry.max(one.asymmetry),
            positivity: all.positivity.min(one.positivity),
            residual: all.residual.max(one.residual),
        };
    }
    Ok(all)
}
