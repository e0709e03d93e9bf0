//! The published verbs and flags from the outside, and the table of optimizers.

mod common;

use common::{Muon, row};

#[test]
fn nolah_takes_its_published_flags() {
    let muon = Muon::new();
    let shown = muon.shows(&["nolah", "--gate", "relu", "--scale", "0.99", "--device", "cpu", "--dry-run"]);
    assert_eq!(row(&shown, "optimizer.name"), ("\"nolah\"", "nolah"));
    assert_eq!(row(&shown, "optimizer.gate"), ("\"relu\"", "--gate"));
    assert_eq!(row(&shown, "optimizer.momentum_scale"), ("0.99", "--scale"));
    let told = muon.fails(&["nolah", "--gate", "softmax", "--dry-run"], 2);
    assert!(
        told.contains("--gate: `optimizer.gate` is \"softmax\" but takes one of tanh, sigmoid, relu"),
        "{told}"
    );
}

#[test]
fn pretrain_takes_its_published_flags() {
    let muon = Muon::new();
    let shown = muon.shows(&["pretrain", "--dry-run"]);
    assert_eq!(row(&shown, "optimizer.name"), ("\"muon\"", "default"));
    let shown = muon.shows(&[
        "pretrain",
        "--orthonoise",
        "--alpha",
        "1e-3",
        "--anneal",
        "exponential",
        "--no-adaptive",
        "--rank-threshold",
        "0.3",
        "--ngpus",
        "1",
        "--dry-run",
    ]);
    for (key, value, from) in [
        ("optimizer.name", "\"orthonoise\"", "--orthonoise"),
        ("optimizer.alpha", "0.001", "--alpha"),
        ("optimizer.anneal", "\"exponential\"", "--anneal"),
        ("optimizer.adaptive", "false", "--no-adaptive"),
        ("optimizer.rank_threshold", "0.3", "--rank-threshold"),
    ] {
        assert_eq!(row(&shown, key), (value, from), "{key}");
    }
    let shown = muon.shows(&["pretrain", "--isotropic", "--no_anneal", "--dry_run"]);
    assert_eq!(row(&shown, "optimizer.anneal"), ("\"constant\"", "--no-anneal"));
    assert_eq!(row(&muon.shows(&["pretrain", "--nolah", "--dry-run"]), "optimizer.gate").0, "\"tanh\"");
}

#[test]
fn pretrain_refuses_what_it_cannot_do() {
    let muon = Muon::new();
    assert!(muon.fails(&["pretrain", "--ngpus", "2"], 2).contains("one GPU so far"));
    muon.fails(&["pretrain", "--ngpus", "0"], 2);
    muon.fails(&["pretrain", "--nolah", "--orthonoise"], 2);
    muon.fails(&["pretrain", "--orthonoise", "--anneal", "linear", "--no-anneal"], 2);
    assert!(muon.fails(&["pretrain", "--model", ".", "--pretrained"], 2).contains("from scratch"));
    let told = muon.fails(&["pretrain", "--alpha", "0.1", "--dry-run"], 2);
    assert!(told.contains("--alpha: unknown key `optimizer.alpha`"), "{told}");
}

#[test]
fn the_block_muon_study_takes_its_published_flags_in_both_spellings() {
    let muon = Muon::new();
    let common =
        ["train", "--model", "qwen-block-muon", "--optimizer", "block-muon", "--lr", "1e-3", "--wd", "0.2"];
    let hyphens = [
        "--block-size=64",
        "--max-steps=7",
        "--max-len=96",
        "--hidden-size=512",
        "--save-checkpoint-interval=3",
    ];
    let underscores = [
        "--block_size=64",
        "--max_steps=7",
        "--max_len=96",
        "--hidden_size=512",
        "--save_checkpoint_interval=3",
    ];
    let shown =
        |flags: &[&str]| muon.shows(&[&common[..], flags, &["--split", "heads", "--dry-run"]].concat());
    // The table of keys; below it stands how much memory is free, which changes.
    let table = |text: String| text.split("\n\n").next().map(str::to_string);
    assert_eq!(table(shown(&hyphens)), table(shown(&underscores)));
    let shown = shown(&underscores);
    for (key, value) in [
        ("optimizer.lr", "0.001"),
        ("optimizer.weight_decay", "0.2"),
        ("optimizer.block_size", "64"),
        ("optimizer.split", "\"heads\""),
        ("train.steps", "7"),
        ("train.save_steps", "3"),
        ("data.seq_len", "96"),
        ("model.hidden_size", "512"),
    ] {
        assert_eq!(row(&shown, key).0, value, "{key}");
    }
    assert!(shown.contains("qwen-block-muon-512: "), "{shown}");
    let bare = muon.shows(&["train", "--split", "--optimizer", "block-muon", "--dry-run"]);
    assert_eq!(row(&bare, "optimizer.split"), ("\"segments\"", "--split"));
    for optimizer in ["muon", "adamw"] {
        muon.shows(&["train", "--model", "qwen-block-muon", "--optimizer", optimizer, "--dry-run"]);
    }
    let told = muon.fails(&["train", "--model", "qwen-block-muon", "--hidden-size", "1000", "--dry-run"], 2);
    assert!(told.contains("--hidden-size: `model.hidden_size` is 1000, which 16 attention heads"), "{told}");
    assert!(muon.fails(&["train", "--block-size", "8", "--dry-run"], 2).contains("optimizer `muon` has: "));
}

#[test]
fn weight_decay_goes_to_the_optimizer_in_charge() {
    let muon = Muon::new();
    let shown = muon.shows(&["train", "--optimizer", "adamw", "--wd", "0.3", "--dry-run"]);
    assert_eq!(row(&shown, "optimizer.adamw.weight_decay"), ("0.3", "--wd"));
    muon.write("r.toml", "[optimizer]\nname = 'adamw'\n");
    let shown = muon.shows(&["train", "--recipe", "r.toml", "--wd", "0.3", "--dry-run"]);
    assert_eq!(row(&shown, "optimizer.adamw.weight_decay"), ("0.3", "--wd"));
    let shown = muon.shows(&["baseline", "--wd", "0.3", "--dry-run"]);
    assert_eq!(row(&shown, "optimizer.weight_decay"), ("0.3", "--wd"));
    assert_eq!(row(&shown, "optimizer.adamw.weight_decay"), ("0.01", "default"));
}

#[test]
fn the_published_set_up_is_asked_for_by_one_flag() {
    let muon = Muon::new();
    let shown = muon.shows(&["baseline", "--published", "--steps", "40", "--device", "cpu", "--dry-run"]);
    for (key, value, from) in [
        ("optimizer.ortho", "\"svd\"", "published"),
        ("optimizer.lr", "0.0001", "published"),
        ("train.precision", "\"bf16\"", "published"),
        ("train.warmup_rest", "false", "published"),
        ("train.steps", "40", "--steps"),
        ("train.batch_size", "4", "scaled with steps and model"),
    ] {
        assert_eq!(row(&shown, key), (value, from), "{key}");
    }
    assert!(shown.contains("published  optimizer.route = all-2d: every two-dimensional weight"), "{shown}");
    let told = muon.fails(&["train", "--optimizer", "moonlight", "--published", "--dry-run"], 2);
    assert!(told.contains("did not run"), "{told}");
}

#[test]
fn every_optimizer_is_listed_and_shows_its_keys() {
    let muon = Muon::new();
    let list = muon.shows(&["optimizers"]);
    let names: Vec<&str> =
        list.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split(' ').next()).collect();
    assert!(names.len() >= 10, "{list}");
    for name in names {
        let shown = muon.shows(&["optimizers", name]);
        assert!(shown.starts_with(&format!("{name}: ")) && shown.contains("optimizer.adamw.lr"), "{shown}");
        let dry = muon.shows(&["train", "--optimizer", name, "--dry-run"]);
        assert_eq!(row(&dry, "optimizer.name"), (format!("\"{name}\"").as_str(), "--optimizer"));
        for key in shown.lines().filter_map(|line| line.split_whitespace().next()) {
            if key.starts_with("optimizer.") {
                assert!(dry.contains(key), "{name} has no {key} in its recipe");
            }
        }
    }
    assert!(muon.fails(&["optimizers", "lion"], 2).contains("nolah"));
}

#[test]
fn keys_of_every_kind_come_from_file_environment_and_flags() {
    let muon = Muon::new();
    muon.write("r.toml", "[optimizer]\nname = 'muon'\nnesterov = true\northo_steps = 3\nsplit = 'heads'\n");
    let mut command = muon.command(&[
        "train",
        "--recipe",
        "r.toml",
        "--set",
        "optimizer.coefficients=1,2,3; 4,5,6",
        "--set=optimizer.ortho=newton-schulz",
        "--dry-run",
    ]);
    let output = command.env("MUON_OPTIMIZER__ORTHO_STEPS", "4").output().expect("muon runs");
    let shown = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(row(&shown, "optimizer.nesterov"), ("true", "r.toml"));
    assert_eq!(row(&shown, "optimizer.ortho_steps"), ("4", "MUON_OPTIMIZER__ORTHO_STEPS"));
    assert_eq!(row(&shown, "optimizer.split"), ("\"heads\"", "r.toml"));
    assert_eq!(row(&shown, "optimizer.coefficients").0, "\"1,2,3; 4,5,6\"");
    // What only the optimizer can judge is refused before any data is read.
    let told = muon.fails(&["train", "--set", "optimizer.momentum=1", "--dry-run"], 2);
    assert!(told.contains("--set optimizer.momentum: `optimizer.momentum`"), "{told}");
}
