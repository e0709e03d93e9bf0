//! Training in the background. The command starts itself once more, passes on what that says until it holds its run, and
//! ends; from there on the run is in a session of its own, and what it says goes to its log.

use std::env;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::Context as _;
use runs::{Log, Run};
use rustix::process::setsid;
use rustix::stdio::{dup2_stderr, dup2_stdout};
use serde::{Deserialize, Serialize};
use serde_json::json;
use train::recipe;

use crate::error::Told;
use crate::output::show;

/// Set for the process that is to go into the background.
const CHILD: &str = "MUON_DETACHED";

/// What the run says when it lets go of the terminal.
#[derive(Serialize, Deserialize)]
struct Started {
    name: String,
    dir: PathBuf,
}

/// Whether this is the process that goes into the background.
pub fn is_child() -> bool {
    env::var_os(CHILD).is_some()
}

/// Starts this command once more for the background. Returns when it holds its run, or with what it failed with.
pub fn start() -> anyhow::Result<()> {
    let program = env::current_exe().context("cannot find the program to start it in the background")?;
    let mut child = Command::new(program)
        .args(env::args_os().skip(1))
        .env(CHILD, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start the training in the background")?;
    let mut errors = child.stderr.take().expect("it is piped");
    let passed_on = thread::spawn(move || io::copy(&mut errors, &mut io::stderr()));
    let mut text = String::new();
    child.stdout.take().expect("it is piped").read_to_string(&mut text)?;
    let _ = passed_on.join();
    let Ok(started) = serde_json::from_str::<Started>(&text) else {
        let status = child.wait()?;
        let code = status.code().or(status.signal().map(|signal| 128 + signal));
        return Err(Told(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)).into());
    };
    let log = started.dir.join("log.txt");
    let value = json!({ "name": started.name, "pid": child.id(), "dir": started.dir, "log": log });
    show(|| value, || told(&started, child.id()))
}

fn told(started: &Started, pid: u32) -> String {
    let name = &started.name;
    let usual = recipe::default("run.results");
    let usual = usual.as_ref().and_then(|value| value.as_str()).map(Path::new);
    let folder = started.dir.parent().filter(|folder| usual != Some(folder));
    let results = folder.map_or(String::new(), |folder| format!(" --results {}", folder.display()));
    let mut text = format!("{name}: runs in the background as process {pid}\n");
    for (verb, what) in [
        ("status", "how far it is"),
        ("logs --follow", "what it says"),
        ("watch", "its curves"),
        ("stop", "saves and ends it"),
    ] {
        let (command, width) = (format!("muon {verb} {name}{results}"), 21 + name.len());
        let _ = writeln!(text, "  {command:<width$}  {what}");
    }
    text
}

/// Lets go of the terminal: a session of its own, and the log in place of standard output and standard error.
pub fn let_go(run: &Run, log: Option<&Log>) -> io::Result<()> {
    let started = Started { name: run.metadata.name.clone(), dir: run.dir().to_owned() };
    let mut out = io::stdout();
    writeln!(out, "{}", serde_json::to_string(&started)?)?;
    out.flush()?;
    // Refused where this process leads a session already, which is as good.
    let _ = setsid();
    let nowhere;
    let file = if let Some(log) = log {
        log.file()
    } else {
        nowhere = File::options().write(true).open("/dev/null")?;
        &nowhere
    };
    dup2_stdout(file)?;
    dup2_stderr(file)?;
    Ok(())
}
