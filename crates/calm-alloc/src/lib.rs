//! The allocator of the programs: mimalloc that keeps its pages.
//!
//! A training step frees and takes the same large tensors again and again. An allocator that gives
//! their pages back in between has the kernel clear them every time, which took a third of a step
//! (docs/log.md). Libraries choose no allocator: a program that trains should do as these do.
//!
//! ```
//! #[global_allocator]
//! static ALLOCATOR: calm_alloc::Allocator = calm_alloc::ALLOCATOR;
//!
//! calm_alloc::keep_pages();
//! assert_eq!(vec![1u8; 1 << 20].len(), 1 << 20);
//! ```

/// The allocator's type.
pub type Allocator = mimalloc::MiMalloc;

/// The allocator.
pub const ALLOCATOR: Allocator = mimalloc::MiMalloc;

/// Tells the allocator to keep what is freed until the process ends; call it first in `main`.
pub fn keep_pages() {
    /// `mi_option_purge_delay` of mimalloc 2 and 3; -1 is never.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    // SAFETY: options may be set at any time.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) };
}
