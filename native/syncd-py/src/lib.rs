//! `syncd._native`: the kernel's native body as a Python module.
//!
//! Converts values, lets go of the interpreter lock around every call, maps errors. Python values of
//! entries and rows are built only when somebody asks for them.
#![deny(missing_docs)]
#![deny(unsafe_code)]

use pyo3::prelude::*;

mod convert;
mod fds;
mod handles;
mod kernel;
mod place;
mod rules;
mod tree;
mod watch;

/// The version of the face that `syncd/kernel/choose.py` expects.
const ABI: u32 = 5;

/// Ignore SIGIO in the whole process.
#[pyfunction]
fn ignore_sigio() {
    syncd_core::sys::ignore_sigio();
}

/// Give free memory back to the system.
#[pyfunction]
fn trim(py: Python<'_>) {
    py.detach(syncd_core::sys::trim);
}

#[pymodule]
#[pyo3(name = "_native")]
fn native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("ABI", ABI)?;
    module.add_class::<kernel::Kernel>()?;
    module.add_class::<handles::Control>()?;
    module.add_class::<handles::Root>()?;
    module.add_class::<rules::Rules>()?;
    module.add_class::<watch::Watcher>()?;
    module.add_class::<tree::Tree>()?;
    module.add_class::<tree::Base>()?;
    module.add_class::<place::Diff>()?;
    module.add_class::<place::Actions>()?;
    module.add_class::<place::Outcomes>()?;
    module.add_class::<place::Prepared>()?;
    module.add_function(wrap_pyfunction!(rules::compile_rules, module)?)?;
    module.add_function(wrap_pyfunction!(ignore_sigio, module)?)?;
    module.add_function(wrap_pyfunction!(trim, module)?)?;
    Ok(())
}
