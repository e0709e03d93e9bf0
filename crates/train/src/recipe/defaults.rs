//! The defaults that depend on no other value.

use toml::{Table, Value};

use super::layers;

/// The default of a recipe key, where it depends on no model and no optimizer.
pub fn default(key: &str) -> Option<Value> {
    all().into_iter().find_map(|(name, value)| (name == key).then_some(value))
}

/// All of them, by dotted key.
pub(super) fn all() -> Vec<(String, Value)> {
    let table: Table = DEFAULTS.parse().expect("the defaults are TOML");
    layers::flatten(&table)
}

const DEFAULTS: &str = r#"
[run]
name = "auto"
results = "results"
usd_per_hour = 0.0

[model]
pretrained = false

[data]
source = "synthetic"
text_column = "text"
packing = "pack"
seed = 0

[optimizer]
state = "f32"

[optimizer.adamw]
betas = [0.9, 0.95]
eps = 1e-8
weight_decay = 0.01

[train]
warmup_rest = true
schedule = "constant"
final_lr = 0.0
decay = 0.2
clip = 0.0
checkpoint_steps = 100
keep_last = 2
keep_best = 1
nonfinite_limit = 3
staging = "auto"
spike_window = 50
spike_deviations = 6.0
max_hours = 0.0
max_cost = 0.0
seed = 42
device = "auto"
precision = "auto"
rounding = "nearest"
kernels = "fast"
graphs = true
recompute = "off"
diagnostics = "cheap"
diagnostics_steps = 50
"#;
