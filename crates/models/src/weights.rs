//! Reading weights in the Hugging Face layout: `model.safetensors`, or shards listed in
//! `model.safetensors.index.json`, memory-mapped and checked against the configuration before any is read.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use serde_json::Value;
use tensor::params::ParamSpec;

use crate::error::{Error, Result};
use crate::params::{EMBEDDING, HEAD};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The weights of a model folder, open for reading.
pub struct Weights {
    dir: PathBuf,
    shards: Vec<Shard>,
    tensors: HashMap<String, Entry>,
}

struct Shard {
    path: PathBuf,
    map: Mmap,
}

/// Where a tensor is: its shard and its bytes in that shard's file.
struct Entry {
    shard: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

impl Weights {
    /// Opens the weights in `dir` and checks that they are exactly those of `specs`: none missing, none
    /// unknown, every shape as declared, every element type F32, BF16 or F16. `model.safetensors` is
    /// preferred where the index is there too.
    ///
    /// A tied model's file may hold `lm_head.weight` only if it equals the embedding, byte for byte.
    pub fn open(dir: &Path, specs: &[ParamSpec]) -> Result<Self> {
        let mut weights = Weights { dir: dir.to_owned(), shards: Vec::new(), tensors: HashMap::new() };
        let (single, index) = (dir.join(SINGLE), dir.join(INDEX));
        let there = |file: &Path| file.try_exists().map_err(|error| Error::io(file, &error));
        if there(&single)? {
            weights.add_shard(&single)?;
        } else if there(&index)? {
            weights.add_indexed(&index)?;
        } else {
            let reason =
                format!("no {SINGLE} and no {INDEX}; export the model's weights there as safetensors");
            return Err(Error::weights(dir, reason));
        }
        weights.drop_tied_head(specs)?;
        weights.check(specs)?;
        Ok(weights)
    }

    /// The values of a tensor, row-major, widened to f32 (exactly, from every accepted element type).
    pub fn read(&self, name: &str) -> Result<Vec<f32>> {
        let entry =
            self.tensors.get(name).ok_or_else(|| Error::weights(&self.dir, format!("no tensor `{name}`")))?;
        Ok(widen(entry.dtype, self.bytes(entry)).expect("`check` let no other type through"))
    }

    fn bytes(&self, entry: &Entry) -> &[u8] {
        &self.shards[entry.shard].map[entry.bytes.clone()]
    }

    fn add_shard(&mut self, path: &Path) -> Result<()> {
        let file = File::open(path).map_err(|error| Error::io(path, &error))?;
        // SAFETY: the map is only read. Another process that truncates the file meanwhile would end this one,
        // as with every memory-mapped input; weight files are replaced by renaming, which leaves maps intact.
        let map = unsafe { Mmap::map(&file) }.map_err(|error| Error::io(path, &error))?;
        let (header, metadata) =
            SafeTensors::read_metadata(&map).map_err(|error| Error::weights(path, damage(&error, &map)))?;
        let (shard, start) = (self.shards.len(), header + size_of::<u64>());
        for (name, info) in metadata.tensors() {
            let (first, end) = info.data_offsets;
            let bytes = start + first..start + end;
            let entry = Entry { shard, dtype: info.dtype, shape: info.shape.clone(), bytes };
            if let Some(other) = self.tensors.insert(name.clone(), entry) {
                let other = self.shards[other.shard].path.display();
                return Err(Error::weights(
                    path,
                    format!("tensor `{name}` is in {other} as well; remove one of the two"),
                ));
            }
        }
        self.shards.push(Shard { path: path.to_owned(), map });
        Ok(())
    }

    fn add_indexed(&mut self, index: &Path) -> Result<()> {
        let fail = |reason: String| Error::weights(index, reason);
        let text = std::fs::read_to_string(index).map_err(|error| Error::io(index, &error))?;
        let value: Value =
            serde_json::from_str(&text).map_err(|error| fail(format!("not valid JSON: {error}")))?;
        let map = value["weight_map"]
            .as_object()
            .ok_or_else(|| fail("no object `weight_map`; export it again".into()))?;
        let mut files = BTreeSet::new();
        for (name, file) in map {
            match file.as_str() {
                Some(file) if Path::new(file).file_name().is_some_and(|plain| plain == file) => {
                    files.insert(file)
                }
                _ => {
                    return Err(fail(format!(
                        "the shard of `{name}` is {file}; it must be a file name in this folder"
                    )));
                }
            };
        }
        for file in files {
            let path = self.dir.join(file);
            if !path.exists() {
                return Err(fail(format!("shard {file} is not in the folder; fetch or export it again")));
            }
            self.add_shard(&path)?;
        }
        for (name, file) in map {
            let found = self.tensors.get(name).and_then(|entry| self.shards[entry.shard].path.file_name());
            if found.and_then(|name| name.to_str()) != file.as_str() {
                return Err(fail(format!(
                    "tensor `{name}` is not in its shard {file}; export the model again"
                )));
            }
        }
        Ok(())
    }

    fn drop_tied_head(&mut self, specs: &[ParamSpec]) -> Result<()> {
        if specs.iter().any(|spec| spec.name == HEAD) {
            return Ok(());
        }
        let Some(head) = self.tensors.remove(HEAD) else {
            return Ok(());
        };
        match self.tensors.get(EMBEDDING) {
            Some(embedding) if self.bytes(embedding) != self.bytes(&head) => Err(Error::weights(
                &self.shards[head.shard].path,
                format!(
                    "{HEAD} differs from {EMBEDDING}, which the config ties; set tie_word_embeddings to false"
                ),
            )),
            _ => Ok(()),
        }
    }

    fn check(&self, specs: &[ParamSpec]) -> Result<()> {
        let missing: Vec<&str> = specs
            .iter()
            .map(|spec| spec.name.as_str())
            .filter(|name| !self.tensors.contains_key(*name))
            .collect();
        if !missing.is_empty() {
            return Err(Error::weights(
                &self.dir,
                format!("{}; do the weights belong to this config.json?", listed("missing tensor", &missing)),
            ));
        }
        for spec in specs {
            let (name, entry) = (&spec.name, &self.tensors[&spec.name]);
            let path = &self.shards[entry.shard].path;
            if entry.shape != spec.shape {
                let (found, wanted) = (&entry.shape, &spec.shape);
                return Err(Error::weights(
                    path,
                    format!(
                        "tensor `{name}` has shape {found:?}, the config asks for {wanted:?}; change one of the two"
                    ),
                ));
            }
            if !matches!(entry.dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16) {
                let found = entry.dtype;
                return Err(Error::weights(
                    path,
                    format!("tensor `{name}` has element type {found:?}; convert it to F32, BF16 or F16"),
                ));
            }
        }
        let known: BTreeSet<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        let mut unknown: Vec<&str> =
            self.tensors.keys().map(String::as_str).filter(|name| !known.contains(name)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        unknown.sort_unstable();
        Err(Error::weights(
            &self.dir,
            format!("{}; do the weights belong to this config.json?", listed("unexpected tensor", &unknown)),
        ))
    }
}

/// Stored values widened to f32, exactly; none where they are not F32, BF16 or F16.
pub fn widen(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    Some(match dtype {
        Dtype::F32 => bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
        Dtype::BF16 => bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
        Dtype::F16 => bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
        _ => return None,
    })
}

/// The first names of a list and how many more there are.
fn listed(what: &str, names: &[&str]) -> String {
    let shown = names.iter().take(3).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let plural = if names.len() == 1 { "" } else { "s" };
    match names.len().saturating_sub(3) {
        0 => format!("{what}{plural} {shown}"),
        more => format!("{what}{plural} {shown} and {more} more"),
    }
}

/// What is wrong with a file whose header could not be read.
fn damage(error: &SafeTensorError, file: &[u8]) -> String {
    let len = file.len();
    if file.starts_with(b"version https://git-lfs") {
        return "is a Git LFS pointer, not the weights; run `git lfs pull`".into();
    }
    let what = match error {
        SafeTensorError::HeaderTooSmall => {
            format!("truncated: {len} bytes hold no safetensors header")
        }
        SafeTensorError::InvalidHeaderLength => {
            format!("truncated: its header is longer than its {len} bytes")
        }
        SafeTensorError::MetadataIncompleteBuffer => {
            format!("truncated or damaged: its header describes another length than its {len} bytes")
        }
        SafeTensorError::HeaderTooLarge => "not a safetensors file".into(),
        other => format!("its header is damaged: {other}"),
    };
    format!("{what}; fetch or export it again")
}
