//! Recipes under mutation: refused, or resolved to what freezes and resolves to the same again.

use std::fs;
use std::path::Path;

use fuzz::{Campaign, Counting};
use train::memory;
use train::recipe::{KEYS, Sources, resolve};

#[global_allocator]
static MEMORY: Counting = Counting;

#[test]
fn fuzz_recipe() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
    let mut seeds: Vec<Vec<u8>> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| fs::read(entry.unwrap().path()).unwrap())
        .filter(|text| !text.windows(3).any(|word| word == b"dir"))
        .collect();
    seeds.push(resolve(&Sources::default()).unwrap().recipe.freeze().into_bytes());
    seeds.sort();
    let names = optim::ALL.iter().map(|row| row.name);
    let own = optim::ALL.iter().flat_map(optim::Row::keys).map(|key| key.name);
    let values = [
        "true",
        "\"all\"",
        "synthetic",
        "f32",
        "bf16",
        "cpu",
        "cuda:0",
        "inf",
        "nan",
        "0x7fffffff",
        "1979-05-27",
    ];
    let keys = KEYS.iter().map(|key| key.name.rsplit('.').next().unwrap_or_default());
    let words: Vec<&str> = keys.chain(names).chain(own).chain(values).collect();
    let folder = tempfile::tempdir_in(fuzz::folder()).unwrap();
    let path = folder.path().join("recipe.toml");
    let campaign = Campaign { name: "recipe", seeds: &seeds, words: &words, cases: 1500, memory: 16 << 20 };
    campaign.run(|input| {
        fs::write(&path, input).unwrap();
        let resolved = match resolve(&Sources { file: Some(&path), ..Sources::default() }) {
            Err(error) => return Some(error.to_string()),
            Ok(resolved) => resolved,
        };
        let frozen = resolved.recipe.freeze();
        fs::write(&path, &frozen).unwrap();
        let again =
            resolve(&Sources { file: Some(&path), ..Sources::default() }).expect("a frozen recipe resolves");
        assert_eq!(again.recipe.freeze(), frozen);
        let step = resolved.step(false).expect("its optimizer is known");
        let rows = step.batch_size as f64 * step.seq_len as f64;
        let least = rows * 4.0 * resolved.config.hidden_size() as f64;
        let told = memory::estimate(&resolved.config, &step).total();
        assert!(told as f64 >= least.min(u64::MAX as f64), "{told} bytes for {rows} rows");
        assert!(again.differences(&frozen).expect("a frozen recipe").is_empty());
        None
    });
}
