//! Files of tensors (safetensors): what the verbs of the lab read, in any floating type up to f32, and write, in f32.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::error::BadFile;

/// Shapes and values by name.
pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Reads a file whose tensors are all f32, bf16 or f16.
pub fn read(path: &Path) -> Result<Tensors, BadFile> {
    let fail = |reason: String| BadFile { path: path.to_owned(), reason };
    let bytes = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|error| fail(format!("not a whole safetensors file: {error}")))?;
    let tensor = |(name, view): (String, TensorView)| match view.dtype() {
        Dtype::F32 => {
            let values = view.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
            Ok((name, (view.shape().to_vec(), values)))
        }
        Dtype::BF16 => {
            let values = view.data().as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect();
            Ok((name, (view.shape().to_vec(), values)))
        }
        Dtype::F16 => {
            let values = view.data().as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect();
            Ok((name, (view.shape().to_vec(), values)))
        }
        other => Err(fail(format!("`{name}` is {other:?}; expected F32, BF16 or F16"))),
    };
    file.tensors().into_iter().map(tensor).collect()
}

/// Writes the tensors to a temporary file beside `path`, then puts it in its place.
pub fn write(path: &Path, tensors: &Tensors) -> anyhow::Result<()> {
    let bytes: Vec<Vec<u8>> =
        tensors.values().map(|(_, values)| values.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, (shape, _)), bytes)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    let temporary = path.with_extension("partial");
    safetensors::serialize_to_file(views, None, &temporary)
        .map_err(anyhow::Error::from)
        .and_then(|()| Ok(std::fs::rename(&temporary, path)?))
        .inspect_err(|_| drop(std::fs::remove_file(&temporary)))
        .with_context(|| format!("{}: cannot be written", path.display()))
}
