//! For tests: a library that, loaded into a process by `LD_PRELOAD`, fails its n-th file operation.
//!
//! Counted are the calls of the C library that open, read, write, sync, move, make, remove, lock or ask for files under one
//! folder, by all threads in the order in which they come; all other calls go through. What to do is told by the environment:
//!
//! | variable | |
//! |---|---|
//! | `FAULTS_UNDER` | the folder, absolute |
//! | `FAULTS_AT` | the number of the operation, from 1; none is failed without it |
//! | `FAULTS_KIND` | what happens then: a name of `plan::Kind` in small letters |
//! | `FAULTS_LOG` | a file that gets a line for each operation: number, name, path |
//!
//! Nothing is to be linked with it, or it would stand before the C library there too: tests depend on this crate to have it
//! built, and load it into their children.
//!
//! Linux only. What it exports is called by C code and does what the call of that name does.
#![cfg(target_os = "linux")]

mod calls;
mod plan;
