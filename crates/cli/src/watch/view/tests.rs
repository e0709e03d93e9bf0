//! Frames of made-up runs, as text.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use report::Gpu;
use runs::{Metadata, Row, Setup, Store};

use super::super::state::{App, Watched};
use super::*;

/// A run of 200 steps that has done `steps` of them.
fn app(steps: u64) -> App {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::new(folder.path().join("results"));
    let setup = Setup { steps: 200, entropy_floor: Some(1.3782), ..Setup::default() };
    let started = "2026-11-22T05:44:00Z".parse().expect("a time");
    let metadata = Metadata::new(vec![], setup, started);
    let name = "muon-granite-nano-20261122-1436-silver-whale";
    let run = store.create(runs::NewRun { name, prefix: "", recipe: "", metadata }).expect("a run");
    let mut app = App::new(store, None).expect("a run to watch");
    app.watched = Watched::new(name.to_owned());
    app.watched.rows = (1..=steps).map(row).collect();
    let metadata = run.info().metadata_at(&app.watched.rows);
    let left = (steps > 0).then_some(21.4);
    app.watched.standing = Some(Standing { metadata, died: false, process: Some(1), age: 60.0, left });
    app
}

fn row(step: u64) -> Row {
    let x = step as f64;
    Row {
        step,
        loss: 1.4 + 4.2 / (1.0 + x / 10.0),
        lr: 0.04 * (x / 20.0).min(1.0),
        grad_norm: 0.5,
        step_ms: 120.0,
        tokens_per_s: 8000.0 + 500.0 * (x / 3.0).sin(),
        val_loss: step.is_multiple_of(50).then_some(1.5 + 4.2 / (1.0 + x / 10.0)),
        diagnostics: vec![("update_rms.matrices".into(), 0.0123), ("ortho_deficient".into(), 2.0)],
        ..Row::default()
    }
}

fn frame(app: &App, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a test terminal");
    terminal.draw(|frame| draw(frame, app)).expect("a frame");
    terminal.backend().to_string()
}

#[test]
fn eighty_by_twenty_four() {
    let mut app = app(120);
    app.gpus = vec![Gpu {
        index: 0,
        name: "NVIDIA H100 80GB HBM3".into(),
        busy: Some(98),
        memory: Some((14 << 30, 80 << 30)),
        celsius: Some(61),
        watts: Some(512.0),
        watts_limit: Some(700.0),
    }];
    insta::assert_snapshot!(frame(&app, 80, 24));
}

#[test]
fn narrow_and_in_ascii() {
    let mut app = app(120);
    app.look.ascii = true;
    app.log = true;
    let text = frame(&app, 44, 14);
    assert!(text.is_ascii(), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn nothing_is_drawn_beyond_any_size() {
    for steps in [0, 1, 2, 120] {
        let mut app = app(steps);
        for recent in [false, true] {
            app.recent = recent;
            app.log = recent;
            for (width, height) in [(1, 1), (39, 9), (40, 10), (60, 10), (71, 50), (72, 20), (200, 60)] {
                let text = frame(&app, width, height);
                assert_eq!(text.lines().count(), height as usize, "{width} x {height}");
                assert!(width < 40 || height < 10 || text.contains("q quit"), "{text}");
            }
        }
    }
}

#[test]
fn losses_that_are_not_finite_and_errors_are_no_reason_to_stop() {
    let mut app = app(30);
    app.watched.rows[29].loss = f64::NAN;
    app.watched.rows[28].loss = f64::INFINITY;
    assert!(frame(&app, 80, 24).contains("loss [nats/token]: nan"));
    app.watched.wrong = Some("results/a/metrics.csv: line 3: 2 cells instead of 8".into());
    assert!(frame(&app, 80, 24).contains("line 3: 2 cells"));
}

#[test]
fn colours_are_left_out_where_they_are_not_wanted() {
    let mut app = app(30);
    let coloured = |app: &App| {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).expect("a test terminal");
        terminal.draw(|frame| draw(frame, app)).expect("a frame");
        let buffer = terminal.backend().buffer().clone();
        buffer.content.iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
    };
    assert!(!coloured(&app));
    app.look.colours = true;
    assert!(coloured(&app));
}
