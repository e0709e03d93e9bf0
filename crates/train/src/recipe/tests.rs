//! The recipe from the outside of its modules: layers, scaling, errors, the frozen text.

use std::path::{Path, PathBuf};

use data::{Source, TokenizerSpec};

use super::{
    Examples, KEYS, Kernels, Origin, Precision, Recipe, Recompute, Resolved, Result, Setting, Sources,
    fingerprint, resolve,
};

/// Settings of flags, written `key=value`.
fn flags(settings: &[&str]) -> Vec<Setting> {
    let split = |text: &&str| {
        let (key, value) = text.split_once('=').unwrap();
        Setting {
            key: key.into(),
            value: value.into(),
            flag: format!("--{}", key.rsplit('.').next().unwrap()),
        }
    };
    settings.iter().map(split).collect()
}

fn with(settings: &[&str]) -> Result<Resolved> {
    resolve(&Sources { flags: &flags(settings), ..Sources::default() })
}

fn error(settings: &[&str]) -> String {
    with(settings).expect_err("must be refused").to_string()
}

/// A file of this test run, removed when dropped.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("muon-recipe-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        File(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn layers_override_one_another() {
    let file = File::new(
        "layers.toml",
        "[train]\nsteps = 30\nseed = 1\nwarmup = 3\n[model]\npreset = 'qwen-nano'\n",
    );
    let environment =
        [("MUON_TRAIN__SEED".to_string(), "2".to_string()), ("MUON_TRAIN__WARMUP".into(), "4".into())];
    let flags = flags(&["train.warmup=5"]);
    let sources = Sources { file: Some(&file.0), environment: &environment, flags: &flags, published: false };
    let resolved = resolve(&sources).unwrap();
    let train = &resolved.recipe.train;
    assert_eq!((train.steps, train.seed, train.warmup), (30, 2, 5));
    for (key, from) in [
        ("train.steps", Origin::File(file.0.clone())),
        ("train.seed", Origin::Environment("MUON_TRAIN__SEED".into())),
        ("train.warmup", Origin::Flag("--warmup".into())),
        ("train.eval_steps", Origin::Preset("qwen-nano".into())),
        ("optimizer.adamw.eps", Origin::Default),
        ("data.tokenizer", Origin::Follows("data.source")),
    ] {
        assert_eq!(resolved.origin(key), &from, "{key}");
    }
}

#[test]
fn every_key_has_a_row() {
    let resolved = with(&[]).unwrap();
    let rows: Vec<String> = resolved.rows().into_iter().map(|(key, ..)| key).collect();
    let optional = ["model.dir", "model.hidden_size"];
    for key in KEYS.iter().filter(|key| !optional.contains(&key.name)) {
        assert!(rows.iter().any(|row| row == key.name), "{} is missing", key.name);
    }
}

#[test]
fn granite_has_the_published_defaults() {
    let Recipe { train, optimizer, data, .. } = with(&["model.preset=granite-4.0-h-350m"]).unwrap().recipe;
    assert_eq!((optimizer.name.as_str(), optimizer.lr), ("muon", 1e-4));
    assert_eq!((optimizer.adamw.lr, optimizer.adamw.betas), (3e-4, [0.9, 0.95]));
    assert_eq!((optimizer.adamw.eps, optimizer.adamw.weight_decay), (1e-8, 0.01));
    assert_eq!((train.steps, train.warmup, train.eval_steps, train.eval_batches), (500, 50, 50, 50));
    assert_eq!((train.save_steps, data.seq_len, train.batch_size), (100, 512, 8));
}

#[test]
fn batch_and_documents_scale_as_published() {
    for (model, batches) in [("granite-4.0-h-350m", [4, 8, 16]), ("granite-4.0-h-1b", [2, 4, 8])] {
        for (steps, documents, batch) in [
            (1, 1_000, batches[0]),
            (50, 1_000, batches[0]),
            (51, 10_000, batches[1]),
            (500, 10_000, batches[1]),
            (501, 100_000, batches[2]),
        ] {
            let (model, steps) = (format!("model.preset={model}"), format!("train.steps={steps}"));
            let resolved = with(&[&model, &steps, "data.source=x.parquet", "data.tokenizer=bytes"]).unwrap();
            let Recipe { train, data, .. } = &resolved.recipe;
            assert_eq!(
                (train.batch_size, data.examples),
                (batch, Examples::AtMost(documents)),
                "{model} {steps}"
            );
            assert_eq!(resolved.origin("train.batch_size"), &Origin::Scaling);
        }
    }
    let fixed =
        with(&["model.preset=granite-4.0-h-1b", "train.batch_size=3", "data.examples=7"]).unwrap().recipe;
    assert_eq!((fixed.train.batch_size, fixed.data.examples), (3, Examples::AtMost(7)));
    assert_eq!(with(&[]).unwrap().recipe.data.examples, Examples::All, "the synthetic language never ends");
}

#[test]
fn text_needs_a_tokenizer_unless_the_vocabulary_is_open() {
    let nano = with(&["data.source=x.txt"]).unwrap();
    assert!(nano.open_vocabulary);
    assert_eq!(nano.recipe.data.tokenizer, TokenizerSpec::Bytes);
    assert_eq!(nano.recipe.data.source, Source::Path("x.txt".into()));
    let message = error(&["data.source=x.txt", "model.preset=qwen2.5-0.5b"]);
    assert!(message.contains("--tokenizer FILE"), "{message}");
    assert!(error(&["data.tokenizer=bytes"]).contains("no text"));
    assert!(error(&["data.source=x.txt", "data.tokenizer=synthetic"]).contains("cannot read text"));
}

#[test]
fn a_vocabulary_is_taken_over_or_must_fit() {
    let nano = with(&[]).unwrap().config_for(258, 256, 257).unwrap();
    assert_eq!((nano.vocab_size(), nano.tokens().eos.as_slice()), (258, &[256][..]));
    let granite = with(&["model.preset=granite-4.0-h-350m"]).unwrap();
    assert_eq!(granite.config_for(258, 256, 257).unwrap(), granite.config);
    let message = granite.config_for(100_353, 0, 0).unwrap_err().to_string();
    assert!(
        message.contains("100353 tokens, but the vocabulary of granite-4.0-h-350m is 100352"),
        "{message}"
    );
}

#[test]
fn an_optimizer_has_its_own_keys() {
    let Recipe { optimizer, .. } =
        with(&["optimizer.momentum=0.9", "optimizer.adamw.eps=1e-6"]).unwrap().recipe;
    let settings = optimizer.settings();
    assert_eq!(settings["momentum"], optim::Value::Number(0.9));
    assert_eq!(settings["ortho"], optim::Value::Word("polar".into()));
    assert_eq!(
        optimizer.adamw.settings(),
        optim::AdamWSettings { eps: 1e-6, ..optim::AdamWSettings::default() }
    );
    let message = error(&["optimizer.name=adamw", "optimizer.momentum=0.9"]);
    assert!(message.contains("optimizer `adamw` has: name, lr"), "{message}");
}

#[test]
fn unknown_keys_name_their_place_and_the_nearest() {
    let file = File::new("unknown.toml", "[train]\nstpes = 3\n");
    let message = resolve(&Sources { file: Some(&file.0), ..Sources::default() }).unwrap_err().to_string();
    let name = file.0.file_name().unwrap().to_str().unwrap();
    assert!(message.contains(name) && message.contains("did you mean `train.steps`?"), "{message}");

    let environment = [("MUON_TRAIN__SPEED".to_string(), "2".to_string())];
    let message =
        resolve(&Sources { environment: &environment, ..Sources::default() }).unwrap_err().to_string();
    assert!(message.starts_with("MUON_TRAIN__SPEED: unknown key `train.speed`"), "{message}");

    assert!(error(&["train.nothing_like_it=1"]).contains("[train] has: steps, batch_size"));
    assert!(error(&["nowhere.x=1"]).contains("the sections are run, model"));
    assert!(error(&["optimizer.nothing_like_it=1"]).contains("optimizer `muon` has: name, lr, adamw.lr"));
}

#[test]
fn bad_values_are_refused() {
    for (setting, told) in [
        ("train.steps=0", "a whole number from 1"),
        ("train.steps=ten", "\"ten\""),
        ("train.batch_size=0", "a whole number from 1"),
        ("data.seq_len=0", "a whole number from 1"),
        ("optimizer.lr=-1", "a number above 0"),
        ("data.packing=tight", "one of pack, truncate"),
        ("train.precision=f16", "one of auto, f32, mixed, bf16"),
        ("train.schedule=step", "one of constant, cosine, linear, wsd"),
        ("train.final_lr=1.5", "a number from 0 to 1"),
        ("train.clip=-1", "a number from 0"),
        ("train.kernels=slow", "one of fast, plain"),
        ("train.graphs=maybe", "true or false"),
        ("train.recompute=all", "one of off, layers"),
        ("train.diagnostics=some", "one of off, cheap, full"),
        ("train.diagnostics_steps=0", "a whole number from 1"),
        ("model.hidden_size=100", "no multiple of 1 x 32"),
        ("optimizer.nesterov=yes", "true or false"),
        ("optimizer.ortho_steps=1.5", "a whole number from 0"),
        ("train.device=tpu", "cuda:N"),
        ("model.preset=gpt-2", "there are: granite-nano"),
        ("model.dir=gpt-2", "neither a folder nor a preset"),
        ("optimizer.name=lion", "there are: muon, "),
        ("optimizer.momentum=-0.5", "a number from 0"),
        ("optimizer.ortho=qr", "one of "),
        ("model.pretrained=true", "--model DIR"),
    ] {
        let message = error(&[setting]);
        let key = setting.split('=').next().unwrap();
        assert!(message.contains(told) && message.contains(key), "{setting}: {message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    assert!(error(&["train.device=cpu", "train.precision=mixed"]).contains("--precision f32 or bf16"));
    assert!(error(&["train.steps=1", "train.steps=2"]).contains("give it once"));
}

#[test]
fn how_a_step_is_computed_can_be_chosen() {
    let how = |settings: &[&str]| {
        let train = with(settings).unwrap().recipe.train;
        (train.kernels, train.graphs, train.recompute)
    };
    assert_eq!(how(&[]), (Kernels::Fast, true, Recompute::Off));
    let other = ["train.kernels=plain", "train.graphs=false", "train.recompute=layers"];
    assert_eq!(how(&other), (Kernels::Plain, false, Recompute::Layers));
    let frozen = with(&other).unwrap().recipe.freeze();
    for line in ["kernels = \"plain\"", "graphs = false", "recompute = \"layers\""] {
        assert!(frozen.lines().any(|found| found == line), "no {line} in {frozen}");
    }
}

#[test]
fn broken_files_are_refused_with_their_line() {
    let file = File::new("broken.toml", "[train]\nsteps = \n");
    let message = resolve(&Sources { file: Some(&file.0), ..Sources::default() }).unwrap_err().to_string();
    assert!(message.contains("broken.toml:2:"), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    let message =
        resolve(&Sources { file: Some(Path::new("/no/such.toml")), ..Sources::default() }).unwrap_err();
    assert!(message.to_string().starts_with("/no/such.toml: cannot read the recipe"), "{message}");
}

#[test]
fn short_runs_are_noted() {
    let notes = with(&["train.steps=5", "train.warmup=10"]).unwrap().notes.join("\n");
    assert!(notes.contains("50 % of optimizer.lr"), "{notes}");
    assert!(notes.contains("train.eval_steps = 50 is longer"), "{notes}");
    assert_eq!(with(&[]).unwrap().notes, [""; 0]);
}

#[test]
fn a_frozen_recipe_resolves_to_itself() {
    for settings in [
        &[][..],
        &["optimizer.name=adamw", "optimizer.adamw.betas=0.8,0.99", "train.seed=9007199254740993"],
        &[
            "model.preset=granite-4.0-h-1b",
            "data.source=a \"b\"/c",
            "data.tokenizer=t.json",
            "data.examples=all",
        ],
        &[
            "optimizer.lr=0.1",
            "data.packing=truncate",
            "train.steps=7",
            "run.name=other",
            "train.device=cuda:1",
        ],
    ] {
        let mut resolved = with(settings).unwrap();
        resolved.settle("cpu", tensor::Precision::F32).unwrap();
        let frozen = resolved.recipe.freeze();
        let file = File::new("frozen.toml", &frozen);
        let again = resolve(&Sources { file: Some(&file.0), ..Sources::default() }).unwrap();
        let placed = Recipe { run: again.recipe.run.clone(), ..resolved.recipe.clone() };
        assert_eq!(again.recipe, placed, "{frozen}");
        assert_eq!(again.recipe.freeze(), frozen);
        assert_eq!(again.recipe.train.device, "cpu");
    }
}

#[test]
fn the_fingerprint_tells_experiments_apart_not_names() {
    let hash = |settings: &[&str]| fingerprint(&with(settings).unwrap().recipe.freeze());
    assert_eq!(hash(&[]), hash(&["run.name=x", "run.results=elsewhere", "data.cache_dir=there"]));
    assert_ne!(hash(&[]), hash(&["train.seed=43"]));
    assert_ne!(hash(&[]), hash(&["optimizer.lr=0.0200001"]));
    assert_eq!(hash(&[]).len(), 64);
}

#[test]
fn values_of_every_kind_reach_the_optimizer() {
    let Recipe { optimizer, .. } = with(&[
        "optimizer.nesterov=true",
        "optimizer.ortho=newton-schulz",
        "optimizer.ortho_steps=2",
        "optimizer.coefficients=1,-2,3; 4,5,6",
        "optimizer.scale=original",
    ])
    .unwrap()
    .recipe;
    let settings = optimizer.settings();
    assert_eq!(settings["nesterov"], optim::Value::Switch(true));
    assert_eq!(settings["ortho_steps"], optim::Value::Number(2.0));
    assert_eq!(settings["coefficients"], optim::Value::Word("1,-2,3; 4,5,6".into()));
    assert_eq!(settings["scale"], optim::Value::Word("original".into()));
}

#[test]
fn the_rate_follows_the_size_of_the_updates() {
    for (settings, lr) in [
        (&[][..], 0.04),
        (&["optimizer.name=nolah"], 0.04),
        (&["optimizer.name=adamw"], 3e-3),
        (&["optimizer.name=moonlight"], 0.01),
        (&["optimizer.scale=match-rms"], 0.01),
        (&["optimizer.scale=match-rms", "optimizer.lr=0.5"], 0.5),
    ] {
        let resolved = with(settings).unwrap();
        assert_eq!(resolved.recipe.optimizer.lr.to_bits(), f64::to_bits(lr), "{settings:?}");
    }
}

#[test]
fn rates_follow_the_schedule() {
    let train =
        |settings: &[&str]| with(&[&["train.steps=10", "train.warmup=2"], settings].concat()).unwrap();
    let shares = |settings: &[&str], step| train(settings).recipe.train.shares(step);
    assert_eq!([1, 2, 10].map(|step| shares(&[], step)), [(0.5, 0.5), (1.0, 1.0), (1.0, 1.0)]);
    assert_eq!(shares(&["train.warmup_rest=false"], 1), (0.5, 1.0));
    let linear = ["train.schedule=linear", "train.final_lr=0.25", "train.warmup_rest=false"];
    assert_eq!([1, 6, 10].map(|step| shares(&linear, step)), [(0.5, 1.0), (0.625, 0.625), (0.25, 0.25)]);
    assert_eq!(shares(&["train.schedule=wsd", "train.decay=0.4"], 8), (0.5, 0.5));
}

#[test]
fn full_diagnostics_come_at_their_steps() {
    let watch = |settings: &[&str], step| {
        with(&[&["train.steps=100", "train.diagnostics_steps=40"], settings].concat())
            .unwrap()
            .recipe
            .train
            .watch(step)
    };
    assert_eq!(watch(&[], 40), optim::Watch::Cheap);
    assert_eq!(watch(&["train.diagnostics=off"], 100), optim::Watch::Off);
    for (step, full) in [(1, true), (2, false), (40, true), (41, false), (100, true)] {
        let expected = if full { optim::Watch::Full } else { optim::Watch::Cheap };
        assert_eq!(watch(&["train.diagnostics=full"], step), expected, "step {step}");
    }
}

#[test]
fn another_hidden_size_is_part_of_the_experiment() {
    let resolved = with(&["model.preset=qwen-block-muon", "model.hidden_size=512"]).unwrap();
    assert_eq!(resolved.config.hidden_size(), 512);
    assert_eq!(resolved.recipe.model.label(), "qwen-block-muon-512");
    assert!(resolved.recipe.freeze().contains("hidden_size = 512"));
    let message = error(&["model.preset=qwen-block-muon", "model.hidden_size=500"]);
    assert!(message.starts_with("--hidden_size: `model.hidden_size` is 500"), "{message}");
}

fn published(settings: &[&str]) -> Result<Resolved> {
    resolve(&Sources { published: true, flags: &flags(settings), ..Sources::default() })
}

#[test]
fn the_published_set_up_goes_over_the_defaults_and_under_the_flags() {
    let resolved = published(&["train.rounding=stochastic"]).unwrap();
    let Recipe { train, optimizer, data, .. } = &resolved.recipe;
    assert_eq!((train.precision, train.warmup_rest), (Precision::Bf16, false));
    assert_eq!((train.steps, train.batch_size, train.warmup, data.seq_len), (500, 8, 50, 512));
    assert_eq!((optimizer.lr, optimizer.adamw.lr), (1e-4, 3e-4));
    let settings = optimizer.settings();
    for (key, word) in [("ortho", "svd"), ("route", "all-2d"), ("scale", "none")] {
        assert_eq!(settings[key], optim::Value::Word(word.into()));
    }
    assert_eq!(resolved.origin("optimizer.ortho"), &Origin::Published);
    assert_eq!(resolved.origin("train.steps"), &Origin::Published);
    assert_eq!(resolved.origin("train.rounding"), &Origin::Flag("--rounding".into()));
    assert_eq!(published(&["train.steps=501"]).unwrap().recipe.train.batch_size, 16);
}

#[test]
fn every_published_optimizer_takes_its_published_values() {
    for name in super::published::OPTIMIZERS {
        let name = format!("optimizer.name={name}");
        let mut resolved = published(&[&name]).unwrap();
        for value in super::published::values(&resolved.recipe.optimizer.name) {
            assert_eq!(resolved.origin(value.key), &Origin::Published, "{name}: {}", value.key);
        }
        // The frozen recipe says it all: it needs no flag to come out the same.
        resolved.settle("cpu", tensor::Precision::Bf16).unwrap();
        let frozen = resolved.recipe.freeze();
        let file = File::new("published.toml", &frozen);
        let again = resolve(&Sources { file: Some(&file.0), ..Sources::default() }).unwrap();
        assert_eq!(again.recipe.freeze(), frozen);
    }
    let message = published(&["optimizer.name=moonlight"]).unwrap_err().to_string();
    assert!(message.contains("did not run; they ran: muon, nolah"), "{message}");
}

#[test]
fn values_without_effect_are_noted() {
    for (settings, told) in [
        (&["train.final_lr=0.1"][..], "train.final_lr is not used"),
        (&["train.decay=0.1", "train.schedule=cosine"], "train.decay is not used"),
        (&["train.rounding=stochastic"], "train.rounding is not used"),
        (&["train.rounding=stochastic", "train.precision=f32"], "train.rounding is not used"),
        (&["optimizer.name=adamw", "optimizer.adamw.lr=1e-3"], "optimizer.adamw.lr is not used"),
        (
            &["optimizer.name=orthonoise", "optimizer.adaptive=false", "optimizer.rank_threshold=0.3"],
            "optimizer.rank_threshold is not used",
        ),
    ] {
        let notes = with(settings).unwrap().notes.join("\n");
        assert!(notes.contains(told), "{notes}");
    }
    let wsd = ["train.schedule=wsd", "train.decay=0.1", "train.final_lr=0.1"];
    let bf16 = ["train.precision=bf16", "train.rounding=stochastic", "optimizer.adamw.lr=1e-3"];
    let noise = ["optimizer.name=isotropic", "optimizer.rank_threshold=0.3"];
    for used in [&wsd[..], &bf16, &noise, &["optimizer.name=adamw"]] {
        assert_eq!(with(used).unwrap().notes, [""; 0], "{used:?}");
    }
}

#[test]
fn every_optimizer_resolves_and_its_recipe_goes_around() {
    for row in optim::ALL {
        let resolved = with(&[&format!("optimizer.name={}", row.name)]).unwrap();
        let frozen = resolved.recipe.freeze();
        let file = File::new(&format!("{}.toml", row.name), &frozen);
        let again = resolve(&Sources { file: Some(&file.0), ..Sources::default() }).unwrap();
        assert_eq!(again.recipe.optimizer, resolved.recipe.optimizer);
    }
}

#[test]
fn one_checkpoint_is_too_few() {
    let message = with(&["train.keep_last=1"]).unwrap_err().to_string();
    assert!(message.contains("train.keep_last") && message.contains("2 or more"), "{message}");
}
