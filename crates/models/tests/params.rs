//! Presets and parameter lists: published sizes, and segments that cover what they divide.

use std::collections::HashSet;

use models::{Config, count, parameters, presets};
use tensor::params::Role;

#[test]
fn published_parameter_counts() {
    let published = [
        ("granite-4.0-h-350m", 340_332_224, Some(370)),
        ("granite-4.0-h-1b", 1_461_538_368, Some(466)),
        ("granite-4.0-350m", 352_379_904, None),
        ("granite-4.0-1b", 1_631_750_144, None),
        ("qwen2.5-0.5b", 494_032_768, None),
    ];
    for (name, entries, tensors) in published {
        let config = presets::find(name).unwrap().config();
        assert_eq!(count(&config), entries, "{name}");
        if let Some(tensors) = tensors {
            assert_eq!(parameters(&config).len(), tensors, "{name}");
        }
    }
}

#[test]
fn nano_presets_have_one_to_three_million_parameters() {
    for name in ["granite-nano", "qwen-nano"] {
        let entries = count(&presets::find(name).unwrap().config());
        assert!((1_000_000..3_000_000).contains(&entries), "{name}: {entries}");
    }
}

#[test]
fn names_are_unique_and_segments_cover_the_out_axis() {
    for preset in presets::ALL {
        let specs = parameters(&preset.config());
        let names: HashSet<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        assert_eq!(names.len(), specs.len(), "{}", preset.name);
        for spec in &specs {
            if spec.role == Role::Vector {
                assert!(spec.segments.is_empty() && spec.shape.len() == 1, "{}", spec.name);
                continue;
            }
            let rows: usize = spec.segments.iter().map(|segment| segment.rows).sum();
            assert_eq!(rows, spec.shape[0], "{}", spec.name);
            assert!(spec.segments.iter().all(|segment| segment.rows % segment.heads == 0), "{}", spec.name);
        }
    }
}

#[test]
fn the_fused_projection_of_a_mamba_layer_is_split_as_published() {
    let specs = parameters(&presets::find("granite-4.0-h-350m").unwrap().config());
    let in_proj = specs.iter().find(|spec| spec.name == "model.layers.0.mamba.in_proj.weight").unwrap();
    assert_eq!(in_proj.shape, [3376, 768]);
    let rows: Vec<_> =
        in_proj.segments.iter().map(|segment| (segment.name, segment.rows, segment.heads)).collect();
    assert_eq!(rows, [("z", 1536, 48), ("x", 1536, 48), ("B", 128, 1), ("C", 128, 1), ("dt", 48, 48)]);
}

#[test]
fn batch_sizes_follow_the_length_of_the_run() {
    let defaults = &presets::find("granite-4.0-h-350m").unwrap().defaults;
    assert_eq!([50, 51, 500, 501].map(|steps| defaults.batch_size(steps)), [4, 8, 8, 16]);
    let defaults = &presets::find("granite-4.0-h-1b").unwrap().defaults;
    assert_eq!([50, 51, 500, 501].map(|steps| defaults.batch_size(steps)), [2, 4, 4, 8]);
}

#[test]
fn an_unknown_preset_is_answered_with_the_known_ones() {
    let message = presets::find("granite-5").err().unwrap().to_string();
    assert!(message.contains("`granite-5`") && message.contains("granite-nano, qwen-nano"), "{message}");
}

#[test]
fn another_hidden_size_makes_a_model_of_that_width_that_reads_back() {
    for (name, hidden) in [
        ("qwen-block-muon", 512),
        ("qwen2.5-0.5b", 448),
        ("granite-4.0-h-350m", 384),
        ("granite-4.0-350m", 512),
        ("granite-nano", 64),
    ] {
        let preset = presets::find(name).unwrap().config();
        let config = preset.clone().with_hidden_size(hidden).unwrap();
        assert_eq!(config.hidden_size(), hidden, "{name}");
        assert_eq!(config.num_layers(), preset.num_layers());
        assert_eq!(Config::parse(&config.to_json().to_string(), "config.json").unwrap(), config, "{name}");
        assert_eq!(preset.clone().with_hidden_size(preset.hidden_size()), Ok(preset), "{name}");
    }
}

#[test]
fn a_hidden_size_that_heads_do_not_divide_is_refused() {
    for (name, hidden, told) in [
        ("qwen-block-muon", 1000, "16 attention heads of an even width do not divide; take a multiple of 32"),
        ("qwen-block-muon", 0, "multiple of 32"),
        ("granite-4.0-h-350m", 400, "12 attention heads do not divide; take a multiple of 12"),
        ("granite-4.0-h-350m", 420, "840 channels"),
    ] {
        let error = presets::find(name).unwrap().config().with_hidden_size(hidden).unwrap_err();
        assert!(error.starts_with(&format!("is {hidden}")) && error.contains(told), "{error}");
    }
}
