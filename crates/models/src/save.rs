//! Writing a model in the Hugging Face layout: `config.json` and `model.safetensors`, as transformers reads; and tensors
//! of other names.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use serde_json::{Map, Value, json};
use tensor::DType;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::params::parameters;

/// Writes the model of `config` into the folder `dir`, its weights as `dtype` (bf16 rounds to nearest even).
///
/// `weight(i)` gives the values of the `i`-th of [`parameters`], row-major; they are asked for one at a time
/// and in order. Each file replaces an older one only once it is complete; a tied head is not written.
pub fn save(
    dir: &Path,
    config: &Config,
    dtype: DType,
    weight: impl FnMut(usize) -> Result<Vec<f32>>,
) -> Result<()> {
    fs::create_dir_all(dir).map_err(|error| Error::io(dir, &error))?;
    let specs = parameters(config);
    let tensors: Vec<_> =
        specs.iter().map(|spec| (spec.name.as_str(), spec.shape.as_slice(), dtype)).collect();
    let weights = tensors_into(&dir.join("model.safetensors"), &tensors, weight)?;
    let mut json = config.to_json();
    json["dtype"] = match dtype {
        DType::F32 => "float32",
        DType::BF16 => "bfloat16",
        DType::F16 => "float16",
    }
    .into();
    let text = format!("{json:#}\n");
    let config = Replacement::write(&dir.join("config.json"), |out| out.put(text.as_bytes()))?;
    weights.commit()?;
    config.commit()
}

/// Writes tensors, given by name, shape and element type, into the safetensors file `path`; `values(i)` as in [`save`].
pub fn save_tensors(
    path: &Path,
    tensors: &[(&str, &[usize], DType)],
    values: impl FnMut(usize) -> Result<Vec<f32>>,
) -> Result<()> {
    tensors_into(path, tensors, values)?.commit()
}

fn tensors_into(
    path: &Path,
    tensors: &[(&str, &[usize], DType)],
    mut values: impl FnMut(usize) -> Result<Vec<f32>>,
) -> Result<Replacement> {
    Replacement::write(path, |out| {
        out.put(&header(tensors))?;
        for (i, (name, shape, dtype)) in tensors.iter().enumerate() {
            let values = values(i)?;
            if values.len() != shape.iter().product::<usize>() {
                let reason = format!("tensor `{name}` {shape:?} was given {} values", values.len());
                return Err(Error::weights(path, reason));
            }
            for part in values.chunks(1 << 16) {
                out.put(&encode(part, *dtype))?;
            }
        }
        Ok(())
    })
}

/// The header of a safetensors file: its length in 8 little-endian bytes, JSON padded to a multiple of 8.
fn header(tensors: &[(&str, &[usize], DType)]) -> Vec<u8> {
    let mut map = Map::from_iter([("__metadata__".into(), json!({"format": "pt"}))]);
    let mut start = 0;
    for (tensor, shape, dtype) in tensors {
        let name = match dtype {
            DType::F32 => "F32",
            DType::BF16 => "BF16",
            DType::F16 => "F16",
        };
        let end = start + shape.iter().product::<usize>() * dtype.size();
        let entry = json!({"dtype": name, "shape": shape, "data_offsets": [start, end]});
        map.insert((*tensor).to_owned(), entry);
        start = end;
    }
    let mut text = Value::Object(map).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.append(&mut text);
    bytes
}

fn encode(values: &[f32], dtype: DType) -> Vec<u8> {
    match dtype {
        DType::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::BF16 => values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
        DType::F16 => values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
    }
}

/// A complete new version of a file beside it, under a temporary name; removed unless committed.
struct Replacement {
    temporary: PathBuf,
    target: PathBuf,
}

/// The file being written.
struct Out<'a> {
    file: BufWriter<File>,
    path: &'a Path,
}

impl Out<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| Error::io(self.path, &error))
    }
}

impl Replacement {
    fn write(target: &Path, content: impl FnOnce(&mut Out) -> Result<()>) -> Result<Self> {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let temporary = target.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
        let file = File::create(&temporary).map_err(|error| Error::io(&temporary, &error))?;
        let this = Replacement { temporary, target: target.to_owned() };
        let mut out = Out { file: BufWriter::new(file), path: &this.target };
        content(&mut out)?;
        out.file
            .flush()
            .and_then(|()| out.file.get_ref().sync_all())
            .map_err(|error| Error::io(target, &error))?;
        Ok(this)
    }

    fn commit(self) -> Result<()> {
        fs::rename(&self.temporary, &self.target).map_err(|error| Error::io(&self.target, &error))
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        // After a commit nothing is left under this name; a failure to clean up has no better place to go.
        let _ = fs::remove_file(&self.temporary);
    }
}
