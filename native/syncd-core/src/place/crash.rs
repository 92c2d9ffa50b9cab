//! Ends or stops the process at a chosen step, for tests.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

struct Plan {
    step: String,
    at: u64,
    stops: bool,
    passed: AtomicU64,
}

/// Pass a named step. If `SYNCD_CRASH_AT` is `<step>:<n>` and this is the n-th time, the process ends;
/// with `<step>:<n>:stop` it stops until it gets a SIGCONT.
pub fn pass(step: &str) {
    static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
    let read = || {
        let text = std::env::var("SYNCD_CRASH_AT").ok()?;
        let (text, stops) = match text.strip_suffix(":stop") {
            Some(text) => (text.to_owned(), true),
            None => (text, false),
        };
        let (step, at) = text.rsplit_once(':')?;
        Some(Plan {
            step: step.to_owned(),
            at: at.parse().ok()?,
            stops,
            passed: AtomicU64::new(0),
        })
    };
    if let Some(plan) = PLAN.get_or_init(read) {
        if plan.step == step && plan.passed.fetch_add(1, Relaxed) + 1 == plan.at {
            crate::sys::kill_self(plan.stops);
        }
    }
}
