//! Times how a corpus is opened: `cargo run --release -p data --example tokenize -- DATA TOKENIZER CACHE_DIR`.
//!
//! Run it twice: the first run tokenises, the second finds the cache. Peak memory is the kernel's `VmHWM`.

use std::path::PathBuf;
use std::time::Instant;

use data::{Options, Silent, Source, TokenizerSpec};

fn main() -> data::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().expect("usage: tokenize DATA TOKENIZER CACHE_DIR");
    let options = Options {
        source: Source::Path(PathBuf::from(next())),
        tokenizer: TokenizerSpec::parse(&next()),
        cache_dir: PathBuf::from(next()),
        seq_len: 512,
        ..Options::default()
    };
    let plan = data::inspect(&options)?;
    println!(
        "plan: {} files, {:.1} MB, {:?} documents",
        plan.files.len(),
        plan.bytes as f64 / 1e6,
        plan.documents
    );
    let start = Instant::now();
    let dataset = data::open(&options, &Silent)?;
    let seconds = start.elapsed().as_secs_f64();
    let (documents, tokens) = (dataset.documents().unwrap_or(0), dataset.tokens().unwrap_or(0));
    println!("{seconds:.2} s: {documents} documents, {tokens} tokens, vocabulary {}", dataset.vocab_size());
    println!("rows: {} training, {} validation", dataset.train().len(), dataset.validation().len());
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().filter(|line| line.starts_with("VmHWM")).for_each(|line| println!("{line}"));
    Ok(())
}
