//! Files of tensors (safetensors): what the verbs of the lab read, in any floating type up to f32, and write, in f32.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::error::BadFile;
use crate::progress::note;

/// Shapes and values by name.
pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Reads those tensors of a file that `wanted` takes by name and shape: f32, bf16 or f16. The others, of any type, are
/// named in a line on standard error.
pub fn read(path: &Path, wanted: impl Fn(&str, &[usize]) -> bool) -> Result<Tensors, BadFile> {
    let fail = |reason: String| BadFile { path: path.to_owned(), reason };
    let bytes = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|error| fail(format!("not a whole safetensors file: {error}")))?;
    let tensor = |(name, view): (String, TensorView)| match models::widen(view.dtype(), view.data()) {
        Some(values) => Ok((name, (view.shape().to_vec(), values))),
        None => Err(fail(format!("`{name}` is {:?}; expected F32, BF16 or F16", view.dtype()))),
    };
    let (taken, mut skipped): (Vec<_>, Vec<_>) =
        file.tensors().into_iter().partition(|(name, view)| wanted(name, view.shape()));
    if !taken.is_empty() && !skipped.is_empty() {
        skipped.sort_by(|a, b| a.0.cmp(&b.0));
        let told = |(name, view): &(String, TensorView)| format!("{name} {:?}", view.shape());
        let told: Vec<String> = skipped.iter().map(told).collect();
        note(&format!("note: {}: skipped {}", path.display(), told.join(", ")));
    }
    taken.into_iter().map(tensor).collect()
}

/// Refuses a path that [`write`] could not write to, before any work is done for it.
pub fn check_out(path: &Path) -> Result<(), BadFile> {
    let fail = |reason: String| Err(BadFile { path: path.to_owned(), reason });
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    match folder {
        Some(folder) if !folder.is_dir() => {
            fail(format!("there is no folder {}; make it first", folder.display()))
        }
        _ if path.is_dir() => fail("is a folder; give the name of a file".into()),
        _ => Ok(()),
    }
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
    let bytes = safetensors::serialize(views, None)?;
    let written = std::fs::write(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, path));
    written.map_err(|error| {
        drop(std::fs::remove_file(&temporary));
        BadFile { path: path.to_owned(), reason: format!("cannot be written: {error}") }.into()
    })
}
