//! `--dry-run`: what would run, from where each value came, what it needs and what it would read.

use data::{Language, Plan, Source};
use report::format;
use serde_json::{Value, json};
use train::Room;
use train::recipe::{Origin, Recipe, Resolved, fingerprint, published};

use crate::machine::Found;
use crate::output::{self, columns, objects};

/// Files of the data that are listed one by one.
const LISTED: usize = 8;

/// Prints the resolved recipe, the model's size, the memory estimate and the data it would read. Starts and writes
/// nothing; a recipe whose data is missing or does not fit fails here as it would in the run.
pub fn show(resolved: &Resolved, machine: &Found) -> anyhow::Result<()> {
    let recipe = &resolved.recipe;
    let plan = data::inspect(&recipe.data.options())?;
    let mut table = vec![["key", "value", "from"].map(String::from)];
    table.extend(resolved.rows().into_iter().map(|(key, value, from)| [key, value, from.to_string()]));

    // The ids of the special tokens change no size.
    let config = resolved.config_for(plan.vocab_size, 0, 0)?;
    let parameters = format::count(models::count(&config) as u64);
    let model =
        format!("{}: {parameters} parameters in {} layers", recipe.model.label(), config.num_layers());
    let step = resolved.step(machine.place.device.is_cuda())?;
    let free = machine.place.free;
    let room = resolved.room(&config, machine.place.device.is_cuda(), free)?;
    let mut rows = vec![["model", &model].map(String::from), ["memory".into(), format_memory(&room)]];
    let free_text = free.map_or(String::new(), |free| format!(", {} free", format::bytes(free)));
    rows.push(["device".into(), format!("{}{free_text}", machine.place.name)]);
    rows.extend(data_rows(recipe, &plan));
    let tokens = (step.batch_size * step.seq_len) as u64;
    let all = tokens * recipe.train.steps;
    rows.push(["tokens".into(), format!("{} a step, {} in all", format::count(tokens), format::count(all))]);
    rows.push(["recipe".into(), format!("blake3 {}", fingerprint(&recipe.freeze()))]);
    if free.is_some_and(|free| room.total() > free) {
        rows.push([
            "note".into(),
            "the estimate is more than what is free: take a smaller batch or model".into(),
        ]);
    }
    let in_force = published::values(&recipe.optimizer.name)
        .filter(|value| *resolved.origin(value.key) == Origin::Published)
        .map(|value| ["published".into(), format!("{} = {}: {}", value.key, value.value, value.why)]);
    rows.extend(in_force);
    let memory = room.total();
    rows.extend(room.note.map(|note| ["note".into(), note]));
    rows.extend(resolved.notes.iter().map(|note| ["note".into(), note.clone()]));
    let value = || {
        let facts: Vec<Value> =
            rows.iter().map(|[what, text]| json!({ "what": what, "text": text })).collect();
        json!({ "recipe": objects(&table), "memory_bytes": memory, "parameters": models::count(&config), "facts": facts })
    };
    let end = "dry run: nothing was started, nothing was written";
    output::show(value, || format!("{}\n\n{}\n\n{end}", columns(&table), columns(&rows)))
}

fn format_memory(room: &Room) -> String {
    let estimate = &room.estimate;
    let mut parts = vec![
        ("weights", estimate.weights),
        ("gradients", estimate.gradients),
        ("optimizer", estimate.optimizer),
        ("activations", estimate.activations),
        ("workspace", estimate.workspace),
    ];
    parts.extend((room.copy > 0).then_some(("checkpoint copy", room.copy)));
    let parts: Vec<String> =
        parts.iter().map(|(name, bytes)| format!("{name} {}", format::bytes(*bytes))).collect();
    format!("about {}: {}", format::bytes(room.total()), parts.join(", "))
}

fn data_rows(recipe: &Recipe, plan: &Plan) -> Vec<[String; 2]> {
    let label = || "data".to_string();
    if recipe.data.source == Source::Synthetic {
        let floor = Language::new(recipe.data.seed).floor(recipe.data.seq_len, recipe.data.packing);
        return vec![[
            label(),
            format!(
                "the synthetic language, {} tokens, produced on the fly; least possible loss {} nats per token",
                plan.vocab_size,
                format::loss(floor.nats_per_token)
            ),
        ]];
    }
    let documents = plan.documents.map_or("an unknown number of".into(), format::count);
    let summary = format!(
        "{} file{}, {}; at most {documents} documents, by {} with {} tokens",
        plan.files.len(),
        if plan.files.len() == 1 { "" } else { "s" },
        format::bytes(plan.bytes),
        plan.tokenizer,
        format::count(plan.vocab_size as u64),
    );
    let mut rows = vec![[label(), summary]];
    for file in plan.files.iter().take(LISTED) {
        let documents = file.rows.map_or(String::new(), |rows| format!(", {} rows", format::count(rows)));
        rows.push([
            String::new(),
            format!("{} ({}{documents})", file.path.display(), format::bytes(file.bytes)),
        ]);
    }
    if plan.files.len() > LISTED {
        rows.push([String::new(), format!("and {} more", plan.files.len() - LISTED)]);
    }
    rows
}
