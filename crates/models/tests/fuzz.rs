//! Files of models under mutation: refused, or read; never worse.

use std::fs;
use std::path::{Path, PathBuf};

use fuzz::{Campaign, Counting};
use models::{Config, Weights, parameters, presets};

#[global_allocator]
static MEMORY: Counting = Counting;

/// Folders of small models, each with `config.json` and `model.safetensors`.
fn oracles() -> Vec<PathBuf> {
    let names = ["granite-hybrid", "granite-untied", "granite-rope", "qwen2-tied", "qwen2-untied"];
    names.map(|name| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../oracles").join(name)).into()
}

#[test]
fn fuzz_config() {
    let mut seeds: Vec<Vec<u8>> =
        oracles().iter().map(|dir| fs::read(dir.join("config.json")).unwrap()).collect();
    seeds.extend(presets::ALL.iter().map(|preset| format!("{:#}", preset.config().to_json()).into_bytes()));
    let words = [
        "model_type",
        "granitemoehybrid",
        "qwen2",
        "num_hidden_layers",
        "layer_types",
        "hidden_size",
        "vocab_size",
        "num_key_value_heads",
        "num_attention_heads",
        "head_dim",
        "mamba_d_head",
        "auto",
        "Infinity",
        "NaN",
        "null",
        "full_attention",
        "time_step_limit",
        "pad_token_id",
        "rope_parameters",
        "mamba_n_groups",
        "mamba_expand",
        "mamba_n_heads",
    ];
    let campaign = Campaign { name: "config", seeds: &seeds, words: &words, cases: 3000, memory: 64 << 20 };
    campaign.run(|input| {
        let Ok(text) = std::str::from_utf8(input) else { return Some("not text".into()) };
        let config = match Config::parse(text, "config.json") {
            Err(error) => return Some(error.to_string()),
            Ok(config) => config,
        };
        let specs = parameters(&config);
        let weights = specs.iter().try_fold(0_usize, |sum, spec| {
            sum.checked_add(spec.shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size))?)
        });
        assert_eq!(weights, Some(models::count(&config)), "sizes overflow");
        let again = config.to_json().to_string();
        assert_eq!(Config::parse(&again, "again").expect("what was written can be read"), config);
        None
    });
}

#[test]
fn fuzz_safetensors() {
    let dir = tempfile::tempdir_in(fuzz::folder()).unwrap();
    let (config, file) = (oracles()[0].join("config.json"), dir.path().join("model.safetensors"));
    let specs = parameters(&Config::load(&config).unwrap());
    let whole = fs::read(oracles()[0].join("model.safetensors")).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let seeds = [whole[..header].to_vec()];
    let words =
        ["F32", "BF16", "F16", "I64", "dtype", "shape", "data_offsets", "__metadata__", "F4", "F8_E5M2"];
    let campaign =
        Campaign { name: "safetensors", seeds: &seeds, words: &words, cases: 2000, memory: 8 << 20 };
    campaign.run(|input| {
        let mut bytes = input.to_vec();
        // Half of them with a length that fits: what is behind it must hold by itself.
        if input.len() > 8 && input.len().is_multiple_of(2) {
            bytes[..8].copy_from_slice(&(input.len() as u64 - 8).to_le_bytes());
        }
        bytes.extend(&whole[header..]);
        fs::write(&file, bytes).unwrap();
        match Weights::open(dir.path(), &specs) {
            Err(error) => Some(error.to_string()),
            Ok(weights) => {
                for spec in &specs {
                    let values = weights.read(&spec.name).expect("what was checked can be read");
                    assert_eq!(values.len(), spec.numel(), "{}", spec.name);
                }
                None
            }
        }
    });
}

#[test]
fn fuzz_index() {
    let dir = tempfile::tempdir_in(fuzz::folder()).unwrap();
    let index = dir.path().join("model.safetensors.index.json");
    let specs = parameters(&Config::load(&oracles()[0].join("config.json")).unwrap());
    fs::copy(oracles()[0].join("model.safetensors"), dir.path().join("a.safetensors")).unwrap();
    let map: Vec<String> = specs.iter().map(|spec| format!("\"{}\": \"a.safetensors\"", spec.name)).collect();
    let seeds = [format!("{{\"weight_map\": {{{}}}}}", map.join(",\n")).into_bytes()];
    let words = ["weight_map", "a.safetensors", "../a.safetensors", "/dev/null", ".", "\\n"];
    let campaign = Campaign { name: "index", seeds: &seeds, words: &words, cases: 1000, memory: 8 << 20 };
    campaign.run(|input| {
        fs::write(&index, input).unwrap();
        Weights::open(dir.path(), &specs).err().map(|error| error.to_string())
    });
}
