//! The frozen recipe: TOML text that resolves to the same recipe again, identified by its hash.

use toml::Table;

use super::Recipe;

const HEADER: &str = "# A frozen recipe: `muon train --recipe FILE` runs it again.\n\n";

/// BLAKE3 of a frozen recipe's text, in hexadecimal.
pub fn fingerprint(frozen: &str) -> String {
    blake3::hash(frozen.as_bytes()).to_hex().to_string()
}

impl Recipe {
    /// The recipe as TOML, every key explicit, without `[run]` and `data.cache_dir`: where things are kept is no part
    /// of an experiment.
    pub fn freeze(&self) -> String {
        let mut table = self.table();
        table.remove("run");
        if let Some(data) = table.get_mut("data").and_then(toml::Value::as_table_mut) {
            data.remove("cache_dir");
        }
        format!("{HEADER}{table}")
    }

    /// The recipe as a TOML table, every key explicit.
    pub(super) fn table(&self) -> Table {
        Table::try_from(self).expect("every part of a recipe has a TOML form")
    }
}
