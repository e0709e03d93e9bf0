//! The live progress on standard error: a bar on a terminal, plain lines otherwise.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use report::format;

use crate::output::plain;

/// How often a plain line comes, where there is no terminal.
const PAUSE: Duration = Duration::from_secs(5);

/// Draws the reading and tokenising of a corpus.
#[derive(Default)]
pub struct Reading(Mutex<Option<ProgressBar>>);

impl Reading {
    fn bar(&self) -> MutexGuard<'_, Option<ProgressBar>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl data::Progress for Reading {
    fn begin(&self, what: &str, total_bytes: Option<u64>) {
        let template = match total_bytes {
            Some(_) => "{msg} [{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
            None => "{msg} {bytes}, {bytes_per_sec}",
        };
        let bar = bar(total_bytes, template);
        bar.set_message(what.to_string());
        if bar.is_hidden() {
            note(&format!(
                "{what}{}",
                total_bytes.map_or(String::new(), |n| format!(" {}", format::bytes(n)))
            ));
        }
        *self.bar() = Some(bar);
    }

    fn advance(&self, bytes: u64) {
        if let Some(bar) = &*self.bar() {
            bar.inc(bytes);
        }
    }

    fn end(&self) {
        if let Some(bar) = self.bar().take() {
            bar.finish_and_clear();
        }
    }
}

/// Draws the steps of a run.
pub struct Steps {
    bar: ProgressBar,
    total: u64,
    /// Steps done before.
    before: u64,
    started: Instant,
    /// When the last plain line came.
    last: Option<Instant>,
}

impl Steps {
    /// A display for a run of `total` steps, which starts now after `before` of them.
    pub fn new(total: u64, before: u64) -> Self {
        let bar = bar(Some(total), "step {pos}/{len} [{bar:30}] {msg}, {eta} left");
        bar.set_position(before);
        bar.reset_eta();
        Steps { bar, total, before, started: Instant::now(), last: None }
    }

    /// Step `step` (from 1) is done; `remarks` are what else is to be known of it.
    pub fn step(&mut self, step: u64, loss: f64, tokens_per_s: f64, remarks: &[String]) {
        let mut figures = format!("loss {}, {} tokens/s", format::loss(loss), format::short(tokens_per_s));
        for remark in remarks {
            figures = format!("{figures}, {remark}");
        }
        self.bar.set_message(figures.clone());
        self.bar.set_position(step);
        let due = self.last.is_none_or(|last| last.elapsed() >= PAUSE) || step == self.total;
        if self.bar.is_hidden() && due {
            let left = self.started.elapsed().as_secs_f64() / (step - self.before) as f64
                * (self.total - step) as f64;
            note(&format!("step {step}/{}: {figures}, {} left", self.total, format::duration(left)));
            self.last = Some(Instant::now());
        }
    }

    /// A line that stays, such as a validation loss; the bar goes on below it.
    pub fn line(&self, text: &str) {
        self.bar.suspend(|| note(text));
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn bar(total: Option<u64>, template: &str) -> ProgressBar {
    let target =
        if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style =
        ProgressStyle::with_template(template).expect("the templates are fixed").progress_chars("=> ");
    ProgressBar::with_draw_target(total, target).with_style(style)
}

/// A line on standard error; a closed one is no reason to stop a run.
pub fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{}", plain(line));
}
