//! Ctrl-C: once there is something to save, the first finishes the step and saves; the second, or
//! one before that, stops at once.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::output::tell;

static REQUESTED: AtomicBool = AtomicBool::new(false);
static SAVING: AtomicBool = AtomicBool::new(false);

/// Installs the handler and returns the flag that it sets.
pub fn install() -> &'static AtomicBool {
    // A second handler in one process is impossible here; without one Ctrl-C simply kills.
    let _ = ctrlc::set_handler(|| {
        if !SAVING.load(Ordering::SeqCst) || REQUESTED.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        tell("\nstopping after this step; press Ctrl-C again to stop at once without saving");
    });
    &REQUESTED
}

/// A step loop has begun.
pub fn save_from_now_on() {
    SAVING.store(true, Ordering::SeqCst);
}
