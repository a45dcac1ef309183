//! The plot of a chart: axes, curves, bands, and what a pointer over it is told.

use std::ops::Range;

use plotters::coord::combinators::LogCoord;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use serde::Serialize;

use super::{
    Area, CHARACTER, FRAME, GRID, INK, LineChart, REFERENCE, SOFT, Scale, Series, UNIT, WIDTH,
    colour_of, hex,
};
use crate::format::{percent, significant, tick, tick_by, with_error};

/// Up to this many points are marked by dots.
const DOTS: usize = 60;
/// About as many labels.
const X_LABELS: usize = 7;
const Y_LABELS: usize = 6;

type DrawResult = Result<(), DrawingAreaErrorKind<std::io::Error>>;

impl LineChart {
    pub(super) fn draw_plot(&self, area: &Area<'_>, values: &mut Values) -> DrawResult {
        let text = |colour: &RGBColor| ("sans-serif", 15 * UNIT).into_font().color(colour);
        let small = |colour: RGBColor| ("sans-serif", 12 * UNIT).into_font().color(&colour);
        let Some((x, y)) = self.axes() else {
            return area.draw(&Text::new(
                "no data yet",
                (64 * UNIT, 80 * UNIT),
                text(&SOFT),
            ));
        };
        let (floor, ceiling) = (y.range().start, y.range().end);
        let (x_step, y_step) = (step(&x.key_points(X_LABELS)), step(&y.key_points(Y_LABELS)));
        let right = x.range().end;
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
            .x_labels(X_LABELS)
            .y_labels(Y_LABELS)
            .x_label_formatter(&|v| labelled(*v, x_step))
            .y_label_formatter(&|v| match self.percent {
                true => format!("{} %", labelled(100.0 * v, y_step.map(|step| 100.0 * step))),
                false => labelled(*v, y_step),
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
            for stretch in self.band(series, floor, ceiling) {
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
            // A dot without a line to follow is told by its name.
            if let ([point], true) = (series.points.as_slice(), self.series.len() > 1)
                && let Some(at) = inside(point)
            {
                let (x, y) = chart.backend_coord(&at);
                let width = CHARACTER * UNIT * series.name.chars().count() as i32;
                let (side, shift) = match x + 80 + width > WIDTH * UNIT {
                    true => (HPos::Right, -80),
                    false => (HPos::Left, 80),
                };
                let style = small(INK).pos(Pos::new(side, VPos::Center));
                let (_, top) = area.get_base_pixel();
                area.draw(&Text::new(
                    series.name.as_str(),
                    (x + shift, y - top - 8 * UNIT),
                    style,
                ))?;
            }
            let told = series.points.iter().enumerate().filter_map(|(i, point)| {
                let (x, y) = chart.backend_coord(&inside(point)?);
                let at = format!("{} {}", tick(point.0), self.x_label);
                Some((x, y, at, self.tell(point.1, series.error(i))))
            });
            values.push(&series.name, index, told);
        }
        let left = chart.x_range().start;
        for (value, _) in &self.references {
            if let Some((_, y)) = inside(&(right, *value)) {
                let style = REFERENCE.stroke_width(UNIT as u32);
                chart.draw_series([PathElement::new([(left, y), (right, y)], style)])?;
            }
        }
        Ok(())
    }

    /// Both axes, once the data is known; `None` without a single point.
    pub(super) fn axes(&self) -> Option<(Axis, Axis)> {
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

/// What a pointer over the chart is told, curve by curve.
#[derive(Default, Serialize)]
pub(super) struct Values(Vec<Told>);

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
        let mut last = None;
        for point in points {
            last = Some(point.clone());
            if kept
                .last()
                .is_none_or(|last| (point.0 - last.0).abs() >= 3 * UNIT)
            {
                kept.push(point);
            }
        }
        // How it stands is what one points at most.
        if let (Some(end), Some(last)) = (kept.last_mut(), last) {
            *end = last;
        }
        self.0.push(Told {
            name: name.to_owned(),
            colour: hex(colour_of(index)),
            points: kept,
        });
    }
}

/// An axis of either spacing as plotters sees it.
pub(super) enum Axis {
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
            Self::Linear(axis) => round_differences(axis.range(), most),
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
                let linear = || round_differences(start..end, most);
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

/// Multiples of 1, 2 or 5 times a power of ten, about `most` of them. Plotters' own never end where
/// a step is lost in the size of the numbers.
fn round_differences(range: Range<f64>, most: usize) -> Vec<f64> {
    let rough = (range.end - range.start) / most.max(1) as f64;
    let power = 10_f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    let step = steps
        .into_iter()
        .find(|&step| step >= rough)
        .unwrap_or(rough);
    let first = (range.start / step).ceil();
    let count = (range.end / step).floor() - first;
    if !(0.0..=2.0 * most as f64).contains(&count) {
        return Vec::new();
    }
    let at = |i: usize| (first + i as f64) * step;
    (0..=count as usize)
        .map(at)
        .filter(|v| v.is_finite())
        .collect()
}

/// How far ticks lie apart; `None` where that is not the same for all.
fn step(ticks: &[f64]) -> Option<f64> {
    let step = ticks.get(1)? - ticks.first()?;
    let even = ticks
        .windows(2)
        .all(|pair| (pair[1] - pair[0] - step).abs() <= 1e-6 * step);
    even.then_some(step)
}

fn labelled(value: f64, step: Option<f64>) -> String {
    step.map_or_else(|| tick(value), |step| tick_by(value, step))
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
pub(super) fn averaged(points: &[(f64, f64)], weight: f64) -> Vec<(f64, f64)> {
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
pub(super) fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
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
