//! The sources of the kernels as a whole.

use std::collections::HashSet;

use super::KERNELS;
use crate::DType;
use crate::cuda::{compile_verbose, libraries};

#[test]
fn every_source_compiles_without_a_warning_for_both_types_and_architectures() {
    if let Err(error) = libraries::require(libraries::Lib::Nvrtc) {
        eprintln!(
            "SKIPPED every_source_compiles_without_a_warning_for_both_types_and_architectures: {error}"
        );
        return;
    }
    for source in KERNELS {
        for (arch, elem) in
            [("sm_80", DType::F32), ("sm_80", DType::BF16), ("sm_90a", DType::F32), ("sm_90a", DType::BF16)]
        {
            let compiled = compile_verbose(source, elem, arch).unwrap();
            assert!(!compiled.log.contains("warning"), "{} {arch} {elem:?}: {}", source.name, compiled.log);
        }
    }
}

/// A file may be in several sources (kernels that are compiled for each of several sizes), and a source of several
/// files.
#[test]
fn every_cuda_file_of_this_crate_is_in_a_source_of_the_list() {
    let mut folders = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "cu") {
                let text = std::fs::read_to_string(&path).unwrap();
                assert!(KERNELS.iter().any(|source| source.text.contains(&text)), "{}", path.display());
            }
        }
    }
    let names: HashSet<&str> = KERNELS.iter().map(|source| source.name).collect();
    assert_eq!(names.len(), KERNELS.len(), "no source is listed twice");
}
