//! Matrices as views of slices.

/// A matrix that is read: any strides, so a transposed view costs nothing.
#[derive(Clone, Copy, Debug)]
pub struct Mat<'a, T = f32> {
    pub(super) data: &'a [T],
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) row_stride: usize,
    pub(super) col_stride: usize,
}

impl<'a, T> Mat<'a, T> {
    /// A row-major matrix.
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> Self {
        Self::strided(data, [rows, cols], [cols, 1])
    }

    /// A view with its own strides.
    ///
    /// # Panics
    /// Where the last entry lies outside `data`.
    pub fn strided(data: &'a [T], dims: [usize; 2], strides: [usize; 2]) -> Self {
        let [rows, cols] = dims;
        let [row_stride, col_stride] = strides;
        assert!(
            fits(dims, strides, data.len()),
            "a {rows} x {cols} matrix with strides {strides:?} does not fit {} numbers",
            data.len()
        );
        Self {
            data,
            rows,
            cols,
            row_stride,
            col_stride,
        }
    }

    /// Rows of the view.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of the view.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The rows in a range.
    ///
    /// # Panics
    /// Where the range ends after the last row.
    pub fn some_rows(self, rows: std::ops::Range<usize>) -> Self {
        assert!(rows.end <= self.rows, "{rows:?} of {}", self.rows);
        Self {
            // Behind the last row nothing need be left.
            data: self.data.get(rows.start * self.row_stride..).unwrap_or(&[]),
            rows: rows.len(),
            ..self
        }
    }

    /// The same view of other numbers in as many places.
    pub(super) fn over<U>(self, data: &[U]) -> Mat<'_, U> {
        Mat {
            data,
            rows: self.rows,
            cols: self.cols,
            row_stride: self.row_stride,
            col_stride: self.col_stride,
        }
    }

    /// The transposed view.
    pub fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }
}

/// A matrix that is written: rows of `cols` neighbours, `stride` apart.
#[derive(Debug)]
pub struct MatMut<'a> {
    pub(super) data: &'a mut [f32],
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) stride: usize,
}

impl<'a> MatMut<'a> {
    /// A row-major matrix.
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// Rows that lie `stride` apart.
    ///
    /// # Panics
    /// Where the last entry lies outside `data`.
    pub fn strided(data: &'a mut [f32], rows: usize, cols: usize, stride: usize) -> Self {
        assert!(
            fits([rows, cols], [stride, 1], data.len()),
            "a {rows} x {cols} matrix with stride {stride} does not fit {} numbers",
            data.len()
        );
        assert!(rows <= 1 || stride >= cols, "rows of a matrix overlap");
        Self {
            data,
            rows,
            cols,
            // That of a single row says nothing.
            stride: stride.max(cols),
        }
    }
}

/// Whether the last entry lies inside `len` numbers; a place beyond the largest number doesn't.
fn fits([rows, cols]: [usize; 2], [row_stride, col_stride]: [usize; 2], len: usize) -> bool {
    if rows == 0 || cols == 0 {
        return true;
    }
    let (down, across) = (
        (rows - 1).checked_mul(row_stride),
        (cols - 1).checked_mul(col_stride),
    );
    let last = down.zip(across).and_then(|(a, b)| a.checked_add(b));
    last.is_some_and(|last| last < len)
}
