//! The command from the outside: recipes and where their values come from, errors in one line, exit codes.

mod common;

use std::path::Path;

use common::{Muon, row, stderr};

#[test]
fn a_dry_run_tells_where_values_come_from_and_writes_nothing() {
    let muon = Muon::new();
    let shown = muon.shows(&["baseline", "--dry-run", "--device", "cpu"]);
    for (key, value, from) in [
        ("optimizer.name", "\"muon\"", "baseline"),
        ("train.steps", "200", "preset granite-nano"),
        ("train.device", "\"cpu\"", "--device"),
        ("train.precision", "\"f32\"", "follows from train.device"),
        ("data.source", "\"synthetic\"", "default"),
        ("optimizer.ortho", "\"polar\"", "default of muon"),
        ("optimizer.adamw.betas", "[0.9, 0.95]", "default"),
    ] {
        assert_eq!(row(&shown, key), (value, from), "{key}");
    }
    assert!(shown.contains("granite-nano: 1,") && shown.contains("parameters in 5 layers"), "{shown}");
    for part in [
        "memory",
        "weights",
        "gradients",
        "activations",
        "least possible loss",
        "blake3 ",
        "nothing was written",
    ] {
        assert!(shown.contains(part), "no {part} in {shown}");
    }
    assert_eq!(muon.files(), [""; 0]);
}

#[test]
fn flags_go_over_environment_over_file() {
    let muon = Muon::new();
    muon.write("r.toml", "[train]\nsteps = 11\nseed = 1\nwarmup = 2\n");
    let args = ["train", "--optimizer", "adamw", "--recipe", "r.toml", "--warmup", "4", "--dry-run"];
    let output = muon.command(&args).env("MUON_TRAIN__SEED", "3").env("MUON_TRAIN__WARMUP", "3").output();
    let shown = String::from_utf8(output.expect("muon runs").stdout).expect("UTF-8");
    assert_eq!(row(&shown, "train.steps"), ("11", "r.toml"));
    assert_eq!(row(&shown, "train.seed"), ("3", "MUON_TRAIN__SEED"));
    assert_eq!(row(&shown, "train.warmup"), ("4", "--warmup"));
    assert_eq!(row(&shown, "optimizer.name"), ("\"adamw\"", "--optimizer"));
}

#[test]
fn published_flags_take_both_spellings() {
    let muon = Muon::new();
    let hyphens = ["--batch-size", "3", "--eval-steps", "5", "--save-steps", "6", "--dry-run"];
    let underscores = ["--batch_size=3", "--eval_steps=5", "--save_steps=6", "--dry_run"];
    let common = ["baseline", "--steps", "7", "--lr", "1e-3", "--warmup", "2", "--name", "x", "--seed", "9"];
    let shown = |spelling: &[&str]| muon.shows(&[&common[..], spelling].concat());
    // The machine's free memory changes from one moment to the next.
    let steady = |shown: String| -> Vec<String> {
        shown.lines().filter(|line| !line.starts_with("device ")).map(String::from).collect()
    };
    assert_eq!(steady(shown(&hyphens)), steady(shown(&underscores)));
    assert_eq!(row(&shown(&hyphens), "optimizer.lr"), ("0.001", "--lr"));
}

#[test]
fn any_key_can_be_set() {
    let muon = Muon::new();
    let shown = muon.shows(&[
        "train",
        "--set",
        "optimizer.adamw.eps=1e-6",
        "--set=optimizer.momentum=0.9",
        "--dry-run",
    ]);
    assert_eq!(row(&shown, "optimizer.momentum"), ("0.9", "--set optimizer.momentum"));
    muon.fails(&["train", "--set", "optimizer.adamw.eps", "--dry-run"], 2);
}

#[test]
fn a_recipe_goes_around() {
    let muon = Muon::new();
    muon.write(
        "r.toml",
        "[model]\npreset = 'qwen-nano'\n[optimizer]\nname = 'adamw'\nlr = 0.002\n[train]\nsteps = 40\ndevice = 'cpu'\n",
    );
    let hash = |shown: &str| shown.lines().find(|line| line.contains("blake3 ")).map(str::to_string);
    let first = muon.shows(&["train", "--recipe", "r.toml", "--dry-run"]);
    // The same values given by flags are the same experiment, under whatever name.
    let flags =
        ["--model", "qwen-nano", "--optimizer", "adamw", "--lr", "2e-3", "--steps", "40", "--device", "cpu"];
    let second = muon.shows(&[&["train", "--name", "other", "--dry-run"][..], &flags].concat());
    assert_eq!(hash(&first), hash(&second));
    assert!(hash(&first).is_some());
}

#[test]
fn big_presets_show_their_published_count() {
    let muon = Muon::new();
    let shown = muon.shows(&["baseline", "--model", "granite-4.0-h-350m", "--device", "cpu", "--dry-run"]);
    assert!(shown.contains("granite-4.0-h-350m: 340,332,224 parameters in 32 layers"), "{shown}");
    assert!(shown.contains("lie inside its vocabulary"), "{shown}");
}

#[test]
fn text_is_inspected() {
    let muon = Muon::new();
    muon.write("a.txt", "one document\n\nanother one\n");
    let shown = muon.shows(&["baseline", "--data", "a.txt", "--dry-run"]);
    assert_eq!(row(&shown, "data.tokenizer"), ("\"bytes\"", "follows from model.preset"));
    assert_eq!(row(&shown, "data.examples"), ("10000", "scaled with steps and model"));
    assert!(shown.contains("1 file, 26 B"), "{shown}");
    assert_eq!(muon.files(), ["a.txt"]);
}

#[test]
fn usage_errors_exit_with_2() {
    let muon = Muon::new();
    assert!(muon.fails(&["baseline", "--setps", "3"], 2).contains("--steps"));
    muon.fails(&["lift-off"], 2);
    muon.fails(&["baseline", "--optimizer", "adamw"], 2);
    assert!(muon.fails(&["baseline", "--steps", "0"], 2).contains("--steps: `train.steps` is 0"));
    assert!(muon.fails(&["baseline", "--steps", "many"], 2).contains("a whole number from 1"));
    assert!(muon.fails(&["train", "--optimizer", "lion"], 2).contains("there are: muon"));
    assert!(muon.fails(&["train", "--model", "gpt-2"], 2).contains("granite-nano"));
    assert!(muon.fails(&["train", "--set", "train.stpes=3"], 2).contains("did you mean `train.steps`?"));
    assert!(muon.fails(&["train", "--steps", "3", "--set", "train.steps=3"], 2).contains("give it once"));
    assert!(muon.fails(&["baseline", "--pretrained"], 2).contains("--model DIR"));
}

#[test]
fn bad_input_exits_with_3() {
    let muon = Muon::new();
    muon.write("broken.toml", "[train\n");
    muon.write("empty.txt", "");
    assert!(muon.fails(&["train", "--recipe", "none.toml"], 3).contains("none.toml: "));
    assert!(muon.fails(&["train", "--recipe", "broken.toml"], 3).contains("broken.toml:1:"));
    assert!(muon.fails(&["baseline", "--data", "none.parquet", "--dry-run"], 3).contains("none.parquet"));
    assert!(muon.fails(&["baseline", "--data", "empty.txt", "--dry-run"], 3).contains("empty.txt"));
    assert!(muon.fails(&["baseline", "--model", "some/where", "--dry-run"], 3).contains("config.json"));
}

#[test]
fn recipes_and_models_that_do_not_fit_exit_with_4() {
    let muon = Muon::new();
    muon.write("unknown.toml", "[data]\nsequence_length = 3\n");
    muon.write("wrong.toml", "[train]\nsteps = 'three'\n");
    muon.write("config.json", "{\"model_type\": \"gpt2\"}");
    muon.write("a.txt", "one document\n");
    let told = muon.fails(&["train", "--recipe", "unknown.toml"], 4);
    assert!(told.contains("unknown.toml: unknown key `data.sequence_length`; [data] has: source"), "{told}");
    assert!(
        muon.fails(&["train", "--recipe", "wrong.toml"], 4)
            .contains("wrong.toml: `train.steps` is \"three\"")
    );
    assert!(muon.fails(&["train", "--model", ".", "--dry-run"], 4).contains("`gpt2` is not supported"));
    muon.write("big.toml", "[model]\npreset = 'qwen2.5-0.5b'\n[data]\nsource = 'a.txt'\n");
    assert!(muon.fails(&["train", "--recipe", "big.toml"], 4).contains("--tokenizer FILE"));
    muon.write(
        "small/config.json",
        r#"{"model_type": "qwen2", "vocab_size": 100, "hidden_size": 8, "num_hidden_layers": 1,
            "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 8}"#,
    );
    let told =
        muon.fails(&["train", "--model", "small", "--data", "a.txt", "--tokenizer", "bytes", "--dry-run"], 4);
    assert!(told.contains("bytes: 258 tokens, but the vocabulary of small is 100"), "{told}");
}

#[test]
fn the_cpu_does_not_compute_in_mixed_precision() {
    let muon = Muon::new();
    // No GPU is visible, on whatever machine: auto is the CPU.
    let fails = |args: &[&str]| {
        let output = muon.command(args).env("CUDA_VISIBLE_DEVICES", "").output().expect("muon runs");
        assert_eq!(output.status.code(), Some(4), "{args:?}: {}", stderr(&output));
        stderr(&output)
    };
    muon.write("mixed.toml", "[train]\nprecision = 'mixed'\n");
    for device in [&[][..], &["--device", "cpu"], &["--dry-run"]] {
        let told = fails(&[&["train", "--precision", "mixed"], device].concat());
        assert!(
            told.starts_with("error: --precision: ") && told.contains("f32 or bf16, or --device"),
            "{told}"
        );
        let told = fails(&[&["train", "--recipe", "mixed.toml"], device].concat());
        assert!(told.starts_with("error: mixed.toml: ") && told.contains("--precision f32"), "{told}");
    }
    assert_eq!(muon.files(), ["mixed.toml"]);
}

#[test]
fn the_keys_of_an_optimizer_come_with_their_defaults() {
    let shown = Muon::new().shows(&["optimizers", "muon"]);
    for (key, default) in [("betas", "[0.9, 0.95]"), ("eps", "0.00000001"), ("weight_decay", "0.01")] {
        assert_eq!(row(&shown, &format!("optimizer.adamw.{key}")).0, default);
    }
}

#[test]
fn a_missing_gpu_exits_with_5() {
    let muon = Muon::new();
    // No GPU has this number, on whatever machine.
    muon.fails(&["baseline", "--device", "cuda:4096", "--dry-run"], 5);
}

#[test]
fn help_and_doctor_go_to_standard_output() {
    let muon = Muon::new();
    assert!(muon.shows(&["--help"]).contains("6  the training diverged"));
    let help = muon.shows(&["baseline", "--help"]);
    for flag in
        ["--steps", "--lr", "--batch-size", "--warmup", "--eval-steps", "--save-steps", "--name", "--seed"]
    {
        assert!(help.contains(flag), "no {flag} in the help");
    }
    let doctor = muon.shows(&["doctor"]);
    for part in ["CPU", "memory", "NVRTC", "cuBLAS", "verdict"] {
        assert!(doctor.contains(part), "no {part} in {doctor}");
    }
}

#[test]
#[cfg(unix)]
fn a_reader_that_goes_away_is_no_error() {
    let muon = Muon::new();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = muon.command(&["baseline", "--dry-run"]).stdout(writer).output().expect("muon runs");
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
}

#[test]
fn the_recipes_of_the_repository_resolve() {
    let muon = Muon::new();
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
    let mut seen = 0;
    for entry in std::fs::read_dir(recipes).expect("the recipes are there") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("a recipe is text");
        assert!(text.starts_with("# "), "{} says what it is for in a comment", path.display());
        let path = path.to_str().expect("UTF-8");
        // Neither the data nor a GPU is here: the synthetic language on the CPU stands in for both.
        let stand_in =
            ["--data", "synthetic", "--tokenizer", "synthetic", "--device", "cpu", "--precision", "f32"];
        muon.shows(&[&["train", "--recipe", path, "--dry-run"][..], &stand_in].concat());
        seen += 1;
    }
    assert!(seen > 0);
}
