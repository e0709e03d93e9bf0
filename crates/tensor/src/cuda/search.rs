//! Folders in which CUDA libraries lie: toolkits, conda, and the `nvidia-*` wheels of Python environments.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Folders that can be told from the environment alone; read once a process.
pub(super) fn folders() -> &'static [PathBuf] {
    static FOLDERS: OnceLock<Vec<PathBuf>> = OnceLock::new();
    FOLDERS.get_or_init(|| folders_of(&|name| std::env::var_os(name)))
}

/// Folders of the wheels on the module path of `python3`, which is run once a process to tell it.
pub(super) fn folders_told_by_python() -> &'static [PathBuf] {
    static FOLDERS: OnceLock<Vec<PathBuf>> = OnceLock::new();
    FOLDERS.get_or_init(|| {
        let answer = Command::new("python3")
            .args(["-c", "import sys; print('\\n'.join(sys.path))"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output();
        let text = answer.map_or_else(|_| Vec::new(), |output| output.stdout);
        let mut folders = Vec::new();
        for line in String::from_utf8_lossy(&text).lines().filter(|line| line.starts_with('/')) {
            add_wheels(Path::new(line), &mut folders);
        }
        folders
    })
}

/// The files of these names, folder by folder, name by name.
pub(super) fn files_in(folders: &[PathBuf], names: &[String]) -> Vec<PathBuf> {
    folders
        .iter()
        .flat_map(|folder| names.iter().map(move |name| folder.join(name)))
        .filter(|path| path.is_file())
        .collect()
}

/// The file from which this process has mapped `lib<stem>.so*`, where the operating system tells.
pub(super) fn mapped_file(stem: &str) -> Option<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let prefix = format!("lib{stem}.so");
    maps.lines().find_map(|line| {
        let path = Path::new(&line[line.find('/')?..]);
        let name = path.file_name()?.to_str()?;
        name.starts_with(&prefix).then(|| path.to_owned())
    })
}

fn folders_of(env: &dyn Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let set = |name: &str| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let mut folders = Vec::new();
    for root in [set("CUDA_HOME"), set("CUDA_PATH")].into_iter().flatten() {
        folders.extend([root.join("lib64"), root.join("lib")]);
    }
    // `cuda` before `cuda-13.0` before `cuda-12.8`: the link is what the administrator chose.
    let mut toolkits = children(Path::new("/usr/local"), "cuda");
    toolkits.sort_by_key(|path| {
        (path.as_os_str().len() > "/usr/local/cuda".len(), std::cmp::Reverse(path.clone()))
    });
    folders.extend(toolkits.iter().map(|root| root.join("lib64")));
    // The driver's folders in containers and under WSL.
    folders
        .extend(["/usr/local/nvidia/lib64", "/usr/local/nvidia/lib", "/usr/lib/wsl/lib"].map(PathBuf::from));

    let mut prefixes: Vec<PathBuf> =
        [set("VIRTUAL_ENV"), set("CONDA_PREFIX")].into_iter().flatten().collect();
    folders.extend(set("CONDA_PREFIX").map(|root| root.join("lib")));
    if let Some(path) = env("PATH") {
        prefixes.extend(std::env::split_paths(&path).flat_map(|folder| python_prefixes(&folder)));
    }
    prefixes.push(PathBuf::from("/usr/local"));
    prefixes.extend(set("HOME").map(|home| home.join(".local")));
    for site in env("PYTHONPATH").iter().flat_map(std::env::split_paths).filter(|path| path.is_absolute()) {
        add_wheels(&site, &mut folders);
    }
    for prefix in prefixes {
        for python in ["lib", "lib64"].iter().flat_map(|lib| children(&prefix.join(lib), "python3")) {
            add_wheels(&python.join("site-packages"), &mut folders);
            add_wheels(&python.join("dist-packages"), &mut folders);
        }
    }
    let mut seen = std::collections::HashSet::new();
    folders.retain(|folder| seen.insert(folder.clone()));
    folders
}

/// The prefixes of the `python3` in a folder of the PATH: its own, and that of each file it links to.
fn python_prefixes(folder: &Path) -> Vec<PathBuf> {
    let mut prefixes = Vec::new();
    let mut python = folder.join("python3");
    // As many links as the kernel itself follows.
    for _ in 0..40 {
        if !python.exists() {
            break;
        }
        prefixes.extend(python.parent().and_then(Path::parent).map(Path::to_owned));
        match fs::read_link(&python) {
            Ok(target) => python = python.parent().unwrap_or(Path::new("/")).join(target),
            Err(_) => break,
        }
    }
    prefixes
}

/// The library folders of the wheels under one `site-packages`: CUDA 13's common one first, then one a library.
fn add_wheels(site: &Path, folders: &mut Vec<PathBuf>) {
    let nvidia = site.join("nvidia");
    let mut packages = children(&nvidia, "");
    let is_common =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("cu1"));
    packages.sort_by_key(|path| (!is_common(path), std::cmp::Reverse(path.clone())));
    folders.extend(packages.iter().map(|package| package.join("lib")).filter(|lib| lib.is_dir()));
}

/// The entries of a folder whose names start so, sorted; none if it cannot be read.
fn children(folder: &Path, start: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(start))
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of its own under the system's temporary folder, removed at the end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("muon-search-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Scratch(path)
        }

        fn file(&self, path: &str) -> PathBuf {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            path
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn place_of(folders: &[PathBuf], file: &Path) -> Option<usize> {
        folders.iter().position(|folder| file.parent() == Some(folder))
    }

    #[test]
    fn both_wheel_layouts_are_found_the_common_one_first() {
        let scratch = Scratch::new("wheels");
        let old = scratch.file("lib/python3.12/site-packages/nvidia/cublas/lib/libcublas.so.12");
        let new = scratch.file("lib/python3.12/site-packages/nvidia/cu13/lib/libcublas.so.13");
        let env = |name: &str| (name == "VIRTUAL_ENV").then(|| scratch.0.clone().into_os_string());
        let folders = folders_of(&env);
        assert!(place_of(&folders, &new).unwrap() < place_of(&folders, &old).unwrap());
        let names = ["libcublas.so.13".to_owned(), "libcublas.so.12".to_owned()];
        let ours: Vec<_> =
            files_in(&folders, &names).into_iter().filter(|path| path.starts_with(&scratch.0)).collect();
        assert_eq!(ours, [new, old]);
    }

    #[test]
    fn a_stated_toolkit_comes_before_the_wheels() {
        let scratch = Scratch::new("toolkit");
        let toolkit = scratch.file("cuda/lib64/libnvrtc.so.13");
        let wheel = scratch.file("venv/lib/python3.11/site-packages/nvidia/cu13/lib/libnvrtc.so.13");
        let env = |name: &str| match name {
            "CUDA_HOME" => Some(scratch.0.join("cuda").into_os_string()),
            "VIRTUAL_ENV" => Some(scratch.0.join("venv").into_os_string()),
            _ => None,
        };
        let folders = folders_of(&env);
        assert!(place_of(&folders, &toolkit).unwrap() < place_of(&folders, &wheel).unwrap());
    }

    #[cfg(unix)]
    #[test]
    fn a_linked_python_on_the_path_leads_to_its_environment() {
        let scratch = Scratch::new("path");
        let wheel = scratch.file("env/lib/python3.12/site-packages/nvidia/cu13/lib/libcusolver.so.12");
        scratch.file("env/bin/python3");
        fs::create_dir_all(scratch.0.join("bin")).unwrap();
        std::os::unix::fs::symlink("../env/bin/python3", scratch.0.join("bin/python3")).unwrap();
        let env = |name: &str| (name == "PATH").then(|| scratch.0.join("bin").into_os_string());
        let found = files_in(&folders_of(&env), &["libcusolver.so.12".to_owned()]);
        let found: Vec<_> = found.iter().map(|path| path.canonicalize().unwrap()).collect();
        assert!(found.contains(&wheel.canonicalize().unwrap()), "{found:?}");
    }

    #[test]
    fn an_empty_environment_gives_no_stray_folders() {
        assert!(folders_of(&|_| None).iter().all(|folder| folder.is_absolute()));
    }
}
