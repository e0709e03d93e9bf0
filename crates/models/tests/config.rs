//! Configurations: what is read, what is refused and how, and that they survive a round trip.

use std::path::Path;

use models::{Config, LayerKind, TokenIds, presets};
use serde_json::{Value, json};

fn granite() -> Value {
    json!({
        "model_type": "granitemoehybrid", "vocab_size": 48, "hidden_size": 16, "num_hidden_layers": 2,
        "layer_types": ["mamba", "attention"], "num_attention_heads": 4, "shared_intermediate_size": 24,
        "num_local_experts": 0, "mamba_n_heads": 4
    })
}

fn qwen2() -> Value {
    json!({
        "model_type": "qwen2", "vocab_size": 48, "hidden_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 24
    })
}

/// `base` with some fields replaced.
fn with(mut base: Value, changes: &Value) -> String {
    for (name, value) in changes.as_object().unwrap() {
        base[name] = value.clone();
    }
    base.to_string()
}

fn without(mut base: Value, name: &str) -> String {
    base.as_object_mut().unwrap().remove(name);
    base.to_string()
}

fn parse(text: &str) -> Config {
    Config::parse(text, "config.json").unwrap()
}

#[test]
fn absent_fields_take_the_defaults_of_transformers() {
    let Config::Granite(config) = parse(&granite().to_string()) else { panic!("not Granite") };
    assert_eq!(config.layers, [LayerKind::Mamba, LayerKind::Attention]);
    assert_eq!((config.num_key_value_heads, config.head_dim), (4, 4));
    let mamba = &config.mamba;
    assert_eq!(
        (mamba.d_head, mamba.d_state, mamba.n_groups, mamba.d_conv, mamba.chunk_size),
        (8, 256, 1, 4, 256)
    );
    assert_eq!(mamba.time_step_limit, (0.0, f64::INFINITY));
    let scales = (config.embedding_multiplier, config.attention_multiplier, config.logits_scaling);
    assert_eq!(scales, (1.0, 1.0, 1.0));
    assert_eq!((config.rms_norm_eps, config.initializer_range), (1e-6, 0.02));
    assert_eq!((config.rope_theta, config.tie_word_embeddings), (None, false));
    assert_eq!(config.tokens, TokenIds { bos: Some(1), eos: vec![2], pad: None });

    let Config::Qwen2(config) = parse(&qwen2().to_string()) else { panic!("not Qwen2") };
    assert_eq!((config.rope_theta, config.max_position_embeddings), (1e4, 32_768));
    assert_eq!(config.tokens, TokenIds::default());
}

#[test]
fn all_layers_are_mamba_where_no_types_are_listed() {
    let Config::Granite(config) = parse(&without(granite(), "layer_types")) else { panic!("not Granite") };
    assert_eq!(config.layers, [LayerKind::Mamba; 2]);
}

#[test]
fn old_and_new_spellings_mean_the_same() {
    let old = with(
        granite(),
        &json!({"position_embedding_type": "rope", "rope_theta": 1e7, "mamba_d_head": "auto"}),
    );
    let new = with(
        granite(),
        &json!({
            "layer_types": ["linear_attention", "full_attention"], "position_embedding_type": "rope",
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e7}, "mamba_d_head": 8,
            "time_step_limit": [0.0, {"__float__": "Infinity"}]
        }),
    );
    assert_eq!(parse(&old), parse(&new));
    let bare = new.replace(r#"{"__float__":"Infinity"}"#, "Infinity");
    assert_ne!(bare, new);
    assert_eq!(parse(&bare), parse(&new));
}

#[test]
fn token_ids_may_be_null_or_several() {
    let ids = json!({"bos_token_id": null, "eos_token_id": [3, 4], "pad_token_id": 0});
    let config = parse(&with(granite(), &ids));
    assert_eq!(config.tokens(), &TokenIds { bos: None, eos: vec![3, 4], pad: Some(0) });
}

#[test]
fn every_preset_and_golden_configuration_survives_a_round_trip() {
    let oracles = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../oracles");
    let mut configs: Vec<Config> = presets::ALL.iter().map(presets::Preset::config).collect();
    for entry in std::fs::read_dir(oracles).unwrap() {
        let dir = entry.unwrap().path();
        if dir.join("config.json").exists() {
            configs.push(Config::load(&dir).unwrap());
        }
    }
    assert!(configs.len() > presets::ALL.len());
    for config in configs {
        assert_eq!(parse(&config.to_json().to_string()), config);
    }
}

#[test]
fn another_vocabulary_replaces_size_and_token_ids() {
    let config = presets::find("granite-nano").unwrap().config().with_vocab(300, 298, 299);
    assert_eq!(config.vocab_size(), 300);
    assert_eq!(config.tokens(), &TokenIds { bos: Some(298), eos: vec![298], pad: Some(299) });
    assert_eq!(parse(&config.to_json().to_string()), config);
}

#[test]
fn what_cannot_be_built_is_refused_by_file_field_and_remedy() {
    let cases = [
        (
            with(granite(), &json!({"model_type": "llama"})),
            "`llama` is not supported; use granitemoehybrid or qwen2",
        ),
        (without(granite(), "model_type"), "no field `model_type`"),
        (without(granite(), "hidden_size"), "no field `hidden_size`; it must be a positive integer"),
        (
            with(granite(), &json!({"hidden_size": "16"})),
            "hidden_size is \"16\"; expected a positive integer",
        ),
        (with(granite(), &json!({"hidden_size": 16.5})), "hidden_size is 16.5; expected a positive integer"),
        (with(granite(), &json!({"vocab_size": 0})), "vocab_size is 0; expected a positive integer"),
        (with(granite(), &json!({"vocab_size": -3})), "vocab_size is -3; expected a positive integer"),
        (
            with(granite(), &json!({"num_key_value_heads": 3})),
            "num_attention_heads 4 is not a multiple of num_key",
        ),
        (
            with(granite(), &json!({"hidden_size": 18, "mamba_n_heads": 3})),
            "hidden_size 18 is not a multiple of",
        ),
        (
            with(granite(), &json!({"mamba_d_head": 7})),
            "mamba_n_heads 4 x mamba_d_head 7 is not mamba_expand 2 x",
        ),
        (
            with(granite(), &json!({"mamba_n_groups": 3})),
            "mamba_n_heads 4 is not a multiple of mamba_n_groups 3",
        ),
        (with(granite(), &json!({"num_local_experts": 8})), "num_local_experts is 8; mixtures of experts"),
        (
            without(granite(), "num_local_experts"),
            "num_local_experts is 8 (the default where the field is absent)",
        ),
        (
            with(granite(), &json!({"attention_bias": true})),
            "attention_bias = true is not supported; set it to false",
        ),
        (with(granite(), &json!({"mamba_proj_bias": true})), "mamba_proj_bias = true is not supported"),
        (with(granite(), &json!({"mamba_conv_bias": false})), "mamba_conv_bias = false is not supported"),
        (with(granite(), &json!({"hidden_act": "gelu"})), "hidden_act `gelu` is not supported; use silu"),
        (with(granite(), &json!({"attention_dropout": 0.1})), "attention_dropout 0.1 is not supported"),
        (
            with(granite(), &json!({"layer_types": ["mamba"]})),
            "layer_types lists 1 layers but num_hidden_layers is 2",
        ),
        (
            with(granite(), &json!({"layer_types": ["mamba", "conv"]})),
            "layer_types[1] is `conv`; use linear_attention",
        ),
        (with(granite(), &json!({"position_embedding_type": "alibi"})), "position_embedding_type `alibi`"),
        (
            with(granite(), &json!({"time_step_limit": [2, 1]})),
            "time_step_limit is [2, 1]; expected 0 <= low < high",
        ),
        (with(granite(), &json!({"time_step_limit": 3})), "time_step_limit is 3; expected two numbers"),
        (with(granite(), &json!({"pad_token_id": 48})), "pad_token_id 48 is outside the vocabulary of 48"),
        (with(granite(), &json!({"eos_token_id": -1})), "eos_token_id is -1; expected a token id"),
        (with(granite(), &json!({"logits_scaling": 0})), "logits_scaling is 0; it must be above 0"),
        (with(qwen2(), &json!({"head_dim": 5})), "head_dim 5 is odd"),
        (with(qwen2(), &json!({"use_sliding_window": true})), "use_sliding_window = true is not supported"),
        (
            with(qwen2(), &json!({"layer_types": ["full_attention", "sliding_attention"]})),
            "layer_types[1] is `sliding",
        ),
        (
            with(qwen2(), &json!({"rope_scaling": {"type": "yarn", "factor": 4.0}})),
            "rope_type `yarn` is not supported",
        ),
        (
            without(qwen2(), "num_key_value_heads"),
            "num_key_value_heads 32 (the default where the field is absent)",
        ),
        ("[1, 2]".into(), "expected a JSON object"),
        ("{\"model_type\":".into(), "not valid JSON"),
    ];
    for (text, expected) in cases {
        let message = Config::parse(&text, "dir/config.json").expect_err(expected).to_string();
        assert!(message.starts_with("dir/config.json: "), "{message}");
        assert!(message.contains(expected), "`{message}` does not say `{expected}`");
        assert!(!message.contains('\n'), "{message}");
    }
}

/// Sizes that a damaged file may hold: refused before they overflow or take all memory.
#[test]
fn sizes_beyond_any_machine_are_refused() {
    for (base, changes, named) in [
        (granite(), json!({"num_hidden_layers": 0x7fff_ffff, "layer_types": null}), "num_hidden_layers is "),
        (qwen2(), json!({"num_hidden_layers": 5000}), "num_hidden_layers is 5000; expected at most 4096"),
        (
            granite(),
            json!({"hidden_size": 0x7fff_ffff}),
            "hidden_size is 2147483647; expected at most 16777216",
        ),
        (qwen2(), json!({"hidden_size": 1 << 24}), "makes a model of more than 1099511627776 weights"),
    ] {
        let message = Config::parse(&with(base, &changes), "config.json").unwrap_err().to_string();
        assert!(message.starts_with("config.json: ") && message.contains(named), "{message}");
    }
    let config = presets::find("granite-nano").unwrap().config();
    assert!(config.with_hidden_size(1 << 40).unwrap_err().contains("at most 16777216"));
}

#[test]
fn a_folder_without_a_configuration_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let message = Config::load(dir.path()).unwrap_err().to_string();
    assert!(message.contains("config.json: not found; a model folder holds config.json"), "{message}");
}
