//! `muon watch` on a terminal of its own.
#![cfg(target_os = "linux")]

mod common;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use common::Muon;
use runs::{Metadata, NewRun, Row, Setup, Store};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?1049l";

/// A run of 40 steps.
fn a_run() -> Muon {
    let muon = Muon::new();
    let setup = Setup { steps: 50, ..Setup::default() };
    let metadata = Metadata::new(vec![], setup, "2026-11-22T05:00:00Z".parse().expect("a time"));
    let store = Store::new(muon.dir().join("results"));
    let run = store.create(NewRun { name: "a", prefix: "", recipe: "", metadata }).expect("a run");
    let mut metrics = run.metrics(&[]).expect("metrics");
    for step in 1..=40 {
        let row = Row { step, loss: 5.0 / step as f64, lr: 0.1, tokens_per_s: 1e4, ..Row::default() };
        metrics.append(&row).expect("a row");
    }
    muon
}

/// A terminal with `muon watch` on it.
struct Watch {
    child: Child,
    terminal: File,
    said: Receiver<u8>,
    seen: String,
}

impl Watch {
    fn new(muon: &Muon, env: &[(&str, &str)]) -> Self {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&master).expect("a terminal");
        unlockpt(&master).expect("a terminal");
        let name = ptsname(&master, Vec::new()).expect("a name").into_string().expect("UTF-8");
        let slave = || File::options().read(true).write(true).open(&name).expect("the other end");
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).expect("a size");
        let mut command = muon.command(&["watch"]);
        command.env("TERM", "xterm").env("LANG", "C.UTF-8").envs(env.iter().copied());
        let io = || Stdio::from(slave());
        let child = command.stdin(io()).stdout(io()).stderr(io()).spawn().expect("muon runs");
        let terminal = File::from(master);
        let mut reader = terminal.try_clone().expect("a copy");
        let (send, said) = channel();
        thread::spawn(move || {
            let mut byte = [0];
            while reader.read_exact(&mut byte).is_ok() && send.send(byte[0]).is_ok() {}
        });
        Watch { child, terminal, said, seen: String::new() }
    }

    /// Waits until this word is written (blanks may be drawn as movements) after all that was waited for before.
    fn until(&mut self, text: &str) {
        let began = Instant::now();
        let mut bytes = Vec::new();
        while !String::from_utf8_lossy(&bytes).contains(text) {
            let left = Duration::from_mins(1).saturating_sub(began.elapsed());
            match self.said.recv_timeout(left) {
                Ok(byte) if !left.is_zero() => bytes.push(byte),
                _ => {
                    panic!("no {text:?} after {:?}: {:?}", began.elapsed(), String::from_utf8_lossy(&bytes))
                }
            }
        }
        self.seen += &String::from_utf8_lossy(&bytes);
    }

    fn press(&mut self, key: &str) {
        self.terminal.write_all(key.as_bytes()).expect("a key");
    }

    /// Its exit code, once it has put the terminal back.
    fn ends(mut self) -> Option<i32> {
        self.until(LEAVE);
        let code = self.child.wait().expect("it ends").code();
        let modes = tcgetattr(&self.terminal).expect("its state").local_modes;
        assert!(modes.contains(LocalModes::ECHO | LocalModes::ICANON), "the terminal is as it was");
        code
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

#[test]
fn it_draws_takes_keys_and_sizes_and_puts_the_terminal_back() {
    let muon = a_run();
    let mut watch = Watch::new(&muon, &[]);
    watch.until(ENTER);
    watch.until("[nats/token]");
    watch.press("l");
    watch.until("scale");
    let size = Winsize { ws_row: 12, ws_col: 50, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&watch.terminal, size).expect("a size");
    watch.until("zoom");
    watch.press("q");
    assert_eq!(watch.ends(), Some(0));
}

#[test]
fn ctrl_c_and_sigterm_put_the_terminal_back() {
    let muon = a_run();
    let mut watch = Watch::new(&muon, &[("NO_COLOR", "1")]);
    watch.until("quarter");
    let coloured = ["\x1b[3", "\x1b[38;"].iter().any(|code| watch.seen.contains(&format!("{code}6m")));
    assert!(!coloured, "{:?}", watch.seen);
    watch.press("\x03");
    assert_eq!(watch.ends(), Some(0));
    let mut watch = Watch::new(&muon, &[("LANG", "C")]);
    watch.until("quarter");
    let drawn = watch.seen.trim_end_matches('\u{fffd}');
    assert!(drawn.is_ascii(), "{drawn:?}");
    let pid = rustix::process::Pid::from_child(&watch.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("sent");
    assert_eq!(watch.ends(), Some(143));
}

#[test]
fn a_terminal_that_cannot_be_drawn_on_is_told_what_can() {
    let muon = a_run();
    for (name, value) in [("TERM", "dumb"), ("TERM", "xterm")] {
        // The second one is refused for its pipe.
        let output = muon.command(&["watch"]).env(name, value).output().expect("muon runs");
        let told = common::stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains("muon logs RUN --follow") && told.lines().count() == 1, "{told}");
    }
}
