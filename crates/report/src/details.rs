//! What `show` says of a run beside its closing table.

use comfy_table::{CellAlignment, Table, presets};
use runs::{RunFile, RunInfo, total_bytes};

use crate::format;
use crate::tables::{Charset, plain, trim_ends};

/// Where a run came from, and its files with their sizes.
pub fn details(run: &RunInfo, files: &[RunFile], charset: Charset) -> String {
    let metadata = &run.metadata;
    let mut facts = vec![
        ("command", metadata.command.join(" ")),
        (
            "recipe",
            format!("{}, blake3 {}", run.dir.join("recipe.toml").display(), short(&metadata.recipe_hash)),
        ),
        ("seed", metadata.setup.seed.to_string()),
        ("began", metadata.started.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()),
    ];
    if let Some(git) = &metadata.git {
        let dirty = if git.dirty { ", with changes" } else { "" };
        facts.push(("git", format!("{}{dirty}", short(&git.revision))));
    }
    facts.push(("muon", metadata.version.clone()));
    if let Some(driver) = &metadata.setup.driver {
        facts.push(("driver", driver.clone()));
    }
    let total = format::bytes(total_bytes(files));
    facts.push(("files", format!("{}, {total}", format::count(files.len() as u64))));

    let mut list = Table::new();
    list.load_style(presets::NOTHING);
    for file in files {
        list.add_row([format::bytes(file.bytes), file.path.display().to_string()]);
    }
    if let Some(column) = list.column_mut(0) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for (label, text) in facts {
        table.add_row([label.to_owned(), text]);
    }
    let [facts, list] = [table, list].map(|table| trim_ends(&table.to_string()));
    plain(format!("{facts}\n{list}\n"), charset)
}

/// The first digits of a hash.
fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}
