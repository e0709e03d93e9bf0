//! `muon plot`: loss curves of runs, in characters, as SVG or as PNG.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use report::{Loss, Series, TextPlot, loss_png, loss_svg, loss_text, of_one, of_several};
use runs::{Metadata, Metrics};
use serde_json::{Value, json};

use crate::error::BadFile;
use crate::output::{charset, colour, json, print, show};
use crate::progress::note;
use crate::store_args::{StoreArgs, usage};

/// Size of the plot where there is no terminal: characters across and lines.
const SIZE: (usize, usize) = (100, 30);
/// Lines of a terminal that title, axis, prompt and one line of legend take.
const BESIDE: usize = 6;

/// Flags of `plot`.
#[derive(Debug, Args)]
pub struct PlotArgs {
    /// Names of runs, the beginnings of names, or `last`
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<String>,
    #[command(flatten)]
    store: StoreArgs,
    /// Write a file, SVG or PNG by its ending; may be given many times
    #[arg(long, value_name = "FILE", visible_aliases = ["svg", "png"])]
    out: Vec<PathBuf>,
    /// Draw in characters; the default without --out
    #[arg(long)]
    terminal: bool,
    /// Of several runs, compare the validation losses instead of the training losses
    #[arg(long)]
    validation: bool,
    /// A logarithmic loss axis
    #[arg(long)]
    log: bool,
}

/// Draws one run's losses, or one loss of several runs.
pub fn run(args: &PlotArgs) -> anyhow::Result<()> {
    for out in &args.out {
        if !["svg", "png"].iter().any(|kind| is(out, kind)) {
            let out = out.display();
            return Err(usage(format!("--out {out}: give a name that ends in .svg or .png")));
        }
    }
    let mut runs: Vec<(Metadata, Metrics)> = Vec::new();
    for run in args.store.find_all(&args.runs)? {
        let metrics = run.metrics()?;
        if let Some(torn) = &metrics.torn {
            note(&format!("warning: {}: metrics.csv: {torn}", run.metadata.name));
        }
        runs.push((run.metadata, metrics));
    }
    let (series, mut options) = match runs.as_slice() {
        [(metadata, metrics)] if !args.validation => of_one(metadata, metrics),
        _ => of_several(&runs, if args.validation { Loss::Validation } else { Loss::Train }),
    };
    options.log_y = args.log;
    for out in &args.out {
        let svg = || loss_svg(&series, &options).into_bytes();
        let file = if is(out, "png") { loss_png(&series, &options) } else { svg() };
        write(out, &file)?;
        note(&format!("wrote {}", out.display()));
    }
    if json() {
        return show(
            || json!({ "title": options.title, "series": series.iter().map(as_json).collect::<Vec<_>>() }),
            String::new,
        );
    }
    if args.terminal || args.out.is_empty() {
        let (width, height) = size(series.len());
        let plot = TextPlot { width, height, charset: charset(), colour: colour() };
        print(&loss_text(&series, &options, plot))?;
    }
    Ok(())
}

/// A series for programs: what is drawn, but for what is not finite.
fn as_json(series: &Series) -> Value {
    let points = series.points.iter().filter(|(x, y)| x.is_finite() && y.is_finite());
    json!({ "label": series.label, "points": points.collect::<Vec<_>>() })
}

/// Whether a name ends so.
fn is(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|is| is.eq_ignore_ascii_case(ending))
}

/// Characters across and lines for the plot itself.
fn size(series: usize) -> (usize, usize) {
    match terminal_size::terminal_size() {
        Some((width, height)) if io::stdout().is_terminal() => {
            (width.0 as usize, (height.0 as usize).saturating_sub(BESIDE + series).clamp(10, 40))
        }
        _ => SIZE,
    }
}

/// Writes a file whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let written = tempfile::Builder::new()
        .prefix(".")
        .make_in(folder, |at| File::create_new(at))
        .and_then(|mut file| file.as_file_mut().write_all(bytes).map(|()| file))
        .and_then(|file| file.persist(path).map_err(|error| error.error));
    written.map(drop).map_err(|error| {
        let reason = format!("cannot write it: {error} (choose a folder that is there and writable)");
        BadFile { path: path.to_owned(), reason }.into()
    })
}
