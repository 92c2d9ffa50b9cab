//! The native body of the kernel contract (`syncd/kernel/contract.py`): primitives on many files,
//! which decide nothing. Plain Rust; `syncd-py` makes a Python module of it.
#![deny(missing_docs)]
#![deny(unsafe_code)]

pub mod actions;
pub mod base;
mod bulk;
pub mod control;
pub mod diff;
pub mod digest;
pub mod dirs;
pub mod entry;
pub mod error;
pub mod exclude;
pub mod express;
mod glob;
pub mod ignore;
pub mod journal;
pub mod lone;
pub mod look;
mod merge;
pub mod nested;
pub mod path;
pub mod place;
pub mod read;
pub mod scan;
pub mod state;
pub mod sys;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod tree;
pub mod walk;
pub mod watch;
