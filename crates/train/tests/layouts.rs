//! Checkpoints of another layout, under valid seals: one clear error.

use runs::{Metadata, NewRun, Run, Setup, Store, Timestamp};
use tempfile::TempDir;
use train::Point;

const RECIPE: &str = "a = 1\n";

fn run(folder: &TempDir) -> Run {
    let now: Timestamp = "2026-11-22T05:44:00Z".parse().expect("a time");
    let metadata = Metadata::new(vec![], Setup::default(), now);
    let store = Store::new(folder.path().join("results"));
    let run = store.create(NewRun { name: "r", prefix: "", recipe: RECIPE, metadata }).expect("a run");
    run.metrics(&[]).expect("metrics");
    run
}

/// What is said of a checkpoint with this state.
fn told(run: &Run, state: &str) -> Result<u64, String> {
    let draft = run.checkpoints().draft(1).expect("a draft");
    draft.put("recipe.toml", RECIPE.as_bytes()).expect("written");
    draft.put("state.json", state.as_bytes()).expect("written");
    draft.commit(None).expect("a checkpoint");
    Point::newest(run, &data::Silent).map(|(point, _)| point.state.step).map_err(|error| error.to_string())
}

#[test]
fn a_state_of_another_layout_is_refused_by_name_version_and_remedy() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = run(&folder);
    let hash = train::recipe::fingerprint(RECIPE);
    let state = format!(
        r#"{{"format": 1, "program": "0.1.0", "step": 1, "tokens": 2, "optimizer_steps": 1, "metrics_bytes": 3,
            "recipe_hash": "{hash}", "data_fingerprint": "f", "device": "d"}}"#
    );
    assert_eq!(told(&run, &state), Ok(1));
    for (state, parts) in [
        (state.replace("\"format\": 1", "\"format\": 0"), &["format 0", "muon 0.1.0", "format 1"][..]),
        // A later one, of which nothing else is known.
        (r#"{"format": 2, "new": [], "program": "9.0.0"}"#.to_owned(), &["format 2", "muon 9.0.0"]),
        (r#"{"format": 7}"#.to_owned(), &["format 7", "another version"]),
        (state.replace("\"tokens\": 2, ", ""), &["missing field `tokens`"]),
        (state.replace(&hash, &"0".repeat(64)), &["recipe.toml"]),
        ("[".repeat(100_000), &[]),
        (String::new(), &[]),
    ] {
        let told = told(&run, &state).expect_err("refused");
        assert!(told.contains("checkpoints/step-1/state.json: ") && told.lines().count() == 1, "{told}");
        for part in parts {
            assert!(told.contains(part), "{told}");
        }
    }
}
