//! A slice that several threads write, each a part of its own.

use std::marker::PhantomData;

/// A pointer that may cross threads.
#[derive(Clone, Copy)]
pub struct Shared<'a> {
    start: *mut f32,
    len: usize,
    borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: the users of `at` promise disjoint parts.
unsafe impl Send for Shared<'_> {}
// SAFETY: as above.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    /// For as long as the borrow that it is made from.
    pub fn new(data: &'a mut [f32]) -> Self {
        Self {
            start: data.as_mut_ptr(),
            len: data.len(),
            borrow: PhantomData,
        }
    }

    fn holds(self, offset: usize, len: usize) -> bool {
        offset <= self.len && len <= self.len - offset
    }

    /// A pointer to the number at `offset`.
    ///
    /// # Panics
    /// Where it lies outside.
    pub fn at(self, offset: usize) -> *mut f32 {
        assert!(offset < self.len, "{offset} of {}", self.len);
        // SAFETY: inside, as was just checked.
        unsafe { self.start.add(offset) }
    }

    /// The `len` numbers at `offset`.
    ///
    /// # Safety
    /// No other thread writes there meanwhile.
    pub unsafe fn read(self, offset: usize, len: usize) -> &'a [f32] {
        assert!(self.holds(offset, len), "{offset} of {}", self.len);
        // SAFETY: inside, and the caller's promise.
        unsafe { std::slice::from_raw_parts(self.start.add(offset), len) }
    }

    /// Writes `values` at `offset`.
    ///
    /// # Safety
    /// No other thread reads or writes there meanwhile.
    pub unsafe fn write(self, offset: usize, values: &[f32]) {
        assert!(self.holds(offset, values.len()), "{offset} of {}", self.len);
        // SAFETY: inside, and the caller's promise.
        unsafe {
            std::ptr::copy_nonoverlapping(values.as_ptr(), self.start.add(offset), values.len());
        }
    }
}
