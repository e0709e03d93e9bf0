//! `muon watch`: the curves of a run in the terminal, as it goes.
//!
//! The cast: [`state::App`] is what is known, read from the run store alone and step by step; [`view::draw`] puts it on
//! a frame and touches nothing else; here are the terminal, the keys and the clock.

mod curve;
mod state;
mod view;

use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use self::state::App;
use self::view::Look;
use crate::error::Told;
use crate::output::{colour, json};
use crate::signals::Signals;
use crate::store_args::{StoreArgs, usage};

/// How long a key is waited for before the run is looked at again.
const PAUSE: Duration = Duration::from_millis(500);
/// How often a signal is looked for meanwhile.
const BLINK: Duration = Duration::from_millis(100);

/// Flags of `watch`.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// A run's name, the beginning of one, or `last`; unset, the one that runs, or the last one
    run: Option<String>,
    #[command(flatten)]
    store: StoreArgs,
}

/// Shows the run until `q` or Ctrl-C; the terminal is put back as it was, also after a panic.
pub fn run(args: &WatchArgs) -> anyhow::Result<()> {
    let lines = "(muon logs RUN --follow gives lines, muon status --json an object)";
    if json() {
        return Err(usage(format!("watch draws, and has no JSON {lines}")));
    }
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    if dumb || !io::stdout().is_terminal() {
        return Err(usage(format!("watch draws on a terminal, and this is none it can draw on {lines}")));
    }
    let mut app = App::new(args.store.store(), args.run.as_deref())?;
    app.look = Look { ascii: !unicode(), colours: colour() };
    let signals = Signals::watch().context("cannot listen for signals")?;
    let mut terminal = ratatui::try_init().context("cannot draw on this terminal")?;
    let shown = show(&mut terminal, &mut app, &signals);
    ratatui::restore();
    match shown? {
        Some(signal) => Err(Told(128 + signal as u8).into()),
        None => Ok(()),
    }
}

/// Draws until it is to end; the signal that ended it, if one did.
fn show(terminal: &mut DefaultTerminal, app: &mut App, signals: &Signals) -> anyhow::Result<Option<i32>> {
    loop {
        app.look();
        terminal.draw(|frame| view::draw(frame, app))?;
        let looked = Instant::now();
        while looked.elapsed() < PAUSE {
            if let Some(signal) = signals.came() {
                return Ok(Some(signal));
            }
            if !event::poll(BLINK)? {
                continue;
            }
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => {
                    let control = key.modifiers.contains(KeyModifiers::CONTROL);
                    if !press(app, key.code, control) {
                        return Ok(None);
                    }
                    break;
                }
                Event::Resize(..) => break,
                _ => {}
            }
        }
    }
}

/// Does what a key says; false where it says to end.
fn press(app: &mut App, key: KeyCode, control: bool) -> bool {
    match key {
        KeyCode::Char('q') | KeyCode::Esc => return false,
        KeyCode::Char('c') if control => return false,
        KeyCode::Tab | KeyCode::Right | KeyCode::Down => app.turn(1),
        KeyCode::BackTab | KeyCode::Left | KeyCode::Up => app.turn(-1),
        KeyCode::Char('l') => app.log = !app.log,
        KeyCode::Char('z') => app.recent = !app.recent,
        _ => {}
    }
    true
}

/// Whether the terminal is said to show more than ASCII.
fn unicode() -> bool {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default();
    let locale = locale.to_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}
