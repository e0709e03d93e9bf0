//! What `watch` knows: the runs of the store, and one of them step by step.

use std::time::{Duration, Instant};

use report::{Gpu, Standing, seconds_left};
use runs::{MetricsTail, Row, RunInfo, State, Store, Timestamp};

use super::view::Look;
use crate::gpus::Gpus;

/// How often the folder is looked at for runs that came or went.
const LISTING: Duration = Duration::from_secs(10);

/// Everything that is shown.
pub struct App {
    store: Store,
    /// All runs: those that run here first, then the newest first.
    pub names: Vec<String>,
    /// Which of them is shown.
    pub at: usize,
    /// The run that is shown.
    pub watched: Watched,
    /// What the GPUs do; none where NVML is not there.
    pub gpus: Vec<Gpu>,
    nvml: Option<Gpus>,
    listed: Instant,
    /// A logarithmic loss axis.
    pub log: bool,
    /// Only the last quarter of the steps.
    pub recent: bool,
    /// How things look.
    pub look: Look,
}

/// One run, followed.
pub struct Watched {
    pub name: String,
    pub rows: Vec<Row>,
    pub standing: Option<Standing>,
    /// Why it cannot be read at the moment.
    pub wrong: Option<String>,
    tail: Option<MetricsTail>,
}

impl App {
    /// Begins with the run that `name` stands for; without one with the first of the list.
    pub fn new(store: Store, name: Option<&str>) -> anyhow::Result<Self> {
        let name = name.map(|name| store.find(name)).transpose()?.map(|run| run.metadata.name);
        let names = list(&store)?;
        let first = || names.first().cloned().ok_or_else(|| no_run(&store));
        let watched = Watched::new(name.map_or_else(first, Ok)?);
        let at = names.iter().position(|name| *name == watched.name).unwrap_or(0);
        Ok(Self {
            names,
            at,
            watched,
            gpus: Vec::new(),
            nvml: Gpus::open().ok(),
            listed: Instant::now(),
            store,
            log: false,
            recent: false,
            look: Look::default(),
        })
    }

    /// Takes in what came since the last look.
    pub fn look(&mut self) {
        if self.listed.elapsed() >= LISTING {
            self.listed = Instant::now();
            if let Ok(names) = list(&self.store) {
                self.at = names.iter().position(|name| *name == self.watched.name).unwrap_or(0);
                self.names = names;
            }
        }
        self.watched.look(&self.store);
        let gpus = self.nvml.as_ref().and_then(|nvml| nvml.now().ok());
        self.gpus = gpus.unwrap_or_default();
    }

    /// Turns to the next run, or to the one before.
    pub fn turn(&mut self, by: isize) {
        let count = self.names.len() as isize;
        if count > 1 {
            self.at = (self.at as isize + by).rem_euclid(count) as usize;
            self.watched = Watched::new(self.names[self.at].clone());
        }
    }

    /// The rows that are drawn.
    pub fn rows(&self) -> &[Row] {
        let rows = &self.watched.rows;
        let from = if self.recent { rows.len() - rows.len().div_ceil(4) } else { 0 };
        &rows[from..]
    }
}

impl Watched {
    pub fn new(name: String) -> Self {
        Self { name, rows: Vec::new(), standing: None, wrong: None, tail: None }
    }

    fn look(&mut self, store: &Store) {
        let read = store.open(&self.name).map_err(|error| error.to_string()).and_then(|run| self.read(&run));
        if let Err(wrong) = read {
            // The file may have been cut back and have grown beyond where it was read to: from its beginning, then.
            self.tail = None;
            self.rows.clear();
            self.wrong = Some(wrong);
        } else {
            self.wrong = None;
        }
    }

    fn read(&mut self, run: &RunInfo) -> Result<(), String> {
        let tail = self.tail.get_or_insert_with(|| run.tail());
        let rows = tail.rows().map_err(|error| error.to_string())?;
        self.take(rows);
        let told = |error: runs::Error| error.to_string();
        let running = run.metadata.state == State::Running;
        let metadata = if running { run.metadata_at(&self.rows) } else { run.metadata.clone() };
        let age = Timestamp::now().duration_since(metadata.started).as_secs_f64().max(0.0);
        let (died, process) = (run.died().map_err(told)?, run.process().map_err(told)?);
        let left = if running && !died { seconds_left(&self.rows, metadata.setup.steps) } else { None };
        self.standing = Some(Standing { metadata, died, process, age, left });
        Ok(())
    }

    /// Adds rows; those that a resumed run takes back go.
    fn take(&mut self, rows: Vec<Row>) {
        for row in rows {
            while self.rows.last().is_some_and(|last| last.step >= row.step) {
                self.rows.pop();
            }
            self.rows.push(row);
        }
    }
}

fn list(store: &Store) -> anyhow::Result<Vec<String>> {
    let mut runs = store.list()?.runs;
    runs.reverse();
    let mut keyed = Vec::new();
    for run in runs {
        keyed.push((run.process()?.is_none(), run.metadata.name));
    }
    // The sort is stable: the newest stay first.
    keyed.sort_by_key(|(idle, _)| *idle);
    Ok(keyed.into_iter().map(|(_, name)| name).collect())
}

fn no_run(store: &Store) -> anyhow::Error {
    crate::store_args::usage(format!("{}: it has no runs yet", store.root().display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_are_written_again_replace_those_before() {
        let mut watched = Watched::new("a".into());
        let row = |step: u64, loss: f64| Row { step, loss, ..Row::default() };
        watched.take((1..=5).map(|step| row(step, 1.0)).collect());
        watched.take(vec![row(3, 2.0), row(4, 2.0)]);
        let got: Vec<(u64, f64)> = watched.rows.iter().map(|row| (row.step, row.loss)).collect();
        assert_eq!(got, [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0)]);
    }
}
