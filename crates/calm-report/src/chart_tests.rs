//! Tests of the charts: places of known points, bands, gaps, labels, escaping.

use plotters::coord::ranged1d::Ranged;

use super::plot::{averaged, thinned};
use super::*;

fn chart() -> LineChart {
    LineChart::new("Loss", "tokens", "nats")
}

/// The points of every line drawn with a style of this colour and width.
fn lines(svg: &str, colour: usize, width: u32) -> Vec<Vec<(i32, i32)>> {
    let style = format!(
        "stroke=\"{}\" stroke-width=\"{width}\" points=\"",
        hex(PALETTE[colour])
    );
    svg.split(&style).skip(1).map(places).collect()
}

fn bands(svg: &str, colour: usize) -> Vec<Vec<(i32, i32)>> {
    let style = format!("fill=\"{}\" points=\"", hex(PALETTE[colour]));
    svg.split(&style).skip(1).map(places).collect()
}

fn places(text: &str) -> Vec<(i32, i32)> {
    let list = text.split('"').next().unwrap().split_whitespace();
    let numbers = list.map(|p| p.split_once(',').unwrap());
    numbers
        .map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap()))
        .collect()
}

fn inline(chart: &LineChart) -> String {
    chart.draw(0, "", &[]).0
}

#[test]
fn points_land_where_the_axes_say() {
    // y: 0..10 with 6 % of room above and none below zero.
    let line = Series::new("a", vec![(0.0, 0.0), (50.0, 5.3), (100.0, 10.0)]);
    let svg = inline(&chart().series(line));
    let [line] = lines(&svg, 0, 20).try_into().unwrap();
    let (left, right) = (line[0].0, line[2].0);
    assert!((line[1].0 - (left + right) / 2).abs() <= 1, "{line:?}");
    let height = line[0].1 - line[2].1;
    let middle = f64::from(line[0].1 - line[1].1) / f64::from(height);
    approx::assert_abs_diff_eq!(middle, 0.53, epsilon = 1e-3);
    assert!(
        svg.contains("\n100\n</text>") && svg.contains("\n10\n</text>"),
        "{svg}"
    );
}

#[test]
fn a_log_axis_spaces_ratios_equally_and_leaves_gaps_for_what_has_no_place() {
    let points = vec![
        (1.0, 100.0),
        (10.0, 10.0),
        (100.0, 1.0),
        (1000.0, 0.0),
        (1000.0, 10.0),
    ];
    let svg = inline(
        &chart()
            .scales(Scale::Log, Scale::Log)
            .series(Series::new("a", points)),
    );
    let [line] = lines(&svg, 0, 20).try_into().unwrap();
    let step = |i: usize| (line[i + 1].0 - line[i].0, line[i + 1].1 - line[i].1);
    assert_eq!(line.len(), 3, "the last point stands alone behind a gap");
    assert!((step(0).0 - step(1).0).abs() <= 1 && (step(0).1 - step(1).1).abs() <= 1);
    for label in ["1", "10", "100", "1000"] {
        assert!(
            svg.contains(&format!("\n{label}\n</text>")),
            "{label} in {svg}"
        );
    }
}

#[test]
fn the_band_runs_forth_above_and_back_below() {
    let line = Series::new("a", vec![(0.0, 4.0), (1.0, 6.0)]).with_errors(vec![1.0, 2.0]);
    let svg = inline(&chart().series(line));
    let [band] = bands(&svg, 0).try_into().unwrap();
    let [line] = lines(&svg, 0, 20).try_into().unwrap();
    assert_eq!(band.len(), 4);
    let unit = f64::from(line[0].1 - line[1].1) / 2.0;
    let expected = [(0, 1.0), (1, 2.0), (1, -2.0), (0, -1.0)];
    for (corner, (at, error)) in band.iter().zip(expected) {
        assert_eq!(corner.0, line[at].0);
        let above = f64::from(line[at].1 - corner.1);
        approx::assert_abs_diff_eq!(above, error * unit, epsilon = 1.5);
    }
}

#[test]
fn an_unknown_error_is_a_gap_in_the_band_and_not_in_the_curve() {
    let points = (0..5).map(|i| (f64::from(i), 1.0)).collect();
    let errors = vec![0.1, 0.1, f64::NAN, 0.1, 0.1];
    let svg = inline(&chart().series(Series::new("a", points).with_errors(errors)));
    assert_eq!(bands(&svg, 0).len(), 2);
    assert_eq!(lines(&svg, 0, 20)[0].len(), 5);
}

#[test]
fn a_lone_point_has_a_dot_and_an_upright_line() {
    let lone = Series::new("a", vec![(1.0, 2.0)]).with_errors(vec![0.5]);
    let svg = inline(&chart().series(lone));
    let [line] = lines(&svg, 0, 20).try_into().unwrap();
    assert!(line[0].0 == line[1].0 && line[0].1 < line[1].1, "{line:?}");
    assert_eq!(svg.matches("<circle").count(), 1);
}

#[test]
fn lone_points_beside_others_are_named_inside_the_chart() {
    let lone = |name: &str, x| Series::new(name, vec![(x, 1.0)]);
    let both = chart()
        .series(lone("left", 0.0))
        .series(lone("at the right end", 9.0));
    let svg = inline(&both);
    let text = |name: &str| -> &str {
        let before = svg.split(&format!("\n{name}\n</text>")).next().unwrap();
        &before[before.rfind("<text").unwrap()..]
    };
    assert!(text("left").contains("text-anchor=\"start\""), "{svg}");
    assert!(
        text("at the right end").contains("text-anchor=\"end\""),
        "{svg}"
    );
    assert!(!inline(&chart().series(lone("alone", 0.0))).contains("alone"));
}

#[test]
fn smoothing_draws_a_calmer_line_over_the_raw_one() {
    let points: Vec<_> = (0..40).map(|i| (f64::from(i), f64::from(i % 2))).collect();
    let svg = inline(&chart().series(Series::new("a", points).smoothed(0.9)));
    let spread = |line: &[(i32, i32)]| {
        let ys = line[20..].iter().map(|p| p.1);
        ys.clone().max().unwrap() - ys.min().unwrap()
    };
    let (raw, calm) = (&lines(&svg, 0, 10)[0], &lines(&svg, 0, 20)[0]);
    assert!(5 * spread(calm) < spread(raw));
    let averages = averaged(&[(0.0, 4.0), (1.0, 4.0), (2.0, f64::NAN), (3.0, 8.0)], 0.5);
    assert!(averages[0].1 == 4.0 && averages[2].1.is_nan());
    // The weights 1/8, 1/4, 1/2 over their sum 7/8.
    approx::assert_relative_eq!(averages[3].1, (0.5 + 1.0 + 4.0) / (7.0 / 8.0));
}

#[test]
fn long_curves_stay_small_and_keep_their_extremes() {
    let points: Vec<_> = (0..100_000)
        .map(|i| {
            (
                f64::from(i),
                if i == 5_003 { 900.0 } else { f64::from(i % 97) },
            )
        })
        .collect();
    let kept = thinned(&points);
    assert!(kept.contains(&points[5_003]) && kept.first() == points.first());
    assert_eq!(kept.last(), points.last());
    let figure = chart().series(Series::new("a", points)).to_figure("");
    assert!(figure.len() < 60_000, "{} bytes", figure.len());
    // The last point can be pointed at: 99,999 mod 97 is 89.
    assert!(
        figure.contains("&#34;100 k tokens&#34;,&#34;89.00&#34;]]"),
        "{figure}"
    );
}

#[test]
fn limits_and_zero_hold_the_axis() {
    let line = Series::new("a", vec![(0.0, 0.01), (1.0, 0.5)]).with_errors(vec![0.1, 0.1]);
    let labels = |chart: &LineChart| chart.axes().unwrap().1.range();
    assert_eq!(
        labels(&chart().within(0.0, 100.0).series(line.clone())).start,
        0.0
    );
    assert!(labels(&chart().series(line.clone())).start < 0.0);
    approx::assert_relative_eq!(
        labels(&chart().percent().series(line)).end,
        0.6 + 0.06 * 0.6
    );
    let all = Series::new("a", vec![(0.0, 0.2), (1.0, 1.0)]);
    assert_eq!(labels(&chart().percent().series(all)).end, 1.0);
    let high = Series::new("a", vec![(0.0, 90.0), (1.0, 100.0)]);
    assert_eq!(labels(&chart().series(high).from_zero()).start, 0.0);
}

#[test]
fn a_reference_line_is_always_in_view_and_in_the_legend() {
    let chart = chart()
        .series(Series::new("a", vec![(0.0, 5.0), (1.0, 6.0)]))
        .reference(1.0, "unigram <0.011>");
    let svg = chart.to_svg();
    assert!(svg.contains("unigram &lt;0.011&gt;"), "{svg}");
    assert!(chart.axes().unwrap().1.range().start < 1.0);
    // Across the plot.
    let style = format!(
        "stroke=\"{}\" stroke-width=\"10\" points=\"",
        hex(REFERENCE)
    );
    let line = places(svg.split(&style).nth(1).unwrap());
    assert_eq!((line[0].0, line[0].1), (640, line[1].1));
    assert!(line[1].0 >= 6990, "{line:?}");
}

#[test]
fn one_curve_has_no_legend_and_many_have_one_that_fits() {
    let series = |name: String| Series::new(name, vec![(0.0, 0.0), (1.0, 1.0)]);
    let one = chart().series(series("first".into()));
    assert!(!one.to_svg().contains("first"));
    let many = (0..9).map(|i| format!("a model with a long name {i}"));
    let many = many.fold(chart(), |chart, name| chart.series(series(name)));
    assert_eq!(many.to_svg().matches("a model with").count(), 9);
    let figure = many.to_figure("");
    assert_eq!(figure.matches("<li>").count(), 9);
    assert!(!many.to_figure_without_legend("").contains("<li>"));
    assert_eq!(legend_of(&many).matches("<li>").count(), 9);
}

#[test]
fn a_pointer_is_told_values() {
    let points = vec![(1_500_000.0, 0.0131), (3_000_000.0, 0.02)];
    let series = Series::new("CALM", points).with_errors(vec![0.0004, 0.0004]);
    let figure = chart().series(series).to_figure("");
    let values = "&#34;1.5 M tokens&#34;,&#34;0.01310 ± 0.00040&#34;";
    assert!(figure.contains(values), "{figure}");
}

#[test]
fn nothing_to_draw_is_said() {
    for points in [vec![], vec![(0.0, f64::NAN)]] {
        let svg = chart()
            .series(Series::new("a", points))
            .reference(1.0, "r")
            .to_svg();
        assert!(svg.contains("no data yet") && !svg.contains("NaN"), "{svg}");
    }
}

#[test]
fn text_is_escaped_everywhere() {
    let chart = LineChart::new("a<b\u{1}", "x&y", "\"q\"");
    let chart = chart.series(Series::new("<s>", vec![(0.0, 1.0)]));
    let both = chart.series(Series::new("<t>", vec![(0.0, 1.0)]));
    for text in [both.to_svg(), both.to_figure("<c>")] {
        for raw in ["<s>", "<t>", "a<b", "x&y", "\"q\"", "<c>", "\u{1}"] {
            assert!(!text.contains(raw), "{raw} in {text}");
        }
    }
}

#[test]
fn every_colour_has_its_counterpart_on_a_dark_ground() {
    for colour in PALETTE {
        for attribute in ["stroke", "fill"] {
            let rule = format!(".chart [{attribute}=\"{}\"]", hex(colour));
            assert!(CHART_CSS.contains(&rule), "{rule}");
        }
    }
    for (attribute, colour) in [
        ("fill", INK),
        ("fill", SOFT),
        ("stroke", GRID),
        ("stroke", FRAME),
    ] {
        let rule = format!("[{attribute}=\"{}\"]", hex(colour));
        assert!(CHART_CSS.contains(&rule), "{rule}");
    }
}

/// Steps below the last digit of the numbers, differences beyond the largest number.
#[test]
fn ticks_end_at_any_size() {
    for (low, high) in [
        (1e17, 1e17 + 16.0),
        (1e300, 1e300 * (1.0 + 4e-16)),
        (-f64::MAX, f64::MAX),
        (0.0, f64::MIN_POSITIVE),
    ] {
        let line = Series::new("a", vec![(low, low), (high, high)]);
        assert!(
            inline(&chart().series(line)).len() < 20_000,
            "{low} to {high}"
        );
    }
    let line = Series::new("a", vec![(0.0, 0.0), (7.0, 0.25)]);
    let svg = inline(&chart().series(line));
    for label in ["0.05", "0.10", "0.15", "0.20", "0.25"] {
        assert!(
            svg.contains(&format!("\n{label}\n</text>")),
            "{label} in {svg}"
        );
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(256))]

    /// Whatever a diverging run logs: no panic, no endless ticks, nothing outside the drawing.
    #[test]
    fn no_numbers_break_a_chart(
        points in proptest::collection::vec(
            (proptest::num::f64::ANY, proptest::num::f64::ANY), 0..6,
        ),
        errors in proptest::collection::vec(proptest::num::f64::ANY, 6),
        scales in 0..4,
    ) {
        let scale = |log| if log { Scale::Log } else { Scale::Linear };
        let errors = errors[..points.len()].to_vec();
        let series = Series::new("a", points).with_errors(errors).with_dots();
        let chart = chart().scales(scale(scales & 1 > 0), scale(scales & 2 > 0));
        let svg = inline(&chart.series(series).reference(0.5, "r"));
        let shown = svg.contains("NaN") || svg.contains("inf");
        proptest::prop_assert!(!shown && svg.len() < 60_000, "{}", svg);
    }
}
