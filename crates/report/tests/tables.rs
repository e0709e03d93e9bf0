//! Tables from the outside.

use report::{Charset, Listed, bits_per_token, closing_table, details, perplexity, runs_table};
use runs::{Metadata, Metrics, Row, RunFile, RunInfo, Setup, Spike, State};

fn run(name: &str, floor: Option<f64>) -> RunInfo {
    let setup = Setup {
        model: "granite-nano".into(),
        parameters: 1_843_200,
        optimizer: "muon".into(),
        data: "synthetic, seed 0".into(),
        entropy_floor: floor,
        steps: 200,
        device: "CPU, 2 threads".into(),
        precision: "f32".into(),
        ..Setup::default()
    };
    let mut metadata = Metadata::new(vec![], setup, "2026-11-22T05:44:00Z".parse().unwrap());
    metadata.name = name.into();
    metadata.usd_per_hour = Some(2.8);
    metadata.peak_memory_bytes = Some(412 << 20);
    for (step, loss, val_loss) in [(1, 6.9312, None), (150, 2.0984, Some(2.2)), (200, 2.1309, Some(2.1544))] {
        metadata.record(&Row {
            step,
            tokens: 2048 * step,
            loss,
            val_loss,
            step_ms: 15_000.0,
            ..Row::default()
        });
    }
    metadata.spend(52.5);
    metadata.finish(State::Finished, "2026-11-22T05:44:52.5Z".parse().unwrap());
    RunInfo { dir: format!("results/{name}").into(), metadata }
}

#[test]
fn the_closing_table() {
    let mut run = run("quiet-otter", Some(1.871));
    run.metadata.saved(Some(9 << 20), Some(0.021), 1.5);
    run.metadata.saved(None, Some(0.009), 2.5);
    run.metadata.saved(Some(10 << 20), None, 0.5);
    run.metadata.spiked(Spike { step: 47, loss: 9.125, median: 3.25 });
    let text = closing_table(&run, &Metrics::default(), Charset::Unicode);
    insta::assert_snapshot!(text);
}

#[test]
fn the_closing_table_of_a_failure_in_ascii() {
    let mut run = run("quiet-otter", None);
    run.metadata.state = State::Failed { reason: "loss is NaN at step 7 \u{2014} diverged".into() };
    run.metadata.validation_loss = runs::LossSummary::default();
    run.metadata.train_loss.record(201, f64::NAN);
    run.metadata.usd_per_hour = None;
    let text = closing_table(&run, &Metrics::default(), Charset::Ascii);
    assert!(text.is_ascii());
    assert!(!text.contains("validation") && !text.contains("floor") && !text.contains("cost"));
    insta::assert_snapshot!(text);
}

fn listed(run: RunInfo, died: bool) -> Listed {
    Listed { metadata: run.metadata, died, age: 7380.0 }
}

#[test]
fn the_list_of_runs() {
    let mut begun = run("b", None);
    begun.metadata = Metadata::new(vec![], begun.metadata.setup, begun.metadata.started);
    begun.metadata.name = "calm-heron".into();
    let begun = listed(begun, false);
    let died = Listed { died: true, ..begun.clone() };
    let list = [listed(run("quiet-otter", None), false), begun, died];
    insta::assert_snapshot!(runs_table(&list, Charset::Ascii, None));
    let started = runs_table(&list[1..], Charset::Ascii, None);
    assert!(!started.contains("loss") && started.contains("died"), "nothing to show, no column: {started}");
    assert_eq!(runs_table(&[], Charset::Unicode, None), "no runs\n");
}

#[test]
fn every_line_is_as_wide_as_its_table() {
    let list = [run("quiet-otter", None), run("x", Some(1.0))].map(|run| listed(run, false));
    let text = runs_table(&list, Charset::Unicode, None);
    let widths: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
    assert!(widths.windows(2).all(|pair| pair[0] == pair[1]), "{text}");
}

#[test]
fn where_a_run_came_from_and_its_files() {
    let mut run = run("quiet-otter", None);
    run.metadata.command = vec!["muon".into(), "baseline".into()];
    run.metadata.recipe_hash = "0123456789abcdef".repeat(4);
    run.metadata.git = Some(runs::Git { revision: "ab".repeat(20), dirty: true });
    let file = |path: &str, bytes| RunFile { path: path.into(), bytes };
    let files = [file("metadata.json", 1731), file("model/model.safetensors", 5_033_164)];
    insta::assert_snapshot!(details(&run, &files, Charset::Ascii));
}

#[test]
fn losses_in_other_units() {
    assert!((perplexity(8f64.ln()) - 8.0).abs() < 1e-12);
    assert!((bits_per_token(8f64.ln()) - 3.0).abs() < 1e-12);
}
