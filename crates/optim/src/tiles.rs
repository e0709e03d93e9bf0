//! Regular lattices of equal tiles in the matrices of a bank: the segments and heads of fused weights, and the blocks
//! of block Muon. Tiles of one lattice are gathered into a bank of their own and scattered back,
//! or, where `ortho/fused.rs` takes them, worked on where they are.

use rayon::prelude::*;
use tensor::cuda::{Arg, Source};
use tensor::{DType, Device, Tensor};

use crate::error::Result;

/// Kernel source of this module.
pub(crate) static SOURCE: Source = Source { name: "optim/tiles.cu", text: include_str!("tiles.cu") };

/// `down` x `across` tiles `[height, width]`, side by side, the first at `(row, column)`, in every matrix of a bank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lattice {
    /// Shape of the matrices.
    whole: [usize; 2],
    row: usize,
    column: usize,
    /// Shape of a tile.
    pub height: usize,
    pub width: usize,
    down: usize,
    across: usize,
}

impl Lattice {
    /// The matrix itself as its only tile.
    pub fn whole(m: usize, n: usize) -> Self {
        Lattice { whole: [m, n], row: 0, column: 0, height: m, width: n, down: 1, across: 1 }
    }

    /// `count` tiles along an axis, each `length` long there and as wide as the matrix, from `start` on.
    pub fn along(axis: usize, [m, n]: [usize; 2], start: usize, length: usize, count: usize) -> Self {
        let whole = Lattice::whole(m, n);
        if axis == 0 {
            Lattice { row: start, height: length, down: count, ..whole }
        } else {
            Lattice { column: start, width: length, across: count, ..whole }
        }
    }

    /// All tiles of side `size` of an `[m, n]` matrix: the full ones, then those cut off by its edges.
    pub fn blocks(m: usize, n: usize, size: usize) -> Vec<Self> {
        // (start, length, count) along one axis.
        let cuts = |length: usize| {
            let full = length / size;
            [(0, size, full), (full * size, length % size, 1)]
                .into_iter()
                .filter(|&(_, length, count)| length > 0 && count > 0)
        };
        cuts(m)
            .flat_map(|(row, height, down)| {
                cuts(n).map(move |(column, width, across)| Lattice {
                    whole: [m, n],
                    row,
                    column,
                    height,
                    width,
                    down,
                    across,
                })
            })
            .collect()
    }

    /// Whether the rows of its tiles begin and end at multiples of 8 elements of the bank.
    pub fn in_eights(&self) -> bool {
        [self.whole[1], self.column, self.width].iter().all(|size| size.is_multiple_of(8))
    }

    /// As kernels are told of it.
    pub fn numbers(&self) -> [i32; 8] {
        let Lattice { whole: [m, n], row, column, height, width, down, across } = *self;
        [m, n, row, column, height, width, down, across].map(|x| x as i32)
    }

    /// Whether its only tile is the whole matrix.
    pub fn is_whole(&self) -> bool {
        self.whole == [self.height, self.width]
    }

    /// Tiles in one matrix.
    pub fn count(&self) -> usize {
        self.down * self.across
    }

    /// The tiles of a bank `[L, m, n]` as one `[L * count, height, width]`; the bank itself where they are it.
    pub fn gather(&self, bank: &Tensor) -> Result<Tensor> {
        if self.is_whole() {
            return Ok(bank.clone());
        }
        let tiles = bank.device().empty(&self.shape(bank), bank.dtype())?;
        self.copy(bank, &tiles, Direction::Gather, 1.0)?;
        Ok(tiles)
    }

    /// Writes `scale` times the tiles to their places in a bank of f32.
    pub fn scatter(&self, tiles: &Tensor, bank: &Tensor, scale: f32) -> Result<()> {
        self.copy(bank, tiles, Direction::Scatter, scale)
    }

    /// Adds the tiles to a bank of f32 at their places.
    pub fn scatter_add(&self, tiles: &Tensor, bank: &Tensor) -> Result<()> {
        self.copy(bank, tiles, Direction::Add, 1.0)
    }

    fn shape(&self, bank: &Tensor) -> [usize; 3] {
        [bank.shape()[0] * self.count(), self.height, self.width]
    }

    fn copy(&self, bank: &Tensor, tiles: &Tensor, direction: Direction, scale: f32) -> Result<()> {
        let Lattice { whole: [m, n], row, column, height, width, down, across } = *self;
        assert_eq!(tiles.shape(), self.shape(bank), "tiles of {bank:?}");
        match bank.device() {
            Device::Cpu => {
                let row_of = |tile: usize, i: usize| {
                    let (member, at) = (tile / (down * across), tile % (down * across));
                    let (y, x) = (row + at / across * height + i, column + at % across * width);
                    (member * m + y) * n + x
                };
                if direction == Direction::Gather {
                    let from = bank.read();
                    tiles.write().par_chunks_mut(height * width).enumerate().for_each(|(tile, to)| {
                        for (i, to) in to.chunks_exact_mut(width).enumerate() {
                            let at = row_of(tile, i);
                            to.copy_from_slice(&from[at..at + width]);
                        }
                    });
                } else {
                    let (from, mut to) = (tiles.read(), bank.write());
                    for (tile, from) in from.chunks_exact(height * width).enumerate() {
                        for (i, from) in from.chunks_exact(width).enumerate() {
                            let at = row_of(tile, i);
                            let to = &mut to[at..at + width];
                            let add = direction == Direction::Add;
                            to.iter_mut()
                                .zip(from)
                                .for_each(|(to, from)| *to = if add { *to + from } else { scale * from });
                        }
                    }
                }
                Ok(())
            }
            Device::Cuda(gpu) => {
                let numbers = self.numbers().map(Arg::I32);
                let pointers = [Arg::Ptr(bank.ptr()), Arg::Ptr(tiles.ptr())];
                let mut args = [&pointers[..], &numbers[..]].concat();
                let kernel = match direction {
                    Direction::Gather => "gather",
                    Direction::Scatter => "scatter",
                    Direction::Add => "scatter_add",
                };
                if direction == Direction::Scatter {
                    args.push(Arg::F32(scale));
                }
                let blocks = (height * width).div_ceil(1024).min(256) as u32;
                let grid = [tiles.shape()[0] as u32, blocks, 1];
                let element = if direction == Direction::Gather { bank.dtype() } else { tiles.dtype() };
                debug_assert!(direction == Direction::Gather || bank.dtype() == DType::F32);
                Ok(gpu.launch(&SOURCE, element, kernel, grid, [256, 1, 1], 0, &args)?)
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Gather,
    Scatter,
    Add,
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "the values are exact")]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_every_entry_once() {
        for (m, n, size) in [(5, 7, 3), (6, 6, 3), (2, 9, 4), (4, 4, 8)] {
            let bank = Device::Cpu.zeros(&[2, m, n], DType::F32).unwrap();
            for lattice in Lattice::blocks(m, n, size) {
                let shape = lattice.shape(&bank);
                let ones = Device::Cpu.from_slice(&vec![1.0; shape.iter().product()], &shape).unwrap();
                lattice.scatter_add(&ones, &bank).unwrap();
            }
            assert!(bank.read().iter().all(|&x| x == 1.0), "{m} x {n} by {size}");
        }
    }

    #[test]
    fn scattering_undoes_gathering() {
        let values: Vec<f32> = (0..2 * 5 * 7).map(|i| i as f32).collect();
        let bank = Device::Cpu.from_slice(&values, &[2, 5, 7]).unwrap();
        let copy = Device::Cpu.zeros(&[2, 5, 7], DType::F32).unwrap();
        for lattice in Lattice::blocks(5, 7, 2) {
            lattice.scatter(&lattice.gather(&bank).unwrap(), &copy, 2.0).unwrap();
        }
        assert!(copy.read().iter().zip(&values).all(|(a, b)| *a == 2.0 * b));
        let middle = Lattice::along(1, [5, 7], 2, 2, 2).gather(&bank).unwrap();
        assert_eq!(middle.shape(), [4, 5, 2]);
        assert_eq!(middle.read()[..4], [2.0, 3.0, 9.0, 10.0]);
        assert_eq!(middle.read()[10..12], [4.0, 5.0]);
    }
}
