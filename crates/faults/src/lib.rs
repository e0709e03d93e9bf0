//! For tests: a library that, loaded into a process by `LD_PRELOAD`, fails its n-th file operation.
//!
//! Counted are the calls of the C library that open, read, write, sync, move, make, remove, lock or ask for files under one
//! folder, by all threads in the order in which they come; all other calls go through. What to do is told by the environment:
//!
//! | variable | |
//! |---|---|
//! | `FAULTS_UNDER` | the folder, absolute |
//! | `FAULTS_AT` | the number of the operation, from 1; none is failed without it |
//! | `FAULTS_KIND` | what happens then, see [`Kind`] |
//! | `FAULTS_LOG` | a file that gets a line for each operation: number, name, path |
//!
//! Linux only. What it exports is called by C code and does what the call of that name does.
#![cfg(target_os = "linux")]

mod calls;
mod plan;

pub use plan::{CREATES, INTERRUPTIBLE, Kind, WRITES};
