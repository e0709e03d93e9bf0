//! From what a user types to a run: a name, the beginning of one, or `last`.

use crate::{Error, Metadata, Result, RunInfo, State, Store, store};

/// The word for the run that began last.
const LAST: &str = "last";

impl Store {
    /// The run that `text` stands for: the run of that name; else, for `last`, the run that began last; else the only run
    /// whose name begins so.
    pub fn find(&self, text: &str) -> Result<RunInfo> {
        let have = self.names()?;
        if have.iter().any(|name| name == text) {
            return store::read(self.root().join(text));
        }
        if text == LAST
            && let Some(run) = self.list()?.runs.pop()
        {
            return Ok(run);
        }
        let begins = |name: &&String| !text.is_empty() && name.starts_with(text);
        let matches: Vec<String> = have.iter().filter(begins).cloned().collect();
        let (store, name) = (self.root().to_owned(), text.to_owned());
        match matches.as_slice() {
            [] => Err(Error::NoRun { store, name, have }),
            [only] => store::read(self.root().join(only)),
            _ => Err(Error::Ambiguous { store, name, have: matches }),
        }
    }
}

impl RunInfo {
    /// The metadata as of now. While a run goes on its `metadata.json` is older than its metrics: then steps, tokens, losses and
    /// speed are those of the metrics.
    pub fn current(&self) -> Result<Metadata> {
        let metadata = &self.metadata;
        if metadata.state != State::Running {
            return Ok(metadata.clone());
        }
        let mut current = metadata.clone();
        current.rewind(&self.metrics_so_far()?.rows);
        Ok(current)
    }
}
