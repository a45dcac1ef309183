//! What stands on the right of a product, whatever its numbers are kept in.

use std::borrow::Cow;
use std::fmt::Debug;
use std::ops::Range;

use super::Mat;
use super::few::Kernels;

/// A right factor `[depth, columns]`, or the table of a search: [`Mat`] of f32 or bf16, or
/// [`Int8`](super::Int8). Its numbers are widened, and sums are made in f32.
pub trait Right: Copy + Debug + Send + Sync {
    /// Rows and columns.
    fn dims(&self) -> [usize; 2];

    /// The transposed view.
    #[must_use]
    fn t(self) -> Self;

    /// What lies side by side.
    #[doc(hidden)]
    fn order(&self) -> Option<Order>;

    /// Itself where it holds f32.
    #[doc(hidden)]
    fn plain(&self) -> Option<Mat<'_>>;

    /// Where the depth may be cut: at multiples of this.
    #[doc(hidden)]
    fn unit(&self) -> usize;

    /// `sums += x[:, depth] b[depth, :]` for few rows of x and a factor in [`Order::Rows`].
    #[doc(hidden)]
    fn add_rows(&self, x: Mat<'_>, depth: Range<usize>, sums: &mut [f32]);

    /// `sums += x b[:, columns]` for few rows of x and a factor in [`Order::Columns`].
    #[doc(hidden)]
    fn add_columns(&self, x: Mat<'_>, columns: Range<usize>, sums: &mut [f32]);

    /// A part of a row in f32.
    #[doc(hidden)]
    fn widen(&self, row: usize, columns: Range<usize>, to: &mut [f32]);

    /// A row in f32.
    #[doc(hidden)]
    fn row(&self, row: usize) -> Cow<'_, [f32]> {
        let [_, columns] = self.dims();
        let mut wide = vec![0.0; columns];
        self.widen(row, 0..columns, &mut wide);
        Cow::Owned(wide)
    }
}

/// What lies side by side in a matrix.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The numbers of a row.
    Rows,
    /// The numbers of a column.
    Columns,
}

impl<T: Kernels> Right for Mat<'_, T> {
    fn dims(&self) -> [usize; 2] {
        [self.rows, self.cols]
    }

    fn t(self) -> Self {
        Mat::t(self)
    }

    fn order(&self) -> Option<Order> {
        match (self.row_stride, self.col_stride) {
            (_, 1) => Some(Order::Rows),
            (1, _) => Some(Order::Columns),
            _ => None,
        }
    }

    fn plain(&self) -> Option<Mat<'_>> {
        T::plain(self.data).map(|data| self.over(data))
    }

    fn unit(&self) -> usize {
        4
    }

    fn add_rows(&self, x: Mat<'_>, depth: Range<usize>, sums: &mut [f32]) {
        let left = (&x.data[depth.start..], x.row_stride, depth.len());
        let right = (&self.data[depth.start * self.row_stride..], self.row_stride);
        T::add_rows(x.rows, left, right, (sums, self.cols));
    }

    fn add_columns(&self, x: Mat<'_>, columns: Range<usize>, sums: &mut [f32]) {
        let numbers = &self.data[columns.start * self.col_stride..];
        let (left, right) = ((x.data, x.row_stride, x.cols), (numbers, self.col_stride));
        T::add_dots(x.rows, left, right, (sums, columns.len()));
    }

    fn widen(&self, row: usize, columns: Range<usize>, to: &mut [f32]) {
        let from = &self.data[row * self.row_stride + columns.start * self.col_stride..];
        match self.col_stride {
            1 => T::widen(&from[..columns.len()], to),
            apart => {
                for (to, from) in to.iter_mut().zip(from.iter().step_by(apart)) {
                    *to = from.float();
                }
            }
        }
    }

    fn row(&self, row: usize) -> Cow<'_, [f32]> {
        let columns = 0..self.cols;
        if let (Some(data), 1) = (T::plain(self.data), self.col_stride) {
            return Cow::Borrowed(&data[row * self.row_stride..][columns]);
        }
        let mut wide = vec![0.0; self.cols];
        self.widen(row, columns, &mut wide);
        Cow::Owned(wide)
    }
}
