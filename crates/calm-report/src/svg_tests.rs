//! Tests of the charts: coordinates of known points, bands, gaps, labels, escaping.

use super::*;

/// The `d` attribute of the first path of a class.
fn path<'a>(svg: &'a str, class: &str) -> &'a str {
    let start = format!("<path class=\"{class}\" d=\"");
    let rest = &svg[svg
        .find(&start)
        .unwrap_or_else(|| panic!("no {class} in {svg}"))
        + start.len()..];
    &rest[..rest.find('"').unwrap()]
}

fn chart() -> LineChart {
    LineChart::new("Loss", "tokens", "nats").height(300.0)
}

#[test]
fn points_land_where_the_axes_say() {
    // y: 0..10 with 3 % of room widens to 0..12 in steps of 2; the frame is 54..260 and 64..704.
    let line = Series::new("a", vec![(0.0, 0.0), (50.0, 6.0), (100.0, 10.0)]);
    let svg = chart().series(line).to_inline_svg();
    assert_eq!(path(&svg, "line s1"), "M64,260L384,157L704,88.3");
    assert!(
        svg.contains("x=\"56\" y=\"157\" dy=\"4\">6</text>"),
        "{svg}"
    );
    assert!(svg.contains(">100</text>"), "{svg}");
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
    let svg = chart()
        .scales(Scale::Log, Scale::Log)
        .series(Series::new("a", points))
        .to_svg();
    // Room of 4 % of two decades on either side: 1 lies at 0.08/2.16 of the height above the floor.
    let d = path(&svg, "line s1");
    assert_eq!(d, "M64,61.6L277.3,157L490.7,252.4M704,157");
    for label in [">1</text>", ">10</text>", ">100</text>", ">1000</text>"] {
        assert!(svg.contains(label), "{label} in {svg}");
    }
}

#[test]
fn the_band_runs_forth_above_and_back_below() {
    let line = Series::new("a", vec![(0.0, 4.0), (1.0, 6.0)]).with_errors(vec![1.0, 2.0]);
    let svg = chart().series(line).to_inline_svg();
    let corners: Vec<(f64, f64)> = path(&svg, "band s1")
        .trim_start_matches('M')
        .trim_end_matches('Z')
        .split('L')
        .map(|p| p.split_once(',').unwrap())
        .map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap()))
        .collect();
    let xs: Vec<_> = corners.iter().map(|c| c.0).collect();
    assert_eq!(xs, [64.0, 704.0, 704.0, 64.0]);
    // Heights are 5, 8, 4, 3: above the line first, so smaller on the canvas.
    let unit = (corners[2].1 - corners[1].1) / 4.0;
    approx::assert_abs_diff_eq!(corners[0].1 - corners[1].1, 3.0 * unit, epsilon = 0.2);
    approx::assert_abs_diff_eq!(corners[3].1 - corners[2].1, unit, epsilon = 0.2);
}

#[test]
fn a_missing_error_interrupts_the_band_but_not_the_line() {
    let points = (0..5).map(|i| (f64::from(i), 1.0)).collect();
    let errors = vec![0.1, 0.1, f64::NAN, 0.1, 0.1];
    let svg = chart()
        .series(Series::new("a", points).with_errors(errors))
        .to_inline_svg();
    assert_eq!(svg.matches("class=\"band s1\"").count(), 2);
    assert_eq!(path(&svg, "line s1").matches('M').count(), 1);
}

#[test]
fn the_error_of_a_lone_point_is_an_upright_line() {
    let lone = Series::new("a", vec![(1.0, 4.0)]).with_errors(vec![1.0]);
    let frame = Series::new("b", vec![(0.0, 2.0), (2.0, 6.0)]);
    let svg = chart().series(lone).series(frame).to_inline_svg();
    assert!(!svg.contains("class=\"band"), "{svg}");
    let ends: Vec<(f64, f64)> = path(&svg, "whisker s1")
        .trim_start_matches('M')
        .split('L')
        .map(|p| p.split_once(',').unwrap())
        .map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap()))
        .collect();
    let [top, bottom] = ends[..] else {
        panic!("two ends, not {ends:?}")
    };
    assert_eq!(top.0, bottom.0);
    // The axis spans 2 to 6 and more; the other series is two units above and below the point.
    let line = path(&svg, "line s2");
    let heights: Vec<f64> = line
        .trim_start_matches('M')
        .split('L')
        .map(|p| p.split_once(',').unwrap().1.parse().unwrap())
        .collect();
    approx::assert_abs_diff_eq!(
        2.0 * (bottom.1 - top.1),
        heights[0] - heights[1],
        epsilon = 0.3
    );
}

#[test]
fn many_series_stay_apart_and_their_legend_inside() {
    let names = |n: usize| (0..n).map(|i| format!("a model with a long name {i}"));
    let draw = |n: usize| {
        let series = |name| Series::new(name, vec![(0.0, 1.0), (1.0, 2.0)]);
        names(n)
            .fold(chart(), |chart, name| chart.series(series(name)))
            .to_inline_svg()
    };
    let (few, many) = (draw(2), draw(9));
    for class in ["line s1\"", "line s1 turn1\"", "line s1 turn2\""] {
        assert_eq!(
            many.matches(class).count(),
            2,
            "a line and its key: {class}"
        );
    }
    let numbers = |svg: &str, before: &str| -> Vec<f64> {
        let parts = svg.split(before).skip(1);
        parts
            .map(|part| part.split('"').next().unwrap().parse().unwrap())
            .collect()
    };
    let keys = numbers(&many, "<text class=\"key\" x=\"");
    assert_eq!(keys.len(), 9);
    let width = 6.6 * "a model with a long name 0".len() as f64;
    assert!(keys.iter().all(|x| x + width <= 720.0), "{keys:?}");
    // What the legend takes the chart gets in height, so the curves keep theirs.
    let height = |svg: &str| -> f64 {
        let inside = svg.split("viewBox=\"0 0 720 ").nth(1).unwrap();
        inside.split('"').next().unwrap().parse().unwrap()
    };
    let rows = {
        let mut rows = numbers(&many, "y1=\"");
        rows.retain(|y| (56.0..height(&many) - height(&few) + 57.0).contains(y));
        rows.dedup();
        rows.len()
    };
    assert!(rows > 1);
    assert_eq!(height(&many) - height(&few), 18.0 * (rows - 1) as f64);
}

#[test]
fn a_lone_dot_is_named_inside_the_chart() {
    let lone = |name: &str, x| Series::new(name, vec![(x, 1.0)]);
    let svg = chart()
        .series(lone("left", 0.0))
        .series(lone("right", 9.0))
        .to_inline_svg();
    assert!(svg.contains("<text class=\"halo\" x=\"71\""), "{svg}");
    assert!(svg.contains("<text class=\"halo end\" x=\"697\""), "{svg}");
}

#[test]
fn smoothing_draws_a_calmer_line_over_the_raw_one() {
    let points: Vec<_> = (0..40).map(|i| (f64::from(i), f64::from(i % 2))).collect();
    let svg = chart()
        .series(Series::new("energy", points).smoothed(0.9))
        .to_inline_svg();
    let heights = |class: &str| {
        let ys = path(&svg, class)[1..]
            .split('L')
            .map(|p| p.split_once(',').unwrap().1);
        ys.map(|y| y.parse::<f64>().unwrap()).collect::<Vec<_>>()
    };
    let spread = |ys: &[f64]| {
        let late = &ys[20..];
        late.iter().fold(f64::MIN, |a, &b| a.max(b)) - late.iter().fold(f64::MAX, |a, &b| a.min(b))
    };
    assert!(spread(&heights("line s1")) < 0.2 * spread(&heights("raw s1")));
}

#[test]
fn several_curves_have_a_legend_and_one_has_none() {
    let series = |name: &str| Series::new(name, vec![(0.0, 0.0), (1.0, 1.0)]);
    let one = chart().series(series("first"));
    assert!(!one.to_inline_svg().contains("first"));
    let svg = one.series(series("second")).to_inline_svg();
    assert!(
        svg.contains("<text class=\"key\" x=\"24\" y=\"60\">first</text>"),
        "{svg}"
    );
    assert!(svg.contains("<path class=\"line s2\""), "{svg}");
}

#[test]
fn the_label_of_a_reference_line_keeps_clear_of_the_curve() {
    // Right above the line at the right end, far away at the left one.
    let near = Series::new("a", vec![(0.0, 9.0), (40.0, 5.4), (100.0, 5.4)]);
    let svg = chart()
        .series(near)
        .reference(5.0, "unigram")
        .to_inline_svg();
    assert!(svg.contains("<text class=\"halo\" x=\"68\""), "{svg}");
    let far = Series::new("a", vec![(0.0, 9.0), (100.0, 9.0)]);
    let svg = chart()
        .series(far)
        .reference(5.0, "unigram")
        .to_inline_svg();
    assert!(svg.contains("<text class=\"halo end\" x=\"704\""), "{svg}");
}

#[test]
fn an_error_band_does_not_stretch_a_bounded_axis() {
    let line = Series::new("a", vec![(0.0, 0.01), (1.0, 0.5)]).with_errors(vec![0.1, 0.1]);
    let svg = chart()
        .within(0.0, 100.0)
        .series(line.clone())
        .to_inline_svg();
    assert!(!svg.contains('−'), "{svg}");
    assert!(chart().series(line).to_inline_svg().contains('−'));
}
#[test]
fn a_reference_line_is_always_in_view() {
    let svg = chart()
        .series(Series::new("a", vec![(0.0, 5.0), (1.0, 6.0)]))
        .reference(1.0, "unigram <0.011>")
        .to_inline_svg();
    assert!(
        svg.contains("class=\"reference\" x1=\"64\" x2=\"704\""),
        "{svg}"
    );
    assert!(svg.contains(">unigram &lt;0.011&gt;</text>"), "{svg}");
    assert!(
        svg.contains(">1</text>") && svg.contains(">6</text>"),
        "{svg}"
    );
}

#[test]
fn an_axis_can_begin_at_zero() {
    let line = Series::new("a", vec![(0.0, 90.0), (100.0, 100.0)]);
    let chart = chart().series(line).from_zero().within(0.0, f64::INFINITY);
    let svg = chart.to_inline_svg();
    // 90 of 0..120 stands at three quarters of the frame's 54..260.
    assert_eq!(path(&svg, "line s1"), "M64,105.5L704,88.3");
}

#[test]
fn dots_tell_their_values() {
    let points = vec![(1_500_000.0, 0.0131), (3_000_000.0, 0.02)];
    let errors = vec![0.0004, 0.0004];
    let series = Series::new("CALM", points).with_errors(errors).with_dots();
    let svg = chart().series(series).to_inline_svg();
    let title = "<title>CALM: 0.01310 ± 0.00040 at 1.5 M tokens</title>";
    assert!(svg.contains(title), "{svg}");
}

#[test]
fn long_curves_stay_small() {
    let points = (0..100_000)
        .map(|i| (f64::from(i), f64::from(i % 97)))
        .collect();
    let svg = chart().series(Series::new("a", points)).to_inline_svg();
    assert!(svg.len() < 60_000, "{} bytes", svg.len());
}

#[test]
fn nothing_to_draw_is_said() {
    for points in [vec![], vec![(0.0, f64::NAN)]] {
        let svg = chart()
            .series(Series::new("a", points))
            .reference(1.0, "r")
            .to_inline_svg();
        assert!(svg.contains("no data yet"), "{svg}");
        assert!(!svg.contains("NaN"), "{svg}");
    }
}

#[test]
fn titles_are_escaped_everywhere() {
    let svg = LineChart::new("a<b", "x&y", "\"q\"").series(Series::new("<s>", vec![(0.0, 1.0)]));
    let svg = svg.to_svg();
    assert!(
        svg.contains("aria-label=\"a&lt;b: &quot;q&quot;\""),
        "{svg}"
    );
    assert!(
        svg.contains("<title>&lt;s&gt;: 1.000 at 0 x&amp;y</title>"),
        "{svg}"
    );
    assert!(svg.contains("@media (prefers-color-scheme: dark)"));
}
