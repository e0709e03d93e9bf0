//! Plots from the outside. Each is also written to the target's tmp/plots, to be looked at.

use std::fs;
use std::path::PathBuf;

use report::{
    Charset, Floor, Kind, Loss, PlotOptions, Series, TextPlot, loss_curve, loss_png, loss_svg, loss_text,
    of_several,
};
use runs::{Metadata, Metrics, Row, Setup};
use tiny_skia::{Pixmap, PremultipliedColorU8};

/// Noise in [-0.5, 0.5) that is the same everywhere (splitmix64).
fn noise(at: u64) -> f64 {
    let mut z = at.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) as f64 / 2f64.powi(64) - 0.5
}

fn falling(step: u64, scale: f64) -> f64 {
    1.95 + 4.6 / (1.0 + step as f64 / scale).powf(1.3)
}

fn keep(name: &str, svg: &str) {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("plots");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(name).with_extension("svg"), svg).unwrap();
    well_formed(svg);
}

/// One root, every element closed, no number that is not one, nothing from elsewhere.
fn well_formed(svg: &str) {
    let mut open = Vec::new();
    for piece in svg.split('<').skip(1) {
        let tag = piece.split('>').next().unwrap();
        let name = tag.split([' ', '/']).find(|part| !part.is_empty()).unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert!(open.is_empty() && svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    assert!(!svg.contains("NaN") && !svg.contains("inf") && !svg.contains("href"));
}

fn series(kind: Kind, points: Vec<(f64, f64)>) -> Series {
    Series { label: "train".into(), kind, points }
}

fn plot(points: Vec<(f64, f64)>) -> String {
    loss_svg(&[series(Kind::Curve, points)], &PlotOptions::default())
}

#[test]
fn a_whole_run() {
    let setup = Setup {
        model: "granite-nano".into(),
        parameters: 1_840_000,
        optimizer: "muon".into(),
        data: "synthetic".into(),
        entropy_floor: Some(1.871),
        device: "CPU, 2 threads".into(),
        precision: "f32".into(),
        steps: 200,
        ..Setup::default()
    };
    let mut metadata = Metadata::new(vec![], setup, "2026-11-22T05:44:00Z".parse().unwrap());
    metadata.name = "muon-granite-nano-20261122-0544-quiet-otter".into();
    let rows = (1..=200).map(|step| Row {
        step,
        loss: falling(step, 22.0) + 0.3 * noise(step),
        val_loss: step.is_multiple_of(50).then(|| falling(step, 22.0) + 0.03),
        ..Row::default()
    });
    let svg = loss_curve(&metadata, &Metrics { rows: rows.collect(), ..Metrics::default() });
    keep("run", &svg);
    assert!(svg.contains("train, final 2.1") && svg.contains("validation, final 2.2"));
    assert!(svg.contains("entropy floor") && svg.contains("1.8710") && svg.contains("1.84M parameters"));
    assert_eq!(svg.matches("<circle").count(), 5, "four evaluations and the legend");
}

#[test]
fn the_drawing_of_a_small_plot() {
    let points = |shift: f64| (1..=4).map(|at| (f64::from(at), 4.0 / f64::from(at) + shift)).collect();
    let mut gap: Vec<(f64, f64)> = points(0.0);
    gap[2].1 = f64::NAN;
    let all = [
        series(Kind::Curve, gap),
        Series { label: "a < b & c".into(), kind: Kind::Points, points: points(0.25) },
    ];
    let floor = Some(Floor { label: "floor".into(), value: 0.9 });
    let options =
        PlotOptions { title: "small".into(), width: 400, height: 300, floor, ..PlotOptions::default() };
    let svg = loss_svg(&all, &options);
    keep("small", &svg);
    insta::assert_snapshot!(svg);
}

#[test]
fn a_png_has_the_lines_the_markers_and_the_text() {
    let points: Vec<(f64, f64)> = (0..200).map(|at| (at as f64, falling(at, 20.0))).collect();
    let plot = |title: &str, points: Vec<(f64, f64)>| {
        let all = [
            series(Kind::Curve, points.clone()),
            series(Kind::Points, points.into_iter().step_by(40).collect()),
        ];
        let floor = Some(Floor { label: "entropy floor".into(), value: 1.9 });
        let options = PlotOptions {
            title: title.into(),
            subtitle: "muon \u{b7} granite-nano (1.26M parameters)".into(),
            floor,
            ..PlotOptions::default()
        };
        loss_png(&all, &options)
    };
    let png = plot("a run", points.clone());
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("plots");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("small.png"), &png).unwrap();
    assert_eq!(png, plot("a run", points.clone()), "the same bytes");
    let picture = Pixmap::decode_png(&png).unwrap();
    assert_eq!((picture.width(), picture.height()), (1800, 1040));
    let count = |wanted: (u8, u8, u8)| {
        let is = |pixel: &&PremultipliedColorU8| (pixel.red(), pixel.green(), pixel.blue()) == wanted;
        picture.pixels().iter().filter(is).count()
    };
    assert!(count((0x1f, 0x5f, 0xd0)) > 2000, "the smoothed line");
    assert!(count((0xd9, 0x48, 0x0f)) > 5 * 100, "the markers");
    assert!(count((0x1b, 0x1f, 0x24)) > 300 && count((0x40, 0x48, 0x52)) > 300, "title and labels");
    assert!(count((255, 255, 255)) > 1_500_000 && picture.pixels().iter().all(|pixel| pixel.alpha() == 255));
    assert_ne!(png, plot("another run", points));
    // What the font has not, and what has no line, is no reason to fail.
    assert!(!plot("\u{6f22}\u{5b57}\u{1}\u{1f600}", vec![(1.0, f64::NAN), (2.0, 3.0)]).is_empty());
    assert!(!plot("", vec![]).is_empty());
}

#[test]
fn a_million_points_stay_small_and_keep_their_spike() {
    let mut points: Vec<(f64, f64)> =
        (0..1_000_000).map(|at| (at as f64, falling(at, 60_000.0) + 0.5 * noise(at))).collect();
    points[640_000].1 = 6.0;
    let svg = plot(points.clone());
    keep("million", &svg);
    assert!(svg.len() < 60_000, "{}", svg.len());
    points[640_000].1 = 3.0;
    assert_ne!(plot(points), svg);
}

#[test]
fn gaps_and_what_could_not_be_drawn_are_told() {
    let points: Vec<(f64, f64)> = (0..300)
        .map(|at| {
            (
                at as f64,
                if (120..150).contains(&at) || at > 280 {
                    f64::NAN
                } else {
                    falling(at, 40.0) + 0.3 * noise(at)
                },
            )
        })
        .collect();
    let svg = plot(points);
    keep("gaps", &svg);
    assert!(svg.contains("49 values not drawn: not finite or too large<"));
    assert_eq!(svg.matches("stroke-opacity").count(), 2, "two unbroken lines");
}

#[test]
fn odd_series_still_give_a_plot() {
    for (name, points, told) in [
        ("none", vec![], "nothing to draw"),
        ("all-nan", vec![(1.0, f64::NAN); 5], "5 values not drawn"),
        ("one", vec![(1.0, 2.5)], "<circle"),
        ("constant", (0..100).map(|at| (f64::from(at), 2.0)).collect(), "2.0"),
        ("zero", vec![(1.0, 0.0), (2.0, 0.0)], "0"),
        ("huge", vec![(1.0, 1e29), (2.0, 1.0), (3.0, 1e300)], "1 value not drawn"),
        ("same-x", (0..50).map(|at| (3.0, f64::from(at))).collect(), "3"),
    ] {
        let svg = plot(points);
        keep(name, &svg);
        assert!(svg.contains(told), "{name}");
    }
}

#[test]
fn a_logarithmic_axis_spreads_the_decades() {
    let points = |n: u64| {
        (0..n).map(|at| (at as f64, 1e4 * (-(at as f64) / 60.0).exp() * (1.3 + noise(at)))).collect()
    };
    let options = PlotOptions { log_y: true, title: "logarithmic".into(), ..PlotOptions::default() };
    let mut all = [series(Kind::Curve, points(500))];
    all[0].points[7].1 = 0.0;
    let svg = loss_svg(&all, &options);
    keep("log", &svg);
    for label in
        [">10<", ">100<", ">1k<", ">10k<", "1 value not drawn: not finite, too large or not positive"]
    {
        assert!(svg.contains(label), "{label}");
    }
}

#[test]
fn many_series_are_told_apart() {
    let all: Vec<Series> = (0..7)
        .map(|run| Series {
            label: format!("muon-granite-nano, seed {run}"),
            kind: Kind::Curve,
            points: (1..400)
                .map(|at| (at as f64, falling(at, 20.0 + 9.0 * run as f64) + 0.2 * noise(at + 1000 * run)))
                .collect(),
        })
        .collect();
    let svg = loss_svg(&all, &PlotOptions { title: "seven".into(), ..PlotOptions::default() });
    keep("many", &svg);
    assert!(all.iter().all(|one| svg.contains(&one.label)));
}

#[test]
fn text_cannot_break_the_document() {
    let options = PlotOptions { title: "</title><script>\u{1}\"".into(), ..PlotOptions::default() };
    let svg = loss_svg(&[], &options);
    keep("text", &svg);
    assert!(svg.contains("&lt;/title&gt;&lt;script&gt;\u{fffd}&quot;"));
}

/// A run with this floor, its losses above `low`.
fn run(name: &str, floor: f64, low: f64) -> (Metadata, Metrics) {
    let setup = Setup { entropy_floor: Some(floor), ..Setup::default() };
    let mut metadata = Metadata::new(vec![], setup, "2026-11-22T05:44:00Z".parse().unwrap());
    metadata.name = name.into();
    let rows = (1..=300).map(|step| Row {
        step,
        loss: low + 4.0 / (1.0 + step as f64 / 20.0) + 0.1 * noise(step),
        val_loss: step.is_multiple_of(100).then_some(low + 0.5),
        ..Row::default()
    });
    (metadata, Metrics { rows: rows.collect(), ..Metrics::default() })
}

#[test]
fn several_runs_share_a_plot_and_a_floor_that_is_the_same() {
    let runs = [run("muon", 1.5, 1.6), run("adamw", 1.5, 2.0)];
    let (series, options) = of_several(&runs, Loss::Train);
    let svg = loss_svg(&series, &options);
    keep("several", &svg);
    assert!(svg.contains("muon, final 1.8") && svg.contains("adamw, final 2.2"), "{svg}");
    assert!(svg.contains("training loss of 2 runs") && svg.contains("1.5000"));
    let (series, options) = of_several(&[run("a", 1.5, 1.6), run("b", 1.4, 1.6)], Loss::Validation);
    assert_eq!((options.floor, series[0].points.len()), (None, 3));
}

#[test]
fn the_plot_in_characters() {
    let runs = [run("muon", 1.5, 1.6), run("adamw", 1.5, 2.4)];
    let (series, options) = of_several(&runs, Loss::Train);
    let plot = TextPlot { width: 64, height: 14, charset: Charset::Ascii, colour: false };
    let text = loss_text(&series, &options, plot);
    assert!(text.is_ascii() && text.lines().all(|line| line.len() <= 64), "{text}");
    insta::assert_snapshot!(text);
    let coloured = loss_text(&series, &options, TextPlot { colour: true, ..plot });
    let bare = coloured.replace("\x1b[34m", "").replace("\x1b[31m", "").replace("\x1b[0m", "");
    assert!(coloured.contains("\x1b[34m*") && bare == text, "{coloured}");
}

#[test]
fn odd_series_still_give_a_plot_in_characters() {
    let plot = TextPlot { width: 0, height: 0, charset: Charset::Unicode, colour: false };
    for points in
        [vec![], vec![(1.0, f64::NAN)], vec![(1.0, 2.5)], vec![(1.0, 1e29), (2.0, 1.0)], vec![(3.0, 0.0); 9]]
    {
        let none = points.iter().all(|point| point.1.is_nan());
        let text = loss_text(&[series(Kind::Curve, points)], &PlotOptions::default(), plot);
        assert_eq!(text.contains("nothing to draw"), none, "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
    }
}
