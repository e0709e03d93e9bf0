//! From what a user types to a run: a name, the beginning of one, or `last`.

use crate::{Error, Metadata, Result, Row, RunInfo, State, Store, store};

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
        if self.metadata.state != State::Running {
            return Ok(self.metadata.clone());
        }
        Ok(self.metadata_at(&self.metrics_so_far()?.rows))
    }

    /// The metadata of a run that goes on and has written these rows.
    pub fn metadata_at(&self, rows: &[Row]) -> Metadata {
        let mut metadata = self.metadata.clone();
        metadata.rewind(rows);
        metadata
    }
}
