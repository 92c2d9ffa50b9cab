//! The native body of the kernel contract (`syncd/kernel/contract.py`): primitives on many files,
//! which decide nothing. Plain Rust; `syncd-py` makes a Python module of it.
#![deny(missing_docs)]

pub mod exclude;
mod glob;
pub mod ignore;
