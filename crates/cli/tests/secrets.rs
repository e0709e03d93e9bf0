//! Secrets go nowhere: two of them, one in secrets/.env and one in the environment, are put wherever a user might, and
//! then looked for in all that was printed or written.

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{Muon, SMALL};

const IN_FILE: &str = "hf_Canary7fileQ2wZx93LmNbVc81";
const IN_ENVIRONMENT: &str = "wbCanary5envK8rTy46HgFdSa20qP";

/// What must not be found: each secret, its halves, and its base64.
fn needles() -> Vec<String> {
    let forms = |secret: &str| {
        let (first, second) = secret.split_at(secret.len().div_ceil(2));
        // Without the last characters, which depend on what follows.
        let encoded = base64(secret.as_bytes());
        [first.to_owned(), second.to_owned(), encoded[..encoded.len() / 2].to_owned()]
    };
    [IN_FILE, IN_ENVIRONMENT].into_iter().flat_map(forms).collect()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = bytes.chunks_exact(3).flat_map(|three| {
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        [18, 12, 6, 0].map(|shift| DIGITS[(bits >> shift) as usize & 63] as char)
    });
    digits.collect()
}

/// A repository with both secrets.
struct Project {
    muon: Muon,
    /// Files with a secret that the test itself put there.
    planted: Vec<PathBuf>,
    /// Commands that masked something.
    masked: usize,
}

impl Project {
    fn new() -> Self {
        let muon = Muon::new();
        for args in
            [&["init", "-q"][..], &["config", "user.name", "t"], &["config", "user.email", "t@example.com"]]
        {
            let status = Command::new("git").args(args).current_dir(muon.dir()).status();
            assert!(status.expect("these tests need git").success());
        }
        let mut project = Self { muon, planted: Vec::new(), masked: 0 };
        project.plant("secrets/.env", &format!("# mine\nexport HF_TOKEN='{IN_FILE}'\n"));
        project.chmod(0o600);
        project
    }

    fn chmod(&self, mode: u32) {
        let file = self.muon.dir().join("secrets/.env");
        fs::set_permissions(file, Permissions::from_mode(mode)).expect("a mode");
    }

    fn plant(&mut self, name: &str, text: &str) {
        self.muon.write(name, text);
        self.planted.push(self.muon.dir().join(name));
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.muon.command(args);
        command.envs([("WANDB_API_KEY", IN_ENVIRONMENT), ("RUST_BACKTRACE", "1")]);
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command
    }

    /// Runs it and looks at what it prints.
    fn checked(&mut self, command: &mut Command) -> Output {
        let output = command.output().expect("muon runs");
        let told = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
        clean(&format!("{command:?}").replace(IN_FILE, "FILE").replace(IN_ENVIRONMENT, "ENVIRONMENT"), &told);
        self.masked += usize::from(String::from_utf8_lossy(&told).contains("***"));
        output
    }

    fn run(&mut self, args: &[&str]) -> Output {
        let mut command = self.command(args);
        self.checked(&mut command)
    }
}

fn clean(what: &str, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for needle in needles() {
        assert!(!text.contains(&needle), "{what} has {needle}: {text}");
    }
}

/// Looks at every file below a folder but those that were planted.
fn clean_below(folder: &Path, planted: &[PathBuf]) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            count += clean_below(&path, planted);
        } else if !planted.contains(&path) {
            clean(&path.display().to_string(), &fs::read(&path).expect("a file"));
            clean("a name", path.as_os_str().as_encoded_bytes());
            count += 1;
        }
    }
    count
}

#[test]
fn no_secret_is_printed_or_written() {
    let mut project = Project::new();
    let train = |rest: &[&'static str]| [&["train"][..], &SMALL, rest].concat();
    assert!(project.run(&train(&["--name", "plain"])).status.success());

    // On the command line, wherever it stands, it is refused before anything else.
    for secret in [IN_FILE, IN_ENVIRONMENT] {
        let (svg, set) = (format!("{secret}.svg"), format!("data.source=x/{secret}/y"));
        let commands: [&[&str]; 18] = [
            &[secret],
            &["train", secret],
            &["train", "--data", secret],
            &["train", "--name", secret, "--dry-run"],
            &["train", "--set", &set],
            &["train", "--recipe", secret],
            &["resume", secret],
            &["show", secret],
            &["logs", secret],
            &["runs", "--filter", secret],
            &["plot", "plain", "--out", &svg],
            &["rm", secret, "--yes"],
            &["commit", secret],
            &["setup", "--drive-path", secret],
            &["optimizers", secret],
            &["lab", "replay", "--in", secret],
            &["bench", "step", "--set", &set],
            &["man", "--out", secret],
        ];
        for args in commands {
            let output = project.run(args);
            assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
        }
        // In what becomes the recipe of a run.
        let mut command = project.command(&train(&["--name", "environment"]));
        assert_eq!(project.checked(command.env("MUON_DATA__SOURCE", secret)).status.code(), Some(2));
        project.plant("secret.toml", &format!("[data]\nsource = \"a/{secret}\"\n"));
        for rest in [&["--recipe", "secret.toml"][..], &["--recipe", "secret.toml", "--dry-run"]] {
            assert_eq!(project.run(&train(rest)).status.code(), Some(2));
        }
        // In files that are wrong, where a message quotes them.
        project.plant("syntax.toml", &format!("[data]\nsource = {secret}\n"));
        project.plant("key.toml", &format!("[data]\n{secret} = 1\n"));
        project.plant("value.toml", &format!("[train]\nprecision = \"{secret}\"\n"));
        project.plant("bad.jsonl", &format!("{{\"text\": {secret}\n"));
        for rest in [
            &["--recipe", "syntax.toml"][..],
            &["--recipe", "key.toml"],
            &["--recipe", "value.toml"],
            &["--data", "bad.jsonl", "--tokenizer", "bytes"],
        ] {
            assert!(!project.run(&train(rest)).status.success());
        }
        // In runs that are from elsewhere, whole or cut.
        let from = |name: &str| {
            fs::read_to_string(project.muon.dir().join("results/plain").join(name)).expect("a file")
        };
        let (metadata, metrics) = (from("metadata.json"), from("metrics.csv"));
        project.plant("results/other/metadata.json", &metadata.replace("granite-nano", secret));
        project.plant("results/other/metrics.csv", &format!("{metrics}{}{secret}", "x".repeat(25)));
        for args in [
            &["show", "other"][..],
            &["show", "other", "--json"],
            &["logs", "other"],
            &["runs"],
            &["runs", "--json"],
            &["plot", "other"],
        ] {
            assert!(project.run(args).status.success(), "{args:?}");
        }
        project.plant("results/broken/metadata.json", &format!("{{\"schema\": \"{secret}\"}}"));
        for args in [&["show", "broken"][..], &["runs"], &["resume", "broken"]] {
            project.run(args);
        }
        // In what is committed.
        project.plant("notes.md", &format!("the token is {secret}\n"));
        for args in
            [&["commit", "notes", "--dry-run"][..], &["commit", "notes"], &["commit", "notes", "--json"]]
        {
            assert_eq!(project.run(args).status.code(), Some(3));
        }
    }
    for args in [
        &["doctor"][..],
        &["setup"],
        &["setup", "--json"],
        &["resume", "plain", "--extend-steps", "1"],
        &["plot", "plain", "--out", "plain.svg", "--png", "plain.png"],
        &["bench", "optim", "--help"],
        &["optimizers"],
        &["completions", "bash"],
        &["man", "--out", "pages"],
        &["rm", "plain"],
    ] {
        let code = project.run(args).status.code();
        assert_eq!(code, Some(if args[0] == "rm" { 2 } else { 0 }), "{args:?}");
    }
    let doctor = project.run(&["doctor"]).stdout;
    let told = String::from_utf8_lossy(&doctor);
    assert!(told.contains("WANDB_API_KEY (environment), HF_TOKEN (secrets/.env)"), "{told}");

    // A file that others can read, and one with a line that is none.
    project.chmod(0o640);
    let output = project.run(&["runs"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(3) && told.contains("mode 640): chmod 600 "), "{told}");
    assert!(project.run(&["doctor"]).status.success());
    project.chmod(0o600);
    project.plant("secrets/.env", &format!("HF_TOKEN={IN_FILE}\n{IN_FILE}\n"));
    let output = project.run(&train(&["--name", "never"]));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(3) && told.contains("secrets/.env: line 2: "), "{told}");

    assert!(project.masked >= 10, "only {} commands had something to mask", project.masked);
    let files = clean_below(project.muon.dir(), &project.planted);
    assert!(files > 40, "only {files} files were looked at");
    assert!(!project.muon.dir().join("results/never").exists());
}

/// Whatever is printed passes the mask: `output::print` and `progress::note` are the only ways out.
#[test]
fn nothing_is_printed_past_the_mask() {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = fs::read_to_string(&path).expect("text");
                for way in ["println!(", "print!(", "dbg!("] {
                    assert!(!text.contains(way), "{}: {way}...) is not masked", path.display());
                }
                files += 1;
            }
        }
    }
    assert!(files > 30, "only {files} files were looked at");
}
