//! The blocked scheme of Goto and van de Geijn, for the kernel of one instruction set or another.
//!
//! Both factors are cut into blocks that fit a cache and copied into the order in which the kernel
//! reads them; a left factor in f32 that is row-major is read where it lies.

use std::cell::RefCell;
use std::ops::Range;
use std::thread::LocalKey;

use super::{Mat, MatMut, Update};
use crate::Shared;

/// What a copied factor consists of.
pub(super) trait Word: Copy + Default + Send + Sync + 'static {
    /// The thread's copies of the left and the right factor, which keep their memory.
    fn space() -> &'static LocalKey<Space<Self>>;
}

type Space<W> = RefCell<(Vec<W>, Vec<W>)>;

thread_local! {
    static NUMBERS: Space<f32> = const { RefCell::new((Vec::new(), Vec::new())) };
    static PAIRS: Space<u32> = const { RefCell::new((Vec::new(), Vec::new())) };
}

impl Word for f32 {
    fn space() -> &'static LocalKey<Space<f32>> {
        &NUMBERS
    }
}

/// Two bf16 of neighbouring depth.
impl Word for u32 {
    fn space() -> &'static LocalKey<Space<u32>> {
        &PAIRS
    }
}

/// Steps of depth that a copy asks for ahead of their use.
pub(super) const AHEAD: usize = 12;

/// How one instruction set multiplies.
///
/// # Safety
/// The constants hold what they say, [`Kernel::left`] and [`Kernel::right`] give what [`Tile`]
/// asks for.
pub(super) unsafe trait Kernel {
    type Word: Word;
    /// Depth steps that one word holds.
    const DEPTH: usize;
    /// Rows of a tile of the result, at most [`MOST_ROWS`].
    const MR: usize;
    /// Columns of a tile.
    const NR: usize;
    /// Rows of a block.
    const MC: usize;
    /// Depth of a block.
    const KC: usize;
    /// Columns of a block.
    const NC: usize;

    /// Rows and depth of the left factor, copied to `to` (and rounded) where they can't be read as
    /// they lie; and the words from one panel of [`Kernel::MR`] rows to the next. They will be
    /// multiplied with `cols` columns: what a copy costs has to pay over these.
    ///
    /// # Safety
    /// The machine has the instructions; the ranges lie inside the factor.
    unsafe fn left(
        a: Mat<'_>,
        rows: Range<usize>,
        depth: Range<usize>,
        cols: usize,
        to: &mut Vec<Self::Word>,
    ) -> (Left<Self::Word>, usize);

    /// Copies columns and depth of the right factor to panels of [`Kernel::NR`] columns.
    ///
    /// # Safety
    /// As for [`Kernel::left`].
    unsafe fn right(b: Mat<'_>, cols: Range<usize>, depth: Range<usize>, to: &mut Vec<Self::Word>);

    /// A tile of `R` rows.
    ///
    /// # Safety
    /// The machine has the instructions; see [`Tile`].
    unsafe fn tile<const R: usize>(tile: Tile<Self::Word>);
}

/// Rows of the left factor: word w of row i lies at `i * row + w * step`.
#[derive(Clone, Copy)]
pub(super) struct Left<W> {
    pub start: *const W,
    pub row: usize,
    pub step: usize,
}

impl Left<f32> {
    /// A factor where it lies, from `row` and `depth` on.
    pub(super) fn lying(a: &Mat<'_>, row: usize, depth: usize) -> Self {
        Self {
            start: a.data[row * a.row_stride + depth * a.col_stride..].as_ptr(),
            row: a.row_stride,
            step: a.col_stride,
        }
    }
}

/// One tile: `words` outer products of `a`'s rows with a panel `b` of the right factor, written
/// (`add` false) or added to the `cols` first columns of the target's rows at `c`.
///
/// Whoever multiplies it relies on: `a` holds `words` steps of the tile's rows, `b` those of a
/// panel, and the target's rows, `stride` apart, hold `cols` numbers, 1 to [`Kernel::NR`].
#[derive(Clone, Copy)]
pub(super) struct Tile<W> {
    pub words: usize,
    pub a: Left<W>,
    pub b: *const W,
    pub c: *mut f32,
    pub stride: usize,
    pub cols: usize,
    pub add: bool,
}

/// Cuts `to` into panels of `width` rows (columns of a right factor), the last one filled up with
/// zeros; `fill` is told the first row of a panel and how many there are.
pub(super) fn panels<W: Word>(
    rows: Range<usize>,
    words: usize,
    width: usize,
    to: &mut Vec<W>,
    mut fill: impl FnMut(usize, usize, &mut [W]),
) {
    // What the buffer held before is overwritten, so it is not cleared.
    to.resize(rows.len().div_ceil(width) * words * width, W::default());
    for (panel, out) in to.chunks_exact_mut(words * width).enumerate() {
        let first = rows.start + panel * width;
        let count = width.min(rows.end - first);
        if count < width {
            out.fill(W::default());
        }
        fill(first, count, out);
    }
}

/// The product, its rows or columns dealt to `threads` threads.
///
/// # Safety
/// The machine has the instructions of `K`.
///
/// # Panics
/// Where the dimensions disagree or the depth is zero.
pub(super) unsafe fn gemm<K: Kernel>(
    threads: usize,
    a: Mat<'_>,
    b: Mat<'_>,
    c: MatMut<'_>,
    into: Update,
) {
    let (rows, cols, stride) = (c.rows, c.cols, c.stride);
    assert!(a.cols > 0, "a product without depth");
    assert_eq!((a.rows, a.cols, b.cols), (rows, b.rows, cols));
    let target = Shared::new(c.data);
    let part = |rows: Range<usize>, cols: Range<usize>| {
        // SAFETY: the caller's promise; the parts are disjoint and inside the target.
        unsafe { block::<K>(a, b, target, stride, rows, cols, into) };
    };
    if threads <= 1 {
        return part(0..rows, 0..cols);
    }
    // Along the longer side, in whole tiles.
    let (by_rows, length, unit) = if rows / K::MR >= cols / K::NR {
        (true, rows, K::MR)
    } else {
        (false, cols, K::NR)
    };
    let share = length.div_ceil(threads).next_multiple_of(unit);
    rayon::scope(|scope| {
        for start in (0..length).step_by(share) {
            let range = start..length.min(start + share);
            let part = &part;
            scope.spawn(move |_| {
                if by_rows {
                    part(range, 0..cols);
                } else {
                    part(0..rows, range);
                }
            });
        }
    });
}

/// Rows and columns of the product, on this thread.
///
/// # Safety
/// The machine has the instructions of `K`; the ranges lie inside the target and no other thread
/// writes there.
unsafe fn block<K: Kernel>(
    a: Mat<'_>,
    b: Mat<'_>,
    target: Shared<'_>,
    stride: usize,
    rows: Range<usize>,
    cols: Range<usize>,
    into: Update,
) {
    let depth = a.cols;
    let work = |left: &mut Vec<K::Word>, right: &mut Vec<K::Word>| {
        for first_col in cols.clone().step_by(K::NC) {
            let some_cols = first_col..cols.end.min(first_col + K::NC);
            for first_depth in (0..depth).step_by(K::KC) {
                let some_depth = first_depth..depth.min(first_depth + K::KC);
                let words = some_depth.len().div_ceil(K::DEPTH);
                let add = into == Update::Add || first_depth > 0;
                // SAFETY: the ranges lie inside the factor.
                unsafe { K::right(b, some_cols.clone(), some_depth.clone(), right) };
                for first_row in rows.clone().step_by(K::MC) {
                    let some_rows = first_row..rows.end.min(first_row + K::MC);
                    let [height, width] = [some_rows.len(), some_cols.len()];
                    // SAFETY: as above; the tiles lie inside the target.
                    unsafe {
                        let (a, panel) = K::left(a, some_rows, some_depth.clone(), width, left);
                        let tile = Tile {
                            words,
                            a,
                            b: right.as_ptr(),
                            c: target.at(first_row * stride + first_col),
                            stride,
                            cols: K::NR,
                            add,
                        };
                        tiles::<K>(tile, panel, [height, width]);
                    }
                }
            }
        }
    };
    K::Word::space().with_borrow_mut(|(left, right)| work(left, right));
}

/// The most rows of any tile.
const MOST_ROWS: usize = 6;

/// All tiles of a block of `height` rows and `width` columns, from its corner on.
///
/// # Safety
/// The machine has the instructions of `K`; the factors hold the rows, in panels that are `panel`
/// words apart, and the columns; the target holds the tiles.
unsafe fn tiles<K: Kernel>(corner: Tile<K::Word>, panel: usize, [height, width]: [usize; 2]) {
    const { assert!(K::MR <= MOST_ROWS) };
    for j in 0..width.div_ceil(K::NR) {
        for i in 0..height.div_ceil(K::MR) {
            let (row, col) = (i * K::MR, j * K::NR);
            // SAFETY: panels and corners lie inside the factors and the target.
            unsafe {
                let tile = Tile {
                    a: Left {
                        start: corner.a.start.add(i * panel),
                        ..corner.a
                    },
                    b: corner.b.add(j * corner.words * K::NR),
                    c: corner.c.add(row * corner.stride + col),
                    cols: K::NR.min(width - col),
                    ..corner
                };
                match K::MR.min(height - row) {
                    1 => K::tile::<1>(tile),
                    2 => K::tile::<2>(tile),
                    3 => K::tile::<3>(tile),
                    4 => K::tile::<4>(tile),
                    5 => K::tile::<5>(tile),
                    _ => K::tile::<MOST_ROWS>(tile),
                }
            }
        }
    }
}
