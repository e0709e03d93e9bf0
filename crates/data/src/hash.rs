//! blake3 of files, in parallel and in bounded memory.

use std::io::Read;

/// Hashes the rest of an open file in blocks, reporting the bytes of each.
pub(crate) fn rest(file: &mut impl Read, advance: impl Fn(u64)) -> std::io::Result<blake3::Hasher> {
    let mut hasher = blake3::Hasher::new();
    let mut block = Vec::with_capacity(8 << 20);
    loop {
        block.clear();
        let read = file.take(8 << 20).read_to_end(&mut block)?;
        if read == 0 {
            return Ok(hasher);
        }
        hasher.update_rayon(&block);
        advance(read as u64);
    }
}
