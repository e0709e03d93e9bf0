//! The live progress on standard error: a bar on a terminal, plain lines otherwise.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use report::format;

use crate::journal;
use crate::secrets::mask;

/// How often a plain line comes, where there is no terminal, and in the log.
const PAUSE: Duration = Duration::from_secs(5);

/// Draws the reading of files: a corpus that is tokenised, a checkpoint that is checked.
#[derive(Default)]
pub struct Reading {
    now: Mutex<Option<Part>>,
    /// Whether there is a line only if it takes long.
    silent: bool,
}

/// What is being read.
struct Part {
    bar: ProgressBar,
    what: String,
    pace: Pace,
}

/// When the next plain line is due, where there is no terminal: every few seconds, and none for work that is done by then.
struct Pace {
    started: Instant,
    /// When the last plain line came.
    last: Instant,
}

impl Pace {
    fn new() -> Self {
        let now = Instant::now();
        Pace { started: now, last: now }
    }

    /// If a line is due: how much is done, and how much a second.
    fn due(&mut self, bar: &ProgressBar) -> Option<(u64, f64)> {
        if !bar.is_hidden() || self.last.elapsed() < PAUSE {
            return None;
        }
        self.last = Instant::now();
        let done = bar.position();
        Some((done, done as f64 / self.started.elapsed().as_secs_f64()))
    }
}

impl Reading {
    /// Without a terminal, nothing is said of what is done within a few seconds.
    pub fn silently() -> Self {
        Reading { silent: true, ..Reading::default() }
    }

    fn now(&self) -> MutexGuard<'_, Option<Part>> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl data::Progress for Reading {
    fn begin(&self, what: &str, total_bytes: Option<u64>) {
        let template = match total_bytes {
            Some(_) => "{msg} [{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
            None => "{msg} {bytes}, {bytes_per_sec}",
        };
        let bar = bar(total_bytes, template);
        bar.set_message(mask(what).into_owned());
        if bar.is_hidden() && !self.silent {
            note(&format!(
                "{what}{}",
                total_bytes.map_or(String::new(), |n| format!(" {}", format::bytes(n)))
            ));
        }
        *self.now() = Some(Part { bar, what: what.to_owned(), pace: Pace::new() });
    }

    fn advance(&self, bytes: u64) {
        if let Some(part) = &mut *self.now() {
            part.advance(bytes);
        }
    }

    fn end(&self) {
        if let Some(part) = self.now().take() {
            part.bar.finish_and_clear();
        }
    }
}

impl Part {
    fn advance(&mut self, bytes: u64) {
        self.bar.inc(bytes);
        let Some((done, rate)) = self.pace.due(&self.bar) else { return };
        let mut line = format!("{} {}", self.what, format::bytes(done));
        if let Some(total) = self.bar.length() {
            let left = format::duration(total.saturating_sub(done) as f64 / rate);
            line = format!("{line} of {}, {left} left", format::bytes(total));
        }
        note(&format!("{line}, {} a second", format::bytes(rate as u64)));
    }
}

/// Draws work that consists of a known number of like pieces.
pub struct Work {
    bar: ProgressBar,
    what: String,
    pace: Pace,
}

impl Work {
    /// A display for `total` pieces of `what`, which starts now.
    pub fn new(what: &str, total: usize) -> Self {
        let bar = bar(Some(total as u64), "{msg} {pos}/{len} [{bar:30}] {per_sec}, {eta} left");
        bar.set_message(what.to_owned());
        Work { bar, what: what.to_owned(), pace: Pace::new() }
    }

    /// Does something that writes to the terminal, with the bar out of the way.
    pub fn aside<T>(&self, work: impl FnOnce() -> T) -> T {
        self.bar.suspend(work)
    }

    /// One more piece is done.
    pub fn one_more(&mut self) {
        self.bar.inc(1);
        let Some((done, rate)) = self.pace.due(&self.bar) else { return };
        let total = self.bar.length().unwrap_or(0);
        let left = format::duration(total.saturating_sub(done) as f64 / rate);
        note(&format!("{} {done}/{total}: {} a second, {left} left", self.what, format::short(rate)));
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
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
        if due {
            let left = self.started.elapsed().as_secs_f64() / (step - self.before) as f64
                * (self.total - step) as f64;
            let line = format!("step {step}/{}: {figures}, {} left", self.total, format::duration(left));
            if self.bar.is_hidden() {
                note(&line);
            } else {
                journal::record(&line);
            }
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

/// A line on standard error, its secrets masked, and in the log of the run if there is one; a closed one is no reason to
/// stop a run.
pub fn note(line: &str) {
    if !journal::record(line) {
        let _ = writeln!(io::stderr(), "{}", mask(line));
    }
}
