//! Line charts: curves with a standard-error band, a smoothed line over the raw one, and reference
//! lines, drawn by plotters. Colours follow the reader's light or dark scheme (`chart.css`).

use std::ops::Range;

use askama::Template;
use plotters::coord::Shift;
use plotters::coord::combinators::LogCoord;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use serde::Serialize;

use crate::format::{percent, significant, tick, with_error};

/// The style of charts in a page and of a chart that stands alone.
pub(crate) const CHART_CSS: &str = include_str!("../templates/chart.css");

/// Plotters places on whole units: a unit is a tenth of a pixel.
const UNIT: i32 = 10;
const WIDTH: i32 = 720;
const ROW: i32 = 18;
/// Average width of a character of the legend, in pixels.
const CHARACTER: i32 = 7;
/// Up to this many points are marked by dots.
const DOTS: usize = 60;
/// Curves are told apart by these; the style has their counterparts on a dark ground.
const PALETTE: [RGBColor; 8] = [
    RGBColor(0x23, 0x60, 0xc5),
    RGBColor(0xc4, 0x56, 0x1a),
    RGBColor(0x11, 0x80, 0x6a),
    RGBColor(0x82, 0x47, 0xb8),
    RGBColor(0xb0, 0x2a, 0x5b),
    RGBColor(0x8a, 0x6d, 0x00),
    RGBColor(0x0e, 0x7f, 0xa8),
    RGBColor(0x5f, 0x5f, 0x5f),
];
const INK: RGBColor = RGBColor(0x1d, 0x24, 0x30);
const SOFT: RGBColor = RGBColor(0x66, 0x70, 0x85);
const GRID: RGBColor = RGBColor(0xe4, 0xe7, 0xec);
const FRAME: RGBColor = RGBColor(0x98, 0xa2, 0xb3);
const REFERENCE: RGBColor = RGBColor(0x47, 0x54, 0x67);

/// How an axis spaces its values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scale {
    /// Equal differences, equal distances.
    #[default]
    Linear,
    /// Equal ratios, equal distances. Values of zero and below have no place on it.
    Log,
}

/// One curve.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    name: String,
    points: Vec<(f64, f64)>,
    errors: Vec<f64>,
    smoothing: Option<f64>,
    dots: bool,
}

impl Series {
    /// A curve through `(x, y)` points in drawing order; points that are not finite, or not
    /// positive on a logarithmic axis, leave a gap.
    pub fn new(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self {
            name: printable(name),
            points,
            errors: Vec::new(),
            smoothing: None,
            dots: false,
        }
    }

    /// A band of one standard error on either side, one error per point; an upright line at a point
    /// that stands alone.
    pub fn with_errors(self, errors: Vec<f64>) -> Self {
        Self { errors, ..self }
    }

    /// Draws the points faintly and over them their exponential moving average, in which the past
    /// weighs `weight` (0 to 1, exclusive) and the start is corrected for the missing past.
    pub fn smoothed(self, weight: f64) -> Self {
        let smoothing = Some(weight);
        Self { smoothing, ..self }
    }

    /// Marks each point with a dot, as long as they are few.
    pub fn with_dots(self) -> Self {
        Self { dots: true, ..self }
    }

    fn error(&self, index: usize) -> Option<f64> {
        self.errors.get(index).copied().filter(|e| e.is_finite())
    }
}

/// A chart of one or more curves over a common x axis.
#[derive(Clone, Debug, PartialEq)]
pub struct LineChart {
    title: String,
    x_label: String,
    y_label: String,
    x_scale: Scale,
    y_scale: Scale,
    percent: bool,
    y_limits: (f64, f64),
    from_zero: bool,
    height: i32,
    series: Vec<Series>,
    references: Vec<(f64, String)>,
}

impl LineChart {
    /// An empty chart with linear axes.
    pub fn new(
        title: impl Into<String>,
        x_label: impl Into<String>,
        y_label: impl Into<String>,
    ) -> Self {
        Self {
            title: printable(title),
            x_label: printable(x_label),
            y_label: printable(y_label),
            x_scale: Scale::Linear,
            y_scale: Scale::Linear,
            percent: false,
            y_limits: (f64::NEG_INFINITY, f64::INFINITY),
            from_zero: false,
            height: 250,
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
            percent: true,
            ..self.within(0.0, 1.0)
        }
    }

    /// Tells the y axis which bounds the quantity cannot pass: room is not added beyond them.
    pub fn within(self, low: f64, high: f64) -> Self {
        let y_limits = (low, high);
        Self { y_limits, ..self }
    }

    /// Begins the y axis at 0, for quantities whose ratio is the message.
    pub fn from_zero(self) -> Self {
        Self {
            from_zero: true,
            ..self
        }
    }

    /// Adds a curve.
    pub fn series(mut self, series: Series) -> Self {
        self.series.push(series);
        self
    }

    /// Adds a horizontal line with a label.
    pub fn reference(mut self, value: f64, label: impl Into<String>) -> Self {
        self.references.push((value, printable(label)));
        self
    }

    /// Whether no curve has been added.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// The chart as a file of its own, with styles, title and legend.
    pub fn to_svg(&self) -> String {
        let mut head = vec![(
            Place::Text(0, 16),
            ("sans-serif", 15 * UNIT).into_font().color(&INK),
            self.title.clone(),
        )];
        let small = |colour| ("sans-serif", 12 * UNIT).into_font().color(&colour);
        head.push((Place::Text(0, 36), small(SOFT), self.y_label.clone()));
        let (mut x, mut y) = (0, 58);
        for entry in self.legend() {
            let width = 24 + CHARACTER * entry.name.chars().count() as i32;
            if x > 0 && x + width > WIDTH {
                (x, y) = (0, y + ROW);
            }
            head.push((Place::Line(x, y - 4), small(entry.colour()), String::new()));
            head.push((Place::Text(x + 24, y), small(INK), entry.name));
            x += width + 20;
        }
        let style = format!("<style>{CHART_CSS}</style>");
        self.draw(y + 10, &style, &head).0
    }

    /// The chart with its title and legend as an element of a page; it tells its values on hovering.
    pub fn to_figure(&self, caption: &str) -> String {
        self.figure(caption, self.legend())
    }

    /// The same without a legend, for charts that share the one of [`legend_of`].
    pub fn to_figure_without_legend(&self, caption: &str) -> String {
        self.figure(caption, Vec::new())
    }

    fn figure(&self, caption: &str, legend: Vec<Entry>) -> String {
        #[derive(Template)]
        #[template(path = "figure.html")]
        struct Figure<'a> {
            title: &'a str,
            y_label: &'a str,
            legend: Vec<Entry>,
            values: String,
            svg: String,
            caption: &'a str,
        }
        let (svg, values) = self.draw(0, "", &[]);
        let figure = Figure {
            title: &self.title,
            y_label: &self.y_label,
            legend,
            values: serde_json::to_string(&values).expect("numbers and text have a JSON form"),
            svg,
            caption,
        };
        figure.render().expect("writing to a string")
    }

    /// Which line is which; empty where one curve stands alone.
    fn legend(&self) -> Vec<Entry> {
        if self.series.len() + self.references.len() < 2 {
            return Vec::new();
        }
        let curves = self.series.iter().enumerate();
        let references = self.references.iter();
        curves
            .map(|(index, series)| Entry {
                name: series.name.clone(),
                index: Some(index),
            })
            .chain(references.map(|(_, name)| Entry {
                name: name.clone(),
                index: None,
            }))
            .collect()
    }

    /// The drawing under a head of `head` pixels, and what a pointer over it is told.
    fn draw(&self, head: i32, style: &str, extra: &[Drawn<'_>]) -> (String, Values) {
        let mut svg = String::new();
        let (width, height) = (WIDTH, head + self.height + 12);
        let mut values = Values::default();
        {
            let size = ((width * UNIT) as u32, (height * UNIT) as u32);
            let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
            for (place, style, text) in extra {
                place.draw(&root, style, text);
            }
            let (_, plot) = root.split_vertically(head * UNIT);
            self.draw_plot(&plot, &mut values)
                .expect("writing to a string");
            root.present().expect("writing to a string");
        }
        // Plotters' own opening tag sets the size in its units, and has no name for screen readers.
        let body = svg.split_once('>').map_or("", |(_, body)| body);
        let label = format!("{}: {}", self.title, self.y_label);
        let label = askama::filters::escape(&label, askama::filters::Html).expect("a text");
        let svg = format!(
            "<svg class=\"chart\" xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" \
             height=\"{height}\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{label}\">{style}{body}",
            width * UNIT,
            height * UNIT,
        );
        (svg, values)
    }

    fn draw_plot(&self, area: &Area<'_>, values: &mut Values) -> DrawResult {
        let text = |colour: &RGBColor| ("sans-serif", 15 * UNIT).into_font().color(colour);
        let Some((x, y)) = self.axes() else {
            return area.draw(&Text::new(
                "no data yet",
                (64 * UNIT, 80 * UNIT),
                text(&SOFT),
            ));
        };
        let (floor, ceiling) = (y.range().start, y.range().end);
        let mut chart = ChartBuilder::on(area)
            .margin_top(12 * UNIT)
            .margin_right(20 * UNIT)
            .x_label_area_size(44 * UNIT)
            .y_label_area_size(64 * UNIT)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .max_light_lines(0)
            .bold_line_style(GRID.stroke_width(UNIT as u32))
            .axis_style(FRAME.stroke_width(UNIT as u32))
            .set_all_tick_mark_size(4 * UNIT)
            .label_style(text(&SOFT))
            .x_labels(7)
            .y_labels(6)
            .y_label_formatter(&|v| {
                if self.percent {
                    percent_tick(*v)
                } else {
                    tick(*v)
                }
            })
            .x_desc(&self.x_label)
            .axis_desc_style(text(&SOFT))
            .draw()?;
        let inside = |&(x, y): &(f64, f64)| {
            let placed = x.is_finite() && y.is_finite();
            let positive = (self.x_scale == Scale::Linear || x > 0.0)
                && (self.y_scale == Scale::Linear || y > 0.0);
            (placed && positive).then(|| (x, y.clamp(floor, ceiling)))
        };
        let line = |points: &[(f64, f64)], style: ShapeStyle| {
            let places: Vec<_> = points.iter().map(inside).collect();
            let stretches = places.split(Option::is_none).filter(|s| s.len() > 1);
            stretches
                .map(|s| thinned(&s.iter().flatten().copied().collect::<Vec<_>>()))
                .map(|points| PathElement::new(points, style))
                .collect::<Vec<_>>()
        };
        for (index, series) in self.series.iter().enumerate() {
            let colour = colour_of(index);
            let strong = colour.stroke_width(2 * UNIT as u32);
            for (i, stretch) in self.band(series, floor, ceiling).into_iter().enumerate() {
                let _ = i;
                match stretch.len() {
                    0 => {}
                    2 => {
                        let faint = colour.mix(0.4).stroke_width(2 * UNIT as u32);
                        chart.draw_series([PathElement::new(stretch, faint)])?;
                    }
                    _ => {
                        chart.draw_series([Polygon::new(stretch, colour.mix(0.16))])?;
                    }
                }
            }
            match series.smoothing {
                Some(weight) => {
                    let faint = colour.mix(0.28).stroke_width(UNIT as u32);
                    chart.draw_series(line(&series.points, faint))?;
                    chart.draw_series(line(&averaged(&series.points, weight), strong))?;
                }
                None => {
                    chart.draw_series(line(&series.points, strong))?;
                }
            }
            // A curve of one point would be invisible without its dot.
            let few = series.dots && series.points.len() <= DOTS;
            if few || series.points.len() == 1 {
                let dot = |at| Circle::new(at, 3 * UNIT, colour.filled());
                chart.draw_series(series.points.iter().filter_map(inside).map(dot))?;
            }
            let told = series.points.iter().enumerate().filter_map(|(i, point)| {
                let (x, y) = chart.backend_coord(&inside(point)?);
                let at = format!("{} {}", tick(point.0), self.x_label);
                Some((x, y, at, self.tell(point.1, series.error(i))))
            });
            values.push(&series.name, index, told);
        }
        let (left, right) = (chart.x_range().start, chart.x_range().end);
        for (value, _) in &self.references {
            if let Some((_, y)) = inside(&(right, *value)) {
                let style = REFERENCE.stroke_width(UNIT as u32);
                chart.draw_series([PathElement::new([(left, y), (right, y)], style)])?;
            }
        }
        Ok(())
    }

    /// Both axes, once the data is known; `None` without a single point.
    fn axes(&self) -> Option<(Axis, Axis)> {
        let points = || self.series.iter().flat_map(|s| &s.points);
        let (mut low, high) = span(self.x_scale, points().map(|p| p.0))?;
        // A count that starts near zero is read from zero.
        if self.x_scale == Scale::Linear && low > 0.0 && low < 0.3 * high {
            low = 0.0;
        }
        let x = Axis::new(self.x_scale, low, high);
        let (least, most) = self.y_limits;
        let extent = |series: &Series| -> Vec<f64> {
            let around = series.points.iter().enumerate().map(|(i, &(_, y))| {
                let error = series.error(i).unwrap_or(0.0);
                [
                    y,
                    (y - error).max(least.min(y)),
                    (y + error).min(most.max(y)),
                ]
            });
            around.flatten().collect()
        };
        // Without a single point there is nothing to hold against a reference.
        span(self.y_scale, points().map(|p| p.1))?;
        let shown = self.series.iter().flat_map(extent);
        let references = self.references.iter().map(|r| r.0);
        let zero = self.from_zero.then_some(0.0);
        let (low, high) = span(self.y_scale, shown.chain(references).chain(zero))?;
        let (wide_low, wide_high) = match self.y_scale {
            Scale::Log => {
                let room = (high / low).powf(0.04);
                (low / room, high * room)
            }
            Scale::Linear => {
                let room = 0.06 * (high - low);
                // Data that is never negative does not need room below zero.
                let floor = if low >= 0.0 { 0.0 } else { f64::NEG_INFINITY };
                ((low - room).max(floor), high + room)
            }
        };
        // Data beyond the limits is not cut: it is worth seeing that they were passed.
        let y = Axis::new(
            self.y_scale,
            wide_low.max(least.min(low)),
            wide_high.min(most.max(high)),
        );
        Some((x, y))
    }

    /// The outlines of the area between value − error and value + error, one for each stretch without
    /// gaps: forth above and back below.
    fn band(&self, series: &Series, floor: f64, ceiling: f64) -> Vec<Vec<(f64, f64)>> {
        let edges: Vec<_> = series
            .points
            .iter()
            .enumerate()
            .map(|(i, &(x, y))| {
                let error = series.error(i)?;
                let placed =
                    x.is_finite() && y.is_finite() && (self.x_scale == Scale::Linear || x > 0.0);
                // On a logarithmic axis the lower edge may have no place: it then lies on the floor.
                let held = |y: f64| (x, y.clamp(floor, ceiling));
                placed.then(|| (held(y + error), held(y - error)))
            })
            .collect();
        let stretches = edges.split(Option::is_none);
        stretches
            .map(|stretch| {
                let upper = stretch.iter().flatten().map(|(upper, _)| *upper);
                let lower = stretch.iter().rev().flatten().map(|(_, lower)| *lower);
                upper.chain(lower).collect()
            })
            .collect()
    }

    fn tell(&self, value: f64, error: Option<f64>) -> String {
        match error {
            _ if self.percent => percent(value),
            Some(error) => with_error(value, error),
            None => significant(value, 4),
        }
    }
}

/// The legend that charts with the same curves share, as an element of a page.
pub fn legend_of(chart: &LineChart) -> String {
    #[derive(Template)]
    #[template(path = "legend.html")]
    struct Legend {
        legend: Vec<Entry>,
    }
    let legend = chart.legend();
    Legend { legend }.render().expect("writing to a string")
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type DrawResult = Result<(), DrawingAreaErrorKind<std::io::Error>>;
type Drawn<'a> = (Place, TextStyle<'a>, String);

/// Where something of the head stands, in pixels.
enum Place {
    Text(i32, i32),
    Line(i32, i32),
}

impl Place {
    fn draw(&self, root: &Area<'_>, style: &TextStyle<'_>, text: &str) {
        let drawn = match *self {
            Self::Text(x, y) => {
                let at = (x * UNIT, (y - 11) * UNIT);
                root.draw(&Text::new(text, at, style.clone()))
            }
            Self::Line(x, y) => {
                let (r, g, b) = style.color.rgb;
                let stroke = RGBColor(r, g, b).stroke_width(2 * UNIT as u32);
                let ends = [(x * UNIT, y * UNIT), ((x + 18) * UNIT, y * UNIT)];
                root.draw(&PathElement::new(ends, stroke))
            }
        };
        drawn.expect("writing to a string");
    }
}

/// A line of a legend; a reference has no index.
struct Entry {
    name: String,
    index: Option<usize>,
}

impl Entry {
    fn colour(&self) -> RGBColor {
        self.index.map_or(REFERENCE, colour_of)
    }

    /// As plotters writes it, which the style goes by.
    fn hex(&self) -> String {
        hex(self.colour())
    }
}

fn colour_of(index: usize) -> RGBColor {
    PALETTE[index % PALETTE.len()]
}

fn hex(RGBColor(r, g, b): RGBColor) -> String {
    format!("#{r:02X}{g:02X}{b:02X}")
}

/// What a pointer over the chart is told, curve by curve.
#[derive(Default, Serialize)]
struct Values(Vec<Told>);

#[derive(Serialize)]
struct Told {
    name: String,
    colour: String,
    /// Place in units of the drawing, where and what.
    points: Vec<(i32, i32, String, String)>,
}

impl Values {
    /// One point in three pixels at most: more can't be pointed at.
    fn push(
        &mut self,
        name: &str,
        index: usize,
        points: impl Iterator<Item = (i32, i32, String, String)>,
    ) {
        let mut kept: Vec<(i32, i32, String, String)> = Vec::new();
        for point in points {
            if kept
                .last()
                .is_none_or(|last| (point.0 - last.0).abs() >= 3 * UNIT)
            {
                kept.push(point);
            }
        }
        self.0.push(Told {
            name: name.to_owned(),
            colour: hex(colour_of(index)),
            points: kept,
        });
    }
}

/// An axis of either spacing as plotters sees it.
enum Axis {
    Linear(RangedCoordf64),
    Log(LogCoord<f64>),
}

impl Axis {
    fn new(scale: Scale, low: f64, high: f64) -> Self {
        match scale {
            Scale::Linear => Self::Linear((low..high).into()),
            Scale::Log => Self::Log((low..high).log_scale().into()),
        }
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        match self {
            Self::Linear(axis) => axis.map(value, limit),
            Self::Log(axis) => axis.map(value, limit),
        }
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        let most = hint.max_num_points();
        match self {
            Self::Linear(axis) => axis.key_points(most),
            Self::Log(axis) => {
                // Plotters' own are decades, of which there may be too few: 1, 2 and 5 of each, and
                // within less than a decade round differences, serve as well.
                let Range { start, end } = axis.range();
                let powers = (start.log10().floor() as i32)..=(end.log10().ceil() as i32);
                let every = powers.clone().count().div_ceil(most.max(1));
                let ticks = |factors: &[f64]| -> Vec<f64> {
                    let powers = powers.clone().step_by(every.max(1));
                    let all = powers.flat_map(|p| factors.iter().map(move |f| f * 10_f64.powi(p)));
                    all.filter(|v| (start..=end).contains(v)).collect()
                };
                let linear = || RangedCoordf64::from(start..end).key_points(most);
                let candidates = [ticks(&[1.0]), ticks(&[1.0, 2.0, 5.0])];
                let found = candidates.into_iter().find(|ticks| ticks.len() >= 3);
                found.unwrap_or_else(linear)
            }
        }
    }

    fn range(&self) -> Range<f64> {
        match self {
            Self::Linear(axis) => axis.range(),
            Self::Log(axis) => axis.range(),
        }
    }
}

impl ValueFormatter<f64> for Axis {
    fn format(value: &f64) -> String {
        tick(*value)
    }
}

fn percent_tick(share: f64) -> String {
    format!("{} %", tick(100.0 * share))
}

/// The ends of the values that have a place; room on both sides where they are one. `None` where
/// there are none.
fn span(scale: Scale, values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let usable = values.filter(|&v| v.is_finite() && (scale == Scale::Linear || v > 0.0));
    let (low, high) = usable.fold((f64::MAX, f64::MIN), |(l, h), v| (v.min(l), v.max(h)));
    match scale {
        _ if low > high => None,
        _ if low < high => Some((low, high)),
        Scale::Log => Some((low / 2.0, high * 2.0)),
        Scale::Linear if low == 0.0 => Some((-1.0, 1.0)),
        Scale::Linear => Some((low - low.abs() / 10.0, high + high.abs() / 10.0)),
    }
}

/// Exponential moving average, corrected for the missing past: `m_t / (1 - weight^t)` with
/// `m_t = weight * m_(t-1) + (1 - weight) * y_t`. A value that is not finite yields NaN at its
/// place and leaves the average as it was.
fn averaged(points: &[(f64, f64)], weight: f64) -> Vec<(f64, f64)> {
    let (mut average, mut mass) = (0.0, 0.0);
    let mut next = |&(x, y): &(f64, f64)| {
        if !y.is_finite() {
            return (x, f64::NAN);
        }
        average = weight * average + (1.0 - weight) * y;
        mass = weight * mass + (1.0 - weight);
        (x, average / mass)
    };
    points.iter().map(&mut next).collect()
}

/// A curve of at most about four points a pixel: in each of as many parts as there are pixels the
/// first, the lowest, the highest and the last stay, in their order, so that the line covers the same.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let part = points.len().div_ceil(WIDTH as usize).max(1);
    if part <= 4 {
        return points.to_vec();
    }
    let mut kept = Vec::new();
    for column in points.chunks(part) {
        let by_height = |a: &usize, b: &usize| column[*a].1.total_cmp(&column[*b].1);
        let lowest = (0..column.len()).min_by(by_height).unwrap_or(0);
        let highest = (0..column.len()).max_by(by_height).unwrap_or(0);
        let mut indices = vec![0, lowest, highest, column.len() - 1];
        indices.sort_unstable();
        indices.dedup();
        kept.extend(indices.into_iter().map(|i| column[i]));
    }
    kept
}

/// Escaping does not make control characters legal in XML.
fn printable(text: impl Into<String>) -> String {
    text.into().replace(|c: char| c.is_control(), "\u{fffd}")
}

#[cfg(test)]
#[path = "chart_tests.rs"]
mod tests;
