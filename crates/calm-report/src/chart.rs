//! Line charts: curves with a standard-error band, a smoothed line over the raw one, and reference
//! lines, drawn by plotters. Colours follow the reader's light or dark scheme (`chart.css`).

mod plot;

use askama::Template;
use plotters::coord::Shift;
use plotters::prelude::*;

use plot::Values;

/// The style of charts in a page and of a chart that stands alone.
pub(crate) const CHART_CSS: &str = include_str!("../templates/chart.css");

/// Plotters places on whole units: a unit is a tenth of a pixel.
const UNIT: i32 = 10;
const WIDTH: i32 = 720;
const ROW: i32 = 18;
/// Average width of a character of the legend, in pixels.
const CHARACTER: i32 = 7;
/// Curves are told apart by these; the style has their counterparts on a dark ground.
const PALETTE: [RGBColor; 12] = [
    RGBColor(0x23, 0x60, 0xc5),
    RGBColor(0xc4, 0x56, 0x1a),
    RGBColor(0x11, 0x80, 0x6a),
    RGBColor(0x82, 0x47, 0xb8),
    RGBColor(0xb0, 0x2a, 0x5b),
    RGBColor(0x8a, 0x6d, 0x00),
    RGBColor(0x0e, 0x7f, 0xa8),
    RGBColor(0x5f, 0x5f, 0x5f),
    RGBColor(0x3d, 0x8b, 0x37),
    RGBColor(0x9a, 0x5b, 0x3c),
    RGBColor(0x3b, 0x3b, 0x9e),
    RGBColor(0xd1, 0x4d, 0xb4),
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

/// Escaping does not make control characters legal in XML.
fn printable(text: impl Into<String>) -> String {
    text.into().replace(|c: char| c.is_control(), "\u{fffd}")
}

#[cfg(test)]
#[path = "chart_tests.rs"]
mod tests;
