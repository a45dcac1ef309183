//! The shapes that charts are made of.

use std::fmt::Write;

use crate::Scale;
use crate::Series;
use crate::curve::decimate;
use crate::escape::escape;

use super::Plot;

/// Height of a drawn curve at `x`, where the curve passes it.
pub(super) fn height_at(curve: &[(f64, f64)], x: f64) -> Option<f64> {
    let after = curve.iter().position(|p| p.0 >= x)?;
    let ((x1, y1), (x0, y0)) = (curve[after], curve[after.checked_sub(1)?]);
    Some(y0 + (y1 - y0) * (x - x0) / (x1 - x0))
}

/// The area between value − error and value + error, in one piece per stretch without gaps; a point
/// that stands alone gets an upright line.
pub(super) fn draw_band(svg: &mut String, plot: &Plot, class: &str, series: &Series) {
    let edge = |sign: f64| {
        series
            .points
            .iter()
            .zip(&series.errors)
            .map(move |(&(x, y), &error)| {
                // On a logarithmic axis the lower edge may have no place: it then lies on the floor.
                let y = y + sign * error;
                plot.at((
                    x,
                    if y <= 0.0 && plot.y.scale == Scale::Log {
                        plot.y.low
                    } else {
                        y
                    },
                ))
            })
    };
    let pairs: Vec<_> = edge(1.0).zip(edge(-1.0)).collect();
    for stretch in pairs.split(|(upper, lower)| upper.is_none() || lower.is_none()) {
        let upper = stretch.iter().filter_map(|p| p.0);
        let lower = stretch.iter().rev().filter_map(|p| p.1);
        let outline: Vec<_> = upper
            .chain(lower)
            .map(|(x, y)| format!("{},{}", px(x), px(y)))
            .collect();
        let outline = outline.join("L");
        let _ = match stretch.len() {
            0 => Ok(()),
            1 => writeln!(svg, "<path class=\"whisker {class}\" d=\"M{outline}\"/>"),
            _ => writeln!(svg, "<path class=\"band {class}\" d=\"M{outline}Z\"/>"),
        };
    }
}

/// A path through the placed points, broken at the gaps.
pub(super) fn draw_line(svg: &mut String, class: &str, points: &[Option<(f64, f64)>]) {
    let mut path = String::new();
    for stretch in points.split(Option::is_none) {
        let stretch: Vec<_> = stretch.iter().flatten().copied().collect();
        for (i, (x, y)) in decimate(&stretch).into_iter().enumerate() {
            let _ = write!(
                path,
                "{}{},{}",
                if i == 0 { 'M' } else { 'L' },
                px(x),
                px(y)
            );
        }
    }
    if !path.is_empty() {
        let _ = writeln!(svg, "<path class=\"{class}\" d=\"{path}\"/>");
    }
}

pub(super) fn text(svg: &mut String, class: &str, (x, y): (f64, f64), content: &str) {
    let (x, y, content) = (px(x), px(y), escape(content));
    let _ = writeln!(
        svg,
        "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{content}</text>"
    );
}

/// A coordinate to a tenth of a pixel, without superfluous zeros.
pub(super) fn px(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").unwrap_or(&text).to_owned()
}
