//! Compiled kernels on disk, named by a hash of everything they depend on.
//!
//! A file is the machine code followed by its own 32-byte BLAKE3 hash, so that a damaged one is noticed and made anew.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Result;

/// What came of the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Read from disk.
    Hit,
    /// Compiled and written.
    Stored,
    /// Compiled, but not written, and why.
    NotStored(String),
}

/// The folder of compiled kernels: `kernels` under `$MUON_CACHE`, `$XDG_CACHE_HOME/muonbench` or `~/.cache/muonbench`;
/// `None` where none of these is set.
pub fn folder() -> Option<PathBuf> {
    folder_of(&|name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from))
}

fn folder_of(set: &dyn Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    set("MUON_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|root| root.join("muonbench")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/muonbench")))
        .map(|root| root.join("kernels"))
}

/// The machine code for these inputs, from `folder` or else from `compile`.
pub(super) fn get(
    folder: Option<&Path>,
    inputs: &[String],
    compile: impl FnOnce() -> Result<Vec<u8>>,
) -> Result<(Vec<u8>, Outcome)> {
    let Some(folder) = folder else {
        let reason = "set MUON_CACHE to a folder: neither it nor XDG_CACHE_HOME nor HOME is set".to_owned();
        return Ok((compile()?, Outcome::NotStored(reason)));
    };
    let path = folder.join(format!("{}.cubin", key(inputs)));
    if let Some(cubin) = fs::read(&path).ok().and_then(unseal) {
        return Ok((cubin, Outcome::Hit));
    }
    let cubin = compile()?;
    let outcome = match store(&path, &cubin) {
        Ok(()) => Outcome::Stored,
        Err(error) => Outcome::NotStored(format!("{}: {error}", path.display())),
    };
    Ok((cubin, outcome))
}

/// Keeps machine code that was made of these inputs, for any later run with this cache.
pub(super) fn keep(folder: &Path, inputs: &[String], cubin: &[u8]) -> io::Result<()> {
    store(&folder.join(format!("{}.cubin", key(inputs))), cubin)
}

fn key(inputs: &[String]) -> String {
    let mut hasher = blake3::Hasher::new();
    for input in inputs {
        hasher.update(&(input.len() as u64).to_le_bytes());
        hasher.update(input.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// The code in a file's bytes, if they are whole.
fn unseal(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    let end = bytes.len().checked_sub(blake3::OUT_LEN)?;
    let whole = blake3::hash(&bytes[..end]).as_bytes() == &bytes[end..];
    bytes.truncate(end);
    whole.then_some(bytes)
}

/// Writes under a name of its own, then renames: another process sees the whole file or none.
fn store(path: &Path, cubin: &[u8]) -> io::Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_extension(format!("{}-{count}.tmp", std::process::id()));
    let sealed = [cubin, blake3::hash(cubin).as_bytes()].concat();
    let written = fs::write(&temporary, sealed).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // It may not exist; the error that matters is the one returned.
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("muon-cache-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Scratch(path)
        }

        fn files(&self) -> Vec<PathBuf> {
            fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path()).collect()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn texts(inputs: &[&str]) -> Vec<String> {
        inputs.iter().map(|&input| input.to_owned()).collect()
    }

    fn never() -> Result<Vec<u8>> {
        panic!("compiled although it was cached")
    }

    #[test]
    fn a_second_request_is_a_hit_and_other_inputs_are_not() {
        let scratch = Scratch::new("hit");
        let folder = Some(scratch.0.as_path());
        let inputs = texts(&["13.0", "a.cu", "text"]);
        let made = get(folder, &inputs, || Ok(b"code".to_vec())).unwrap();
        assert_eq!(made, (b"code".to_vec(), Outcome::Stored));
        assert_eq!(get(folder, &inputs, never).unwrap(), (b"code".to_vec(), Outcome::Hit));
        for other in [["13.1", "a.cu", "text"], ["13.0", "a.cut", "ext"]] {
            let made = get(folder, &texts(&other), || Ok(b"other".to_vec())).unwrap();
            assert_eq!(made.1, Outcome::Stored, "{other:?}");
        }
        assert_eq!(scratch.files().len(), 3);
    }

    #[test]
    fn a_damaged_file_is_compiled_anew_and_mended() {
        let scratch = Scratch::new("damage");
        let folder = Some(scratch.0.as_path());
        let inputs = texts(&["x"]);
        get(folder, &inputs, || Ok(b"some code".to_vec())).unwrap();
        let file = scratch.files().pop().unwrap();
        let whole = fs::read(&file).unwrap();
        let mut flipped = whole.clone();
        flipped[3] ^= 1;
        for damaged in [&whole[..whole.len() - 1], &whole[..5], b"", &flipped] {
            fs::write(&file, damaged).unwrap();
            let made = get(folder, &inputs, || Ok(b"some code".to_vec())).unwrap();
            assert_eq!(made.1, Outcome::Stored);
            assert_eq!(fs::read(&file).unwrap(), whole);
        }
        assert_eq!(scratch.files(), [file], "no temporary file stays");
    }

    #[test]
    fn a_folder_that_cannot_be_written_costs_the_cache_only_and_is_told() {
        let scratch = Scratch::new("blocked");
        fs::write(&scratch.0, "a file where the folder should be").unwrap();
        let (cubin, outcome) = get(Some(&scratch.0), &texts(&["x"]), || Ok(b"code".to_vec())).unwrap();
        assert_eq!(cubin, b"code");
        assert!(matches!(outcome, Outcome::NotStored(reason) if reason.contains("muon-cache-blocked")));
        fs::remove_file(&scratch.0).unwrap();
    }

    #[test]
    fn a_compile_error_leaves_nothing() {
        let scratch = Scratch::new("error");
        let refuse = || Err(Error::KernelCompile { file: "a.cu".into(), log: "no".into() });
        assert!(get(Some(&scratch.0), &texts(&["x"]), refuse).is_err());
        assert!(!scratch.0.exists());
    }

    #[test]
    fn the_folder_follows_the_environment_in_order() {
        let with = |names: &'static [&str]| {
            folder_of(&move |name| names.contains(&name).then(|| PathBuf::from(format!("/{name}"))))
        };
        assert_eq!(with(&["MUON_CACHE", "XDG_CACHE_HOME", "HOME"]), Some("/MUON_CACHE/kernels".into()));
        assert_eq!(with(&["XDG_CACHE_HOME", "HOME"]), Some("/XDG_CACHE_HOME/muonbench/kernels".into()));
        assert_eq!(with(&["HOME"]), Some("/HOME/.cache/muonbench/kernels".into()));
        assert_eq!(with(&[]), None);
    }
}
