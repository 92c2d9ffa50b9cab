//! `syncd._native`: the kernel's native body as a Python module.
//!
//! Converts values, lets go of the interpreter lock around every call, maps errors.
#![deny(missing_docs)]

use pyo3::prelude::*;

mod fds;
mod rules;
mod watch;

/// The version of the face that `syncd/kernel/choose.py` expects.
const ABI: u32 = 1;

#[pymodule]
#[pyo3(name = "_native")]
fn native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("ABI", ABI)?;
    module.add_class::<rules::Rules>()?;
    module.add_class::<watch::Watcher>()?;
    module.add_function(wrap_pyfunction!(rules::compile_rules, module)?)?;
    Ok(())
}
