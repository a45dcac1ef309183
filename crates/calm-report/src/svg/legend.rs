//! Which line is which.

use std::fmt::Write;

use crate::Series;

use super::primitives::{px, text};
use super::{CHARACTER, WIDTH};

/// Colours of a turn; the next turn has them again, dashed and with hollow dots.
const COLOURS: usize = 4;
/// Length of a line in the legend.
const LINE: f64 = 18.0;
/// Height of a row.
const ROW: f64 = 18.0;

/// The style classes of the series `index`.
pub(super) fn class_of(index: usize) -> String {
    let (turn, colour) = (index / COLOURS, index % COLOURS + 1);
    match turn {
        0 => format!("s{colour}"),
        _ => format!("s{colour} turn{}", turn.min(2)),
    }
}

/// The legend's places, in rows that fit the chart; empty where there is one series or none.
pub(super) struct Legend {
    places: Vec<(f64, f64)>,
    rows: usize,
}

impl Legend {
    pub(super) fn of(series: &[Series]) -> Self {
        let (mut places, mut x, mut rows) = (Vec::new(), 0.0, 1);
        if series.len() > 1 {
            for one in series {
                let width = LINE + 6.0 + CHARACTER * one.name.chars().count() as f64;
                if x > 0.0 && x + width > WIDTH {
                    (x, rows) = (0.0, rows + 1);
                }
                places.push((x, 56.0 + ROW * (rows - 1) as f64));
                x += width + 22.0;
            }
        }
        Self { places, rows }
    }

    /// What its rows after the first add to the height of a chart.
    pub(super) fn more(&self) -> f64 {
        ROW * (self.rows - 1) as f64
    }

    /// Where the curves may begin.
    pub(super) fn bottom(&self) -> f64 {
        if self.places.is_empty() {
            54.0
        } else {
            76.0 + self.more()
        }
    }

    pub(super) fn draw(&self, svg: &mut String, series: &[Series]) {
        for (index, (series, &(x, y))) in series.iter().zip(&self.places).enumerate() {
            let _ = writeln!(
                svg,
                "<line class=\"line {}\" x1=\"{}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\"/>",
                class_of(index),
                px(x),
                px(x + LINE),
            );
            text(svg, "key", (x + LINE + 6.0, y + 4.0), &series.name);
        }
    }
}
