//! Line charts as SVG text: curves with a standard-error band, a smoothed line over the raw one,
//! and labelled reference lines. No script; colours follow the reader's light or dark scheme.

mod legend;
mod primitives;

use std::fmt::Write;

use crate::curve::ema;
use crate::escape::escape;
use crate::format::{significant, with_error};
use crate::scale::{Axis, Scale, UNLIMITED, Unit, tick_labels};
use crate::series::Series;

use legend::{Legend, class_of};
use primitives::{draw_band, draw_line, height_at, px, text};

/// Style rules for every chart; all selectors are confined to `.chart`.
pub const CHART_CSS: &str = include_str!("chart.css");

const WIDTH: f64 = 720.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const BOTTOM: f64 = 40.0;
/// Average width of a character at the charts' text size, for placing one label after another.
const CHARACTER: f64 = 6.6;
/// Up to this many points are drawn as dots that tell their values.
const DOTS: usize = 60;

/// A chart of one or more curves over a common x axis.
#[derive(Clone, Debug, PartialEq)]
pub struct LineChart {
    title: String,
    y_label: String,
    x_label: String,
    x_scale: Scale,
    y_scale: Scale,
    y_unit: Unit,
    y_limits: (f64, f64),
    from_zero: bool,
    height: f64,
    series: Vec<Series>,
    references: Vec<(f64, String)>,
}

/// The rectangle of the curves and its axes, once the data is known.
struct Plot {
    x: Axis,
    y: Axis,
    top: f64,
    bottom: f64,
}

impl Plot {
    /// Canvas coordinates of a point; the y is held within the frame.
    fn at(&self, (x, y): (f64, f64)) -> Option<(f64, f64)> {
        let x = LEFT + (WIDTH - LEFT - RIGHT) * self.x.position(x)?;
        let y = self.y.position(y)?.clamp(0.0, 1.0);
        Some((x, self.bottom - (self.bottom - self.top) * y))
    }
}

impl LineChart {
    /// An empty chart with linear axes.
    pub fn new(
        title: impl Into<String>,
        x_label: impl Into<String>,
        y_label: impl Into<String>,
    ) -> Self {
        Self {
            title: title.into(),
            x_label: x_label.into(),
            y_label: y_label.into(),
            x_scale: Scale::Linear,
            y_scale: Scale::Linear,
            y_unit: Unit::Number,
            y_limits: UNLIMITED,
            from_zero: false,
            height: 320.0,
            series: Vec::new(),
            references: Vec::new(),
        }
    }

    /// Sets the spacing of both axes.
    pub fn scales(self, x_scale: Scale, y_scale: Scale) -> Self {
        Self {
            x_scale,
            y_scale,
            ..self
        }
    }

    /// Writes the y axis in percent, within 0 and 100 %.
    pub fn percent(self) -> Self {
        Self {
            y_unit: Unit::Percent,
            y_limits: (0.0, 1.0),
            ..self
        }
    }

    /// Tells the y axis which bounds the quantity cannot pass: room is not added beyond them.
    pub fn within(self, low: f64, high: f64) -> Self {
        Self {
            y_limits: (low, high),
            ..self
        }
    }

    /// Begins the y axis at 0, for quantities whose ratio is the message.
    pub fn from_zero(self) -> Self {
        Self {
            from_zero: true,
            ..self
        }
    }

    /// Sets the height in pixels at the natural width of 720 (default 320).
    pub fn height(self, height: f64) -> Self {
        Self { height, ..self }
    }

    /// Adds a curve.
    pub fn series(mut self, series: Series) -> Self {
        self.series.push(series);
        self
    }

    /// Adds a horizontal line with a label.
    pub fn reference(mut self, value: f64, label: impl Into<String>) -> Self {
        self.references.push((value, label.into()));
        self
    }

    /// Whether no curve has been added.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// The chart as a file of its own, styles included.
    pub fn to_svg(&self) -> String {
        self.render(&format!("<style>{CHART_CSS}</style>"))
    }

    /// The chart as an element of a page that holds [`CHART_CSS`].
    pub fn to_inline_svg(&self) -> String {
        self.render("")
    }

    fn render(&self, style: &str) -> String {
        let legend = Legend::of(&self.series);
        let height = self.height + legend.more();
        let (top, bottom) = (legend.bottom(), height - BOTTOM);
        let mut svg = format!(
            "<svg class=\"chart\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {}\" \
             role=\"img\" aria-label=\"{}: {}\">{style}\n",
            px(height),
            escape(&self.title),
            escape(&self.y_label),
        );
        text(&mut svg, "title", (0.0, 16.0), &self.title);
        text(&mut svg, "label", (0.0, 36.0), &self.y_label);
        legend.draw(&mut svg, &self.series);
        match self.plot(top, bottom) {
            Some(plot) => {
                self.draw_axes(&mut svg, &plot);
                for (index, series) in self.series.iter().enumerate() {
                    self.draw_series(&mut svg, &plot, index, series);
                }
                for (value, label) in &self.references {
                    self.draw_reference(&mut svg, &plot, *value, label);
                }
            }
            None => text(
                &mut svg,
                "label",
                (LEFT, (top + bottom) / 2.0),
                "no data yet",
            ),
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn plot(&self, top: f64, bottom: f64) -> Option<Plot> {
        let points = || self.series.iter().flat_map(|s| &s.points);
        let mut x = Axis::span(self.x_scale, points().map(|p| p.0))?;
        // A count that starts near zero is read from zero.
        if self.x_scale == Scale::Linear && x.low > 0.0 && x.low < 0.3 * x.high {
            x.low = 0.0;
        }

        // Without a single point there is nothing to hold against a reference.
        Axis::span(self.y_scale, points().map(|p| p.1))?;
        let references = self.references.iter().map(|r| r.0);
        let zero = self.from_zero.then_some(0.0);
        let y = Axis::span(
            self.y_scale,
            self.series
                .iter()
                .flat_map(|s| s.extent(self.y_limits))
                .chain(references)
                .chain(zero),
        )?;
        Some(Plot {
            x,
            y: y.widened(self.y_ticks(), self.y_limits),
            top,
            bottom,
        })
    }

    fn y_ticks(&self) -> usize {
        (self.height / 60.0).round() as usize
    }

    fn draw_axes(&self, svg: &mut String, plot: &Plot) {
        let ticks = plot.y.ticks(self.y_ticks());
        for (tick, label) in ticks.iter().zip(tick_labels(&ticks, self.y_unit)) {
            if let Some((_, y)) = plot.at((plot.x.low, *tick)) {
                let (x1, x2, y) = (px(LEFT), px(WIDTH - RIGHT), px(y));
                let _ = writeln!(
                    svg,
                    "<line class=\"grid\" x1=\"{x1}\" x2=\"{x2}\" y1=\"{y}\" y2=\"{y}\"/>\
                     <text class=\"tick end\" x=\"{}\" y=\"{y}\" dy=\"4\">{}</text>",
                    px(LEFT - 8.0),
                    escape(&label),
                );
            }
        }
        let ticks = plot.x.ticks(6);
        let base = px(plot.bottom);
        for (tick, label) in ticks.iter().zip(tick_labels(&ticks, Unit::Number)) {
            if let Some((x, _)) = plot.at((*tick, plot.y.low)) {
                let _ = writeln!(
                    svg,
                    "<line class=\"axis\" x1=\"{x}\" x2=\"{x}\" y1=\"{base}\" y2=\"{}\"/>\
                     <text class=\"tick mid\" x=\"{x}\" y=\"{}\">{}</text>",
                    px(plot.bottom + 4.0),
                    px(plot.bottom + 18.0),
                    escape(&label),
                    x = px(x),
                );
            }
        }
        let _ = writeln!(
            svg,
            "<line class=\"axis\" x1=\"{}\" x2=\"{right}\" y1=\"{base}\" y2=\"{base}\"/>\
             <text class=\"label end\" x=\"{right}\" y=\"{}\">{}</text>",
            px(LEFT),
            px(plot.bottom + BOTTOM - 4.0),
            escape(&self.x_label),
            right = px(WIDTH - RIGHT),
        );
    }

    fn draw_series(&self, svg: &mut String, plot: &Plot, index: usize, series: &Series) {
        let class = class_of(index);
        let place = |points: &[(f64, f64)]| points.iter().map(|&p| plot.at(p)).collect::<Vec<_>>();
        if !series.errors.is_empty() {
            draw_band(svg, plot, &class, series);
        }
        let raw = place(&series.points);
        match series.smoothing {
            Some(weight) => {
                let ys: Vec<_> = series.points.iter().map(|p| p.1).collect();
                let averages = ema(&ys, weight);
                let smooth: Vec<_> = series
                    .points
                    .iter()
                    .zip(averages)
                    .map(|(&(x, _), y)| (x, y))
                    .collect();
                draw_line(svg, &format!("raw {class}"), &raw);
                draw_line(svg, &format!("line {class}"), &place(&smooth));
            }
            None => draw_line(svg, &format!("line {class}"), &raw),
        }
        // A curve of one point would be invisible without its dot.
        if series.points.len() > 1 && !(series.dots && series.points.len() <= DOTS) {
            return;
        }
        for (i, (point, place)) in series.points.iter().zip(&raw).enumerate() {
            if let Some((x, y)) = place {
                let value = self.tell(point.1, series.errors.get(i).copied());
                let at = tick_labels(&[point.0], Unit::Number).concat();
                let _ = writeln!(
                    svg,
                    "<circle class=\"dot {class}\" cx=\"{}\" cy=\"{}\" r=\"2.75\">\
                     <title>{}: {value} at {at} {}</title></circle>",
                    px(*x),
                    px(*y),
                    escape(&series.name),
                    escape(&self.x_label),
                );
                if series.points.len() == 1 && self.series.len() > 1 {
                    name_dot(svg, (*x, *y), &series.name);
                }
            }
        }
    }

    fn tell(&self, value: f64, error: Option<f64>) -> String {
        match (self.y_unit, error.filter(|e| e.is_finite())) {
            (Unit::Percent, _) => crate::format::percent(value),
            (Unit::Number, Some(error)) => with_error(value, error),
            (Unit::Number, None) => significant(value, 4),
        }
    }

    fn draw_reference(&self, svg: &mut String, plot: &Plot, value: f64, label: &str) {
        let Some((_, y)) = plot.at((plot.x.high, value)) else {
            return;
        };
        let (left, right) = (LEFT, WIDTH - RIGHT);
        let _ = writeln!(
            svg,
            "<line class=\"reference\" x1=\"{}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\"/>",
            px(left),
            px(right),
            y = px(y),
        );
        let (at, end) = self.label_place(plot, y, CHARACTER * label.chars().count() as f64);
        text(svg, if end { "halo end" } else { "halo" }, at, label);
    }

    /// Where the label of a reference line at height `y` is clear of the curves: at either end,
    /// above or below the line. Returns the baseline point and whether the text ends there.
    fn label_place(&self, plot: &Plot, y: f64, width: f64) -> ((f64, f64), bool) {
        let (left, right) = (LEFT + 4.0, WIDTH - RIGHT);
        let curves: Vec<Vec<_>> = self
            .series
            .iter()
            .map(|s| s.points.iter().filter_map(|&p| plot.at(p)).collect())
            .collect();
        let clearance = |from: f64, middle: f64| {
            let samples = (0..=8).map(|i| from + width * f64::from(i) / 8.0);
            samples
                .flat_map(|x| curves.iter().filter_map(move |curve| height_at(curve, x)))
                .map(|height| (height - middle).abs())
                // Farther than this all places are equally good, and the first is taken.
                .fold(16.0, f64::min)
        };
        let mut best = (0.0, (right, y - 6.0), true);
        for (baseline, end) in [
            (y - 6.0, true),
            (y - 6.0, false),
            (y + 15.0, true),
            (y + 15.0, false),
        ] {
            let room = clearance(if end { right - width } else { left }, baseline - 4.0);
            let inside = (plot.top + 8.0..plot.bottom - 4.0).contains(&baseline);
            if inside && room > best.0 {
                best = (room, (if end { right } else { left }, baseline), end);
            }
        }
        (best.1, best.2)
    }
}

/// A dot without a line to follow is told by its name.
fn name_dot(svg: &mut String, (x, y): (f64, f64), name: &str) {
    let width = CHARACTER * name.chars().count() as f64;
    if x + 7.0 + width <= WIDTH {
        text(svg, "halo", (x + 7.0, y - 6.0), name);
    } else {
        text(svg, "halo end", (x - 7.0, y - 6.0), name);
    }
}

#[cfg(test)]
#[path = "svg_tests.rs"]
mod tests;
