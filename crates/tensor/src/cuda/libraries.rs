//! Finds the CUDA libraries at run time and says what is missing.
//!
//! A library is looked for on the loader's own path, then in `$CUDA_HOME`, `$CUDA_PATH`, `/usr/local/cuda*`,
//! `$CONDA_PREFIX`, and in the `nvidia-*` wheels of Python environments; `python3` is run, once, to tell its module
//! path, only when looking beside it was in vain. What was found is opened by its path with global visibility, so that
//! cudarc's own search by name gets the same library. Every function that this crate calls is looked up before the
//! first call, since cudarc panics on a missing one.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libloading::Library;

pub(crate) use super::catalogue::Lib;
use super::catalogue::{Spec, TABLE, spec};
use super::{search, versions};
use crate::error::{Error, Result};

/// What is known about one library on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name, such as `cuBLAS`.
    pub name: &'static str,
    /// Where it was loaded from; `None` if it cannot be used.
    pub path: Option<PathBuf>,
    /// The version it reports.
    pub version: Option<String>,
    /// What is wrong and how to get it; empty when all is well.
    pub remedy: String,
}

/// Looks for every library that the GPU path needs. Nothing of it starts a GPU.
pub fn survey() -> Vec<Found> {
    TABLE
        .iter()
        .map(|spec| match open(spec.lib) {
            Ok(loaded) => Found {
                name: spec.name,
                path: Some(loaded.path.clone()),
                version: versions::version(spec.lib, &loaded.handle),
                remedy: String::new(),
            },
            Err(missing) => Found {
                name: spec.name,
                path: None,
                version: None,
                remedy: match missing {
                    Missing::Absent => spec.remedy(),
                    Missing::Unusable(reason) => format!("{reason}; {}", spec.remedy()),
                },
            },
        })
        .collect()
}

/// Loads a library and those it needs; afterwards cudarc finds it, with every function that this crate calls.
pub(crate) fn require(lib: Lib) -> Result<()> {
    let spec = spec(lib);
    match open(lib) {
        Ok(_) => Ok(()),
        Err(Missing::Absent) => {
            Err(Error::NoLibrary { library: spec.name.to_owned(), remedy: spec.remedy() })
        }
        Err(Missing::Unusable(reason)) => Err(Error::Cuda {
            call: format!("loading {}", spec.name),
            reason: format!("{reason}; {}", spec.remedy()),
        }),
    }
}

struct Loaded {
    handle: Library,
    path: PathBuf,
}

#[derive(Clone, Debug)]
enum Missing {
    /// No such file anywhere.
    Absent,
    /// A file that does not load, or lacks a function.
    Unusable(String),
}

/// Opens a library once a process; the answer is kept, a failure too.
fn open(lib: Lib) -> Result<&'static Loaded, Missing> {
    static OPENED: [OnceLock<Result<Loaded, Missing>>; TABLE.len()] =
        [const { OnceLock::new() }; TABLE.len()];
    OPENED[lib as usize]
        .get_or_init(|| {
            for need in spec(lib).needs {
                // A needed library that is absent shows in the loader's message about this one.
                let _ = open(*need);
            }
            let loaded = find(spec(lib))?;
            probe(spec(lib), &loaded)?;
            Ok(loaded)
        })
        .as_ref()
        .map_err(Clone::clone)
}

fn find(spec: &Spec) -> Result<Loaded, Missing> {
    if let Some(loaded) = find_by_name(spec) {
        return Ok(loaded);
    }
    let mut unusable = None;
    let mut try_folders = |folders: &[PathBuf]| {
        for path in search::files_in(folders, &spec.file_names()) {
            if spec.lib == Lib::Nvrtc {
                open_builtins(&path);
            }
            match dlopen(path.as_os_str()) {
                Ok(handle) if spec.lib == Lib::Nccl || find_by_name(spec).is_some() => {
                    return Some(Loaded { handle, path });
                }
                Ok(_) => {
                    unusable = Some(format!("{} has an unknown version", path.display()));
                }
                Err(error) => {
                    unusable = Some(format!("{} does not load: {error}", path.display()));
                }
            }
        }
        None
    };
    if let Some(loaded) = try_folders(search::folders()) {
        return Ok(loaded);
    }
    if spec.wheel.is_some()
        && let Some(loaded) = try_folders(search::folders_told_by_python())
    {
        return Ok(loaded);
    }
    Err(unusable.map_or(Missing::Absent, Missing::Unusable))
}

/// Opens what lies beside NVRTC and what it opens by name while it compiles, which the loader would find on its own path
/// only. What is missing there shows in NVRTC's own message.
fn open_builtins(nvrtc: &Path) {
    let beside = nvrtc.parent().and_then(|folder| folder.read_dir().ok());
    for entry in beside.into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("libnvrtc-builtins.so") {
            // It stays as long as the process.
            std::mem::forget(dlopen(entry.path().as_os_str()));
        }
    }
}

/// What the loader gives for the bare name: on its path, or loaded before.
fn find_by_name(spec: &Spec) -> Option<Loaded> {
    spec.file_names().into_iter().find_map(|name| {
        let handle = dlopen(OsStr::new(&name)).ok()?;
        let path = search::mapped_file(spec.stem).unwrap_or_else(|| PathBuf::from(name));
        Some(Loaded { handle, path })
    })
}

#[cfg(unix)]
fn dlopen(name: &OsStr) -> Result<Library, libloading::Error> {
    use libloading::os::unix::{Library as Unix, RTLD_GLOBAL, RTLD_NOW};
    // SAFETY: the initialisers that run are those of NVIDIA's libraries, found under their names.
    unsafe { Unix::open(Some(name), RTLD_NOW | RTLD_GLOBAL) }.map(Library::from)
}

#[cfg(not(unix))]
fn dlopen(name: &OsStr) -> Result<Library, libloading::Error> {
    // SAFETY: the initialisers that run are those of NVIDIA's libraries, found under their names.
    unsafe { Library::new(name) }
}

fn probe(spec: &Spec, loaded: &Loaded) -> Result<(), Missing> {
    for symbol in spec.symbols {
        // SAFETY: the address is not used, only its presence.
        if unsafe { loaded.handle.get::<*const ()>(*symbol) }.is_err() {
            let place = loaded.path.display();
            return Err(Missing::Unusable(format!("{place} is too old, it lacks {symbol}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_survey_row_has_a_path_or_a_remedy() {
        let rows = survey();
        assert_eq!(rows.len(), TABLE.len());
        for row in rows {
            assert_eq!(row.path.is_some(), row.remedy.is_empty(), "{row:?}");
            assert!(row.path.is_some() || row.remedy.contains("install"), "{row:?}");
        }
    }

    #[test]
    fn a_missing_library_is_an_error_with_its_remedy() {
        for spec in &TABLE {
            match require(spec.lib) {
                Ok(()) => {}
                Err(error) => assert!(error.to_string().contains("install"), "{error}"),
            }
        }
    }

    #[test]
    fn every_function_that_is_called_is_probed() {
        let sources = [
            include_str!("blas.rs"),
            include_str!("gemm.rs"),
            include_str!("check.rs"),
            include_str!("cholesky.rs"),
            include_str!("copies.rs"),
            include_str!("gpu.rs"),
            include_str!("graph.rs"),
            include_str!("kernels.rs"),
            include_str!("lt.rs"),
            include_str!("nvrtc.rs"),
            include_str!("profile.rs"),
            include_str!("solver.rs"),
            include_str!("staged.rs"),
            include_str!("tma.rs"),
            include_str!("tune.rs"),
        ];
        let probed: Vec<&str> = TABLE.iter().flat_map(|spec| spec.symbols).copied().collect();
        let mut called = Vec::new();
        for after in sources.iter().flat_map(|text| text.split("sys::").skip(1)) {
            let name: String = after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if after[name.len()..].starts_with('(') {
                assert!(probed.contains(&name.as_str()), "{name} is called but not probed");
                called.push(name);
            }
        }
        for symbol in probed {
            assert!(called.iter().any(|name| name == symbol), "{symbol} is probed but never called");
        }
    }
}
