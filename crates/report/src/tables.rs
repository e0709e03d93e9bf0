//! The closing table of a run.

use comfy_table::{CellAlignment, Table, presets};
use runs::{LossSummary, Metrics, RunInfo, Saves, State};

use crate::{diagnostics, format};

/// The characters a table may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Charset {
    /// Lines from the box-drawing block.
    #[default]
    Unicode,
    /// ASCII alone; anything else becomes `?`.
    Ascii,
}

/// `exp(loss)`, the perplexity of a loss in nats per token.
pub fn perplexity(loss: f64) -> f64 {
    loss.exp()
}

/// `loss / ln 2`, a loss in nats per token as bits per token.
pub fn bits_per_token(loss: f64) -> f64 {
    loss / std::f64::consts::LN_2
}

/// What a run prints at its end: its losses beside the floor, then speed, memory, cost and folder.
///
/// The distance to the floor is that of the final loss, in nats and in percent of the floor. What is unknown is left out.
/// `metrics` are the run's own, for the diagnostics.
pub fn closing_table(run: &RunInfo, metrics: &Metrics, charset: Charset) -> String {
    let metadata = &run.metadata;
    let floor = metadata.setup.entropy_floor;
    let state = match &metadata.state {
        State::Running => "running".to_owned(),
        State::Finished => "finished".to_owned(),
        State::Stopped { reason } => format!("stopped: {reason}"),
        State::Failed { reason } => format!("failed: {reason}"),
    };

    let mut losses = table(charset);
    let mut header =
        vec!["loss [nats/token]", "first", "final", "best", "at step", "perplexity", "bits/token"];
    if floor.is_some() {
        header.push("above the floor");
    }
    losses.set_header(header);
    let validated = metadata.validation_loss != LossSummary::default();
    let summaries =
        [("train", &metadata.train_loss, true), ("validation", &metadata.validation_loss, validated)];
    for (label, summary, shown) in summaries {
        if shown {
            losses.add_row(loss_row(label, summary, floor));
        }
    }
    if let Some(floor) = floor {
        let known = LossSummary { last: Some(floor), ..LossSummary::default() };
        losses.add_row(
            loss_row("entropy floor", &known, Some(floor)).into_iter().take(7).chain([String::new()]),
        );
    }
    align_right(&mut losses, 1);

    let mut facts = Table::new();
    facts.load_style(presets::NOTHING);
    for (label, text) in facts_of(run, metrics) {
        facts.add_row([label.to_owned(), text]);
    }
    let text = format!("{}: {state}\n{losses}\n{}\n", metadata.name, trim_ends(&facts.to_string()));
    plain(text, charset)
}

fn loss_row(label: &str, summary: &LossSummary, floor: Option<f64>) -> Vec<String> {
    let finite = summary.last.filter(|loss| loss.is_finite());
    let mut row = vec![
        label.to_owned(),
        optional(summary.first, format::loss),
        optional(summary.last, format::loss),
        optional(summary.best, format::loss),
        optional(summary.best_step, format::count),
        optional(finite, |loss| format::short(perplexity(loss))),
        optional(finite, |loss| format!("{:.3}", bits_per_token(loss))),
    ];
    if let Some(floor) = floor {
        row.push(optional(finite, |loss| {
            let above = loss - floor;
            let share =
                if floor > 0.0 { format!(" ({:.1} %)", 100.0 * above / floor) } else { String::new() };
            format!("{}{share}", format::loss(above))
        }));
    }
    row
}

fn facts_of(run: &RunInfo, metrics: &Metrics) -> Vec<(&'static str, String)> {
    let metadata = &run.metadata;
    let setup = &metadata.setup;
    let precision = if setup.precision.is_empty() { String::new() } else { format!(", {}", setup.precision) };
    let mut facts = vec![
        ("model", format!("{}, {} parameters", setup.model, format::count(setup.parameters))),
        ("optimizer", setup.optimizer.clone()),
        ("data", setup.data.clone()),
        ("device", format!("{}{precision}", setup.device)),
        ("steps", format!("{} of {}", format::count(metadata.steps_done), format::count(setup.steps))),
        ("tokens", format::count(metadata.tokens)),
    ];
    if let Some(wall) = metadata.wall_seconds {
        let steps = format::duration(metadata.step_seconds);
        facts.push(("time", format!("{}, of which {steps} in training steps", format::duration(wall))));
    }
    if let Some(speed) = metadata.tokens_per_s {
        facts.push(("speed", format!("{} tokens/s in training steps", format::short(speed))));
    }
    if let Some(memory) = metadata.peak_memory_bytes {
        facts.push(("peak memory", format::bytes(memory)));
    }
    facts.extend(saves(&metadata.saves));
    if let Some(last) = metadata.spikes.last() {
        let [loss, median] = [last.loss, last.median].map(format::loss);
        let text = format!(
            "{}, the last at step {}: {loss} after a median of {median}",
            metadata.loss_spikes, last.step
        );
        facts.push(("loss spikes", text));
    }
    facts.extend(diagnostics::summary(metrics, setup.precision == "bf16"));
    if let (Some(rate), Some(usd)) = (metadata.usd_per_hour, metadata.usd) {
        facts.push(("cost", format!("{} at {} an hour", format::dollars(usd), format::dollars(rate))));
    }
    facts.push(("folder", run.dir.display().to_string()));
    facts
}

fn saves(saves: &Saves) -> Option<(&'static str, String)> {
    let [most, all, disk] =
        [saves.longest_stall_seconds, saves.stall_seconds, saves.longest_write_seconds].map(format::duration);
    let (count, size) = (format::count(saves.checkpoints), format::bytes(saves.bytes));
    let text = format!(
        "{count} of {size}; training stood still for {most} at most, {all} in all; on disk after {disk} at most"
    );
    (saves.checkpoints > 0).then_some(("checkpoints", text))
}

pub(crate) fn table(charset: Charset) -> Table {
    let mut table = Table::new();
    table.load_style(match charset {
        Charset::Unicode => presets::UTF8_FULL_CONDENSED,
        Charset::Ascii => presets::ASCII_FULL_CONDENSED,
    });
    table
}

/// Numbers stand to the right, from the column `first` on.
pub(crate) fn align_right(table: &mut Table, first: usize) {
    for column in table.column_iter_mut().skip(first) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

pub(crate) fn optional<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
    value.map_or_else(String::new, show)
}

pub(crate) fn trim_ends(text: &str) -> String {
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

pub(crate) fn plain(text: String, charset: Charset) -> String {
    match charset {
        Charset::Unicode => text,
        Charset::Ascii => text.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect(),
    }
}
