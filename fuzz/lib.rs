//! What the targets share: a limit on memory, and files in memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that a target may hold at once; inputs have some tens of KiB.
const MOST: usize = 256 << 20;

/// The system's allocator, which ends the program where more than [`MOST`] bytes are held: a file must
/// not make memory be asked for that it does not fill.
pub struct Limited;

static HELD: AtomicUsize = AtomicUsize::new(0);

fn take(bytes: usize) {
    let held = HELD.fetch_add(bytes, Ordering::Relaxed) + bytes;
    if held > MOST {
        // Nothing that allocates may be said here.
        std::process::abort();
    }
}

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Limited {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

/// A directory of this process in memory, made once.
pub fn place() -> &'static Path {
    static PLACE: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    PLACE.get_or_init(|| {
        let path = PathBuf::from(format!("/dev/shm/calm-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("memory for files");
        path
    })
}

/// Writes a file of that directory.
pub fn put(name: &str, bytes: &[u8]) -> PathBuf {
    let path = place().join(name);
    std::fs::write(&path, bytes).expect("memory for a file");
    path
}

/// Checks what every error is to be: one line of bounded length.
pub fn said(error: impl std::fmt::Display) {
    let text = error.to_string();
    assert!(!text.contains('\n'), "{text}");
    assert!(text.len() < 1 << 16, "{} bytes", text.len());
}

/// Opens a tensor file and reads all that it promises.
pub fn read_tensors(name: &str, bytes: &[u8]) {
    match calm_weights::TensorFile::open(&put(name, bytes)) {
        Err(error) => said(error),
        Ok(file) => {
            for tensor in file.tensors().values() {
                match tensor.bytes() {
                    Err(error) => said(error),
                    Ok(bytes) => {
                        let count: usize = tensor.shape().iter().product();
                        assert_eq!(bytes.len(), count * tensor.dtype().size());
                    }
                }
                let _ = (tensor.floats(), tensor.integers());
            }
        }
    }
}

/// The bytes before and after a mark; the mark is what no JSON has.
pub fn halves(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.iter().position(|&byte| byte == 0xff) {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &[]),
    }
}
