//! Between Python's values and the core's.

use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyTuple};
use syncd_core::diff::Line;
use syncd_core::entry::{Agreed, Digest, Fingerprint, Kind, Seen, Side, Text};
use syncd_core::error::{Errno, Error, Trouble};
use syncd_core::path;
use syncd_core::place::Status;
use syncd_core::tree::Look;

/// The Python types of the values.
struct Types {
    fingerprint: Py<PyAny>,
    entry: Py<PyAny>,
    agreed: Py<PyAny>,
    row: Py<PyAny>,
    trouble: Py<PyAny>,
    look: Py<PyAny>,
    intent: Py<PyAny>,
    loaded: Py<PyAny>,
    kinds: [Py<PyAny>; 4],
    sides: [Py<PyAny>; 2],
    lines: [Py<PyAny>; 9],
    statuses: [Py<PyAny>; 7],
}

fn types(py: Python<'_>) -> PyResult<&'static Types> {
    static TYPES: PyOnceLock<Types> = PyOnceLock::new();
    TYPES.get_or_try_init(py, || {
        let entry = py.import("syncd.model.entry")?;
        let change = py.import("syncd.model.change")?;
        let contract = py.import("syncd.kernel.contract")?;
        let kind = entry.getattr("Kind")?;
        let side = contract.getattr("Side")?;
        let status = contract.getattr("Status")?;
        let kind = |number: u8| kind.call1((number,)).map(Bound::unbind);
        let side = |number: u8| side.call1((number,)).map(Bound::unbind);
        let status = |word: &str| status.call1((word,)).map(Bound::unbind);
        let line = change.getattr("Line")?;
        let line = |word: &str| line.call1((word,)).map(Bound::unbind);
        Ok(Types {
            fingerprint: entry.getattr("Fingerprint")?.unbind(),
            entry: entry.getattr("Entry")?.unbind(),
            agreed: entry.getattr("Agreed")?.unbind(),
            row: change.getattr("Row")?.unbind(),
            trouble: contract.getattr("Trouble")?.unbind(),
            look: contract.getattr("Look")?.unbind(),
            intent: contract.getattr("Intent")?.unbind(),
            loaded: contract.getattr("Loaded")?.unbind(),
            kinds: [kind(1)?, kind(2)?, kind(3)?, kind(4)?],
            sides: [side(0)?, side(1)?],
            lines: [
                line("same")?,
                line("agreed")?,
                line("changed")?,
                line("gone")?,
                line("lost")?,
                line("edited")?,
                line("made")?,
                line("conflict")?,
                line("unknown")?,
            ],
            statuses: [
                status("done")?,
                status("same")?,
                status("kept")?,
                status("changed")?,
                status("vanished")?,
                status("busy")?,
                status("failed")?,
            ],
        })
    })
}

/// An OSError with its number.
pub fn os_error(py: Python<'_>, errno: Errno) -> PyErr {
    PyOSError::new_err((errno.raw_os_error(), text_of(py, errno)))
}

fn text_of(py: Python<'_>, errno: Errno) -> String {
    py.import("os")
        .and_then(|os| {
            os.call_method1("strerror", (errno.raw_os_error(),))?
                .extract()
        })
        .unwrap_or_default()
}

/// The error of a call as a whole: an OSError with its number.
pub fn raised(py: Python<'_>, error: &Error) -> PyErr {
    if error.op != "journal" {
        return os_error(py, error.errno);
    }
    let text = format!(
        "the journal could not be written: {}",
        text_of(py, error.errno)
    );
    PyOSError::new_err((error.errno.raw_os_error(), text))
}

/// A path that came from Python.
pub fn path_of(value: &Bound<'_, PyAny>) -> PyResult<Box<[u8]>> {
    let bytes = value.cast::<PyBytes>()?.as_bytes();
    if path::is_valid(bytes) {
        Ok(bytes.into())
    } else {
        Err(PyValueError::new_err(format!(
            "not a relative path: {}",
            value.repr()?
        )))
    }
}

/// Paths that came from Python.
pub fn paths_of(values: &Bound<'_, PyAny>) -> PyResult<Vec<Box<[u8]>>> {
    values.try_iter()?.map(|value| path_of(&value?)).collect()
}

/// A side.
pub fn side_of(value: &Bound<'_, PyAny>) -> PyResult<Side> {
    match value.extract::<u8>()? {
        0 => Ok(Side::Source),
        1 => Ok(Side::Target),
        _ => Err(PyValueError::new_err("no side")),
    }
}

/// A line of the table.
pub fn line_of(word: &str) -> PyResult<Line> {
    Ok(match word {
        "same" => Line::Same,
        "agreed" => Line::Agreed,
        "changed" => Line::Changed,
        "gone" => Line::Gone,
        "lost" => Line::Lost,
        "edited" => Line::Edited,
        "made" => Line::Made,
        "conflict" => Line::Conflict,
        "unknown" => Line::Unknown,
        _ => return Err(PyValueError::new_err(format!("no line: {word}"))),
    })
}

/// A scope.
pub fn scope_of(value: &Bound<'_, PyAny>) -> PyResult<Option<Vec<Look>>> {
    if value.is_none() {
        return Ok(None);
    }
    let look = |look: PyResult<Bound<'_, PyAny>>| {
        let (path, deep) = look?.extract::<(Bound<'_, PyAny>, bool)>()?;
        Ok(Look {
            path: path_of(&path)?,
            deep,
        })
    };
    value
        .try_iter()?
        .map(look)
        .collect::<PyResult<_>>()
        .map(Some)
}

/// Bytes.
pub fn bytes<'py>(py: Python<'py>, bytes: &[u8]) -> Bound<'py, PyBytes> {
    PyBytes::new(py, bytes)
}

fn digest<'py>(py: Python<'py>, digest: Option<Digest>) -> Option<Bound<'py, PyBytes>> {
    digest.map(|digest| PyBytes::new(py, &digest))
}

fn link<'py>(py: Python<'py>, link: Option<&Text>) -> Option<Bound<'py, PyBytes>> {
    link.map(|text| PyBytes::new(py, text.bytes()))
}

fn kind(types: &Types, kind: Kind) -> &Py<PyAny> {
    &types.kinds[kind as usize - 1]
}

fn fingerprint<'py>(
    py: Python<'py>,
    types: &Types,
    print: &Fingerprint,
) -> PyResult<Bound<'py, PyAny>> {
    types.fingerprint.bind(py).call1((
        print.size,
        print.mtime,
        print.ctime,
        print.inode,
        print.mode,
    ))
}

/// An `Entry`.
pub fn entry<'py>(py: Python<'py>, seen: &Seen) -> PyResult<Bound<'py, PyAny>> {
    let types = types(py)?;
    let print = fingerprint(py, types, &seen.print)?;
    let arguments = (
        kind(types, seen.kind),
        print,
        digest(py, seen.digest),
        link(py, seen.link.as_deref()),
    );
    types.entry.bind(py).call1(arguments)
}

/// An `Agreed`.
pub fn agreed<'py>(py: Python<'py>, row: &Agreed) -> PyResult<Bound<'py, PyAny>> {
    let types = types(py)?;
    types.agreed.bind(py).call1((
        kind(types, row.kind),
        row.mode,
        row.mtime,
        digest(py, row.digest()),
        link(py, row.link.as_deref()),
        fingerprint(py, types, &row.source())?,
        fingerprint(py, types, &row.target())?,
        row.shared,
        row.mount,
    ))
}

fn fingerprint_of(value: &Bound<'_, PyAny>) -> PyResult<Fingerprint> {
    let (size, mtime, ctime, inode, mode) = value.extract()?;
    Ok(Fingerprint {
        size,
        mtime,
        ctime,
        inode,
        mode,
    })
}

/// A row of the baseline that came from Python.
pub fn agreed_of(value: &Bound<'_, PyAny>) -> PyResult<Agreed> {
    let kind = Kind::from_number(value.getattr("kind")?.extract()?)
        .filter(|kind| *kind != Kind::Other)
        .ok_or_else(|| PyValueError::new_err("no kind that a baseline holds"))?;
    let source = fingerprint_of(&value.getattr("source")?)?;
    let target = fingerprint_of(&value.getattr("target")?)?;
    let digest: Option<Digest> = value
        .getattr("digest")?
        .extract::<Option<Vec<u8>>>()?
        .map(to_digest)
        .transpose()?;
    let link: Option<Vec<u8>> = value.getattr("link")?.extract()?;
    let mode = value.getattr("mode")?.extract()?;
    let mtime = value.getattr("mtime_ns")?.extract()?;
    let flags = (
        value.getattr("shared")?.extract()?,
        value.getattr("mount")?.extract()?,
    );
    Ok(Agreed::new(kind, mode, mtime, &source, &target)
        .with_digest(digest)
        .with_link(link.map(|text| Text::new(&text)))
        .with_flags(flags.0, flags.1))
}

fn to_digest(bytes: Vec<u8>) -> PyResult<Digest> {
    bytes
        .try_into()
        .map_err(|_| PyValueError::new_err("a digest has 16 bytes"))
}

/// A `Row`.
pub fn row<'py>(
    py: Python<'py>,
    path: &[u8],
    base: Option<&Agreed>,
    source: Option<&Seen>,
    target: Option<&Seen>,
) -> PyResult<Bound<'py, PyAny>> {
    let base = base.map(|row| agreed(py, row)).transpose()?;
    let source = source.map(|seen| entry(py, seen)).transpose()?;
    let target = target.map(|seen| entry(py, seen)).transpose()?;
    types(py)?
        .row
        .bind(py)
        .call1((bytes(py, path), base, source, target))
}

/// A list of `Trouble`.
pub fn troubles<'py>(py: Python<'py>, troubles: &[Trouble]) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let types = types(py)?;
    let one = |trouble: &Trouble| {
        let side = &types.sides[usize::from(trouble.side == Side::Target)];
        let arguments = (
            bytes(py, &trouble.path),
            trouble.errno.raw_os_error(),
            trouble.op,
            side,
        );
        types.trouble.bind(py).call1(arguments)
    };
    troubles.iter().map(one).collect()
}

/// A tuple of `Look`.
pub fn looks<'py>(py: Python<'py>, looks: &[Look]) -> PyResult<Bound<'py, PyTuple>> {
    let types = types(py)?;
    let one = |look: &Look| {
        types
            .look
            .bind(py)
            .call1((bytes(py, &look.path), look.deep))
    };
    PyTuple::new(py, looks.iter().map(one).collect::<PyResult<Vec<_>>>()?)
}

/// A `Line`.
pub fn line<'py>(py: Python<'py>, line: Line) -> PyResult<Bound<'py, PyAny>> {
    Ok(types(py)?.lines[line as usize].bind(py).clone())
}

/// A `Status`.
pub fn status<'py>(py: Python<'py>, status: Status) -> PyResult<Bound<'py, PyAny>> {
    Ok(types(py)?.statuses[status as usize].bind(py).clone())
}

/// An `Intent`.
pub fn intent<'py>(
    py: Python<'py>,
    intent: &syncd_core::journal::Intent,
) -> PyResult<Bound<'py, PyAny>> {
    let entry = intent.entry.as_ref();
    types(py)?.intent.bind(py).call1((
        bytes(py, &intent.path),
        entry.map_or(0, |row| row.kind as u8),
        digest(py, entry.and_then(Agreed::digest)),
        link(py, entry.and_then(|row| row.link.as_deref())),
    ))
}

/// A `Loaded`.
pub fn loaded<'py>(
    py: Python<'py>,
    base: Bound<'py, PyAny>,
    notes: &[Vec<u8>],
    intents: &[syncd_core::journal::Intent],
    whole: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let notes: Vec<_> = notes.iter().map(|note| bytes(py, note)).collect();
    let intents = intents
        .iter()
        .map(|each| intent(py, each))
        .collect::<PyResult<Vec<_>>>()?;
    types(py)?
        .loaded
        .bind(py)
        .call1((base, notes, intents, whole))
}
