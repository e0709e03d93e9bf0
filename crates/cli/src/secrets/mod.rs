//! The secrets of this project: read in one place, looked for in what goes out, never shown.
//!
//! They are the values in `secrets/.env` of the project's folder, and the variables of the environment that go by a name
//! in that file, by one of [`KNOWN`], or by one that ends like a secret's ([`ENDINGS`]); of one name that of the
//! environment is in force. What the command prints passes [`mask`]; a command line, a variable or a recipe that holds
//! one is refused ([`refuse`]), since it would be written down and shown to others.
//!
//! A value is a [`SecretString`]: it has no `Display` and no `Serialize`, and its `Debug` says nothing.

mod file;
mod mask;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::borrow::Cow;
use std::ffi::OsString;
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use secrecy::{ExposeSecret as _, SecretString};

use crate::error::{BadFile, Usage};
use crate::progress::note;

/// The file, in the project's folder.
pub const FILE: &str = "secrets/.env";
/// The names in the template.
pub const KNOWN: [&str; 2] = ["WANDB_API_KEY", "HF_TOKEN"];
/// Variables of the environment with such names are secrets.
const ENDINGS: [&str; 4] = ["_KEY", "_TOKEN", "_SECRET", "_PASSWORD"];
/// A value of fewer bytes is masked and looked for nowhere: it is in every text.
const SHORTEST: usize = 8;

static ALL: OnceLock<Secrets> = OnceLock::new();

/// Where a secret is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The environment.
    Environment,
    /// `secrets/.env`.
    File,
}

/// One secret.
#[derive(Clone, Debug)]
struct Secret {
    name: String,
    value: SecretString,
    origin: Origin,
}

/// All of them, those of the environment first.
#[derive(Debug, Default)]
struct Secrets {
    all: Vec<Secret>,
    /// What is wrong with the file.
    wrong: Option<String>,
}

/// Reads the secrets, before anything is printed, and has panics masked.
pub fn start() {
    let (named, wrong) = file::read(&project().join(FILE));
    ALL.get_or_init(|| Secrets { wrong, ..Secrets::of(named, std::env::vars_os()) });
    panic::set_hook(Box::new(|info| {
        let trace = Backtrace::capture();
        let captured = trace.status() == BacktraceStatus::Captured;
        let trace = if captured { format!("\n{trace}") } else { String::new() };
        note(&format!("internal error: {info}{trace}"));
    }));
}

/// Why the file cannot be used; what could be read of it is masked all the same.
pub fn wrong() -> Option<BadFile> {
    let reason = ALL.get()?.wrong.clone()?;
    Some(BadFile { path: project().join(FILE), reason })
}

/// The folder of the project: that of the git repository around this one, or this one.
pub fn project() -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    let root = here.ancestors().find(|folder| folder.join(".git").exists()).map(Path::to_owned);
    root.unwrap_or(here)
}

/// `text` with `***` for every secret in it, and for every piece that is half of one or more.
pub fn mask(text: &str) -> Cow<'_, str> {
    ALL.get().map_or(Cow::Borrowed(text), |all| all.mask(text))
}

/// The name of a secret whose value is in `bytes`.
pub fn in_bytes(bytes: &[u8]) -> Option<&'static str> {
    ALL.get()?.find(bytes)
}

/// Refuses `what` if a secret is in its `bytes`.
pub fn refuse(what: &str, bytes: &[u8]) -> Result<(), Usage> {
    in_bytes(bytes).map_or(Ok(()), |name| {
        Err(Usage(format!(
            "{what} contains the value of {name}, and what stands there is shown to others (take it out; secrets belong \
             into {FILE} or the environment)"
        )))
    })
}

/// The names of the secrets that are set, and where each is from.
pub fn names() -> Vec<(&'static str, Origin)> {
    ALL.get().map_or(Vec::new(), |all| all.all.iter().map(|one| (one.name.as_str(), one.origin)).collect())
}

impl Secrets {
    fn of(
        file: Vec<(String, SecretString)>,
        environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> Self {
        let named = |name: &str| {
            KNOWN.contains(&name)
                || ENDINGS.iter().any(|ending| name.ends_with(ending))
                || file.iter().any(|(known, _)| known == name)
        };
        let mut all: Vec<Secret> = environment
            .filter_map(|(name, value)| {
                Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
            })
            .filter(|(name, _)| named(name))
            .map(|(name, value)| Secret { name, value: value.into(), origin: Origin::Environment })
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all.extend(file.into_iter().map(|(name, value)| Secret { name, value, origin: Origin::File }));
        all.retain(|one| !one.value.expose_secret().is_empty());
        Self { all, wrong: None }
    }

    /// Those that are long enough to be looked for.
    fn long(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.all.iter().map(|one| (one.name.as_str(), one.value.expose_secret()));
        all.filter(|(_, value)| value.len() >= SHORTEST)
    }

    fn find(&self, bytes: &[u8]) -> Option<&str> {
        let within = |value: &str| mask::contains(bytes, value.as_bytes());
        self.long().find(|(_, value)| within(value) || within(&mask::escaped(value))).map(|(name, _)| name)
    }

    fn mask<'a>(&self, text: &'a str) -> Cow<'a, str> {
        mask::mask(text, self.long().map(|(_, value)| value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> Secrets {
        let file = vec![("HF_TOKEN".to_owned(), "of-the-file".into()), ("MINE".to_owned(), "short".into())];
        let environment = [
            ("HF_TOKEN", "of-the-environment"),
            ("MINE", "mine-of-the-environment"),
            ("POD_PASSWORD", "swordfish"),
            ("WANDB_API_KEY", ""),
            ("PATH", "/usr/bin:/usr/sbin"),
        ];
        Secrets::of(file, environment.into_iter().map(|(name, value)| (name.into(), value.into())))
    }

    #[test]
    fn the_environment_comes_first_and_what_is_no_secret_is_none() {
        let all = secrets();
        let names: Vec<(&str, Origin)> = all.all.iter().map(|one| (one.name.as_str(), one.origin)).collect();
        let environment = ["HF_TOKEN", "MINE", "POD_PASSWORD"].map(|name| (name, Origin::Environment));
        assert_eq!(
            names,
            [environment.as_slice(), &[("HF_TOKEN", Origin::File), ("MINE", Origin::File)]].concat()
        );
        assert_eq!(all.find(b"x of-the-file x"), Some("HF_TOKEN"));
        assert_eq!(all.find(b"short /usr/bin:/usr/sbin"), None);
    }

    /// Not a test by itself: what the next one runs in a process of its own.
    #[test]
    #[ignore = "panics on purpose"]
    fn a_panic() {
        start();
        let value = std::env::var("HF_TOKEN").expect("the other test sets it");
        panic!("the value is {value}");
    }

    #[test]
    fn panics_are_masked() {
        let value = "hf_canary_of_a_panic_0123456789";
        let output = std::process::Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "secrets::tests::a_panic", "--ignored", "--nocapture"])
            .envs([("HF_TOKEN", value), ("RUST_BACKTRACE", "1")])
            .output()
            .expect("this test runs");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains("the value is ***") && told.contains("  0: "), "{told}");
        assert!(!told.contains(value) && !output.status.success(), "{told}");
    }

    #[test]
    fn nothing_shows_a_secret() {
        let all = secrets();
        let shown = format!("{all:?} {}", all.mask("swordfish of-the-file mine-of-the-environment"));
        for value in ["swordfish", "of-the-file", "of-the-environment"] {
            assert!(!shown.contains(value), "{shown}");
        }
    }
}
