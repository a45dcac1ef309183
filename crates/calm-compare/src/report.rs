//! `cells.csv`, `comparison.json`, the charts, and `compare.html`.

use std::path::Path;

use calm_report::{LineChart, Scale, Series, Table, escape, format, html_page, write_atomic};
use serde::Serialize;

use crate::Result;
use crate::frontier::Point;
use crate::grid::{GRIDS, Grid};
use crate::models::{Model, Verdict, models, sentence, verdicts};
use crate::plan::Scaling;
use crate::record::{CellRecord, Technique, to_csv};
use crate::scaling::{Fit, FitError, Law};
use crate::spec::CellKind;
use crate::tables::{cost_table, described, scores_table, speed_table, technique_table};

/// Everything that a comparison found.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The grid.
    pub grid: Grid,
    /// A record for every cell, in the grid's order.
    pub cells: Vec<CellRecord>,
    /// The ways to be efficient, measured.
    pub techniques: Vec<Technique>,
    /// The scaling law over the learning curves of the CALMs; why not, where there is none.
    pub scaling: std::result::Result<Fit, FitError>,
}

/// The grid as it was compared, in the comparison's directory.
const GRID: &str = "grid.toml";

/// Writes every file of the comparison.
pub(crate) fn write(comparison: &Comparison, out: &Path) -> Result<()> {
    let models = models(&comparison.cells);
    let verdicts = verdicts(&models);
    write_atomic(&out.join(GRID), comparison.grid.to_toml().as_bytes())?;
    write_atomic(&out.join("cells.csv"), to_csv(&comparison.cells).as_bytes())?;
    #[derive(Serialize)]
    struct Whole<'a> {
        grid: &'a crate::Grid,
        verdicts: &'a [Verdict],
        techniques: &'a [Technique],
        /// Absent where no law could be fitted.
        #[serde(skip_serializing_if = "Option::is_none")]
        scaling: Option<Scaling>,
        cells: &'a [CellRecord],
    }
    let whole = Whole {
        grid: &comparison.grid,
        verdicts: &verdicts,
        techniques: &comparison.techniques,
        scaling: comparison.scaling.clone().ok().map(|fit| Scaling {
            fit,
            preset: comparison.grid.preset.clone(),
            set: comparison.grid.set.clone(),
            autoencoder_tokens: comparison
                .cells
                .iter()
                .filter(|cell| cell.kind == CellKind::Calm)
                .map(|cell| (cell.chunk_size, cell.autoencoder_tokens as f64))
                .collect(),
        }),
        cells: &comparison.cells,
    };
    let text = serde_json::to_string_pretty(&whole).expect("numbers have a JSON form");
    write_atomic(&out.join("comparison.json"), (text + "\n").as_bytes())?;
    let charts = charts(&models);
    for (name, chart) in &charts {
        write_atomic(&out.join(name), chart.to_svg().as_bytes())?;
    }
    let page = page(comparison, &models, &verdicts, &charts);
    Ok(write_atomic(&out.join("compare.html"), page.as_bytes())?)
}

fn charts(models: &[Model<'_>]) -> Vec<(&'static str, LineChart)> {
    let curve_chart = |title: &str, x: &str, cost: fn(&crate::CurvePoint) -> f64| {
        let chart = LineChart::new(title, x, "Brier-1").scales(Scale::Log, Scale::Linear);
        models.iter().fold(chart, |chart, model| {
            let points = model.curve(cost);
            let xy = points.iter().map(|(p, _)| (p.cost, p.quality)).collect();
            let errors = points.iter().map(|(_, error)| *error).collect();
            chart.series(Series::new(model.name, xy).with_errors(errors).with_dots())
        })
    };
    // One point a model: between models of different kinds or K there is nothing to draw a line on.
    let score_chart =
        |title: &str, x: &str, y: &str, point: &dyn Fn(&Model<'_>) -> (Point, f64)| {
            let chart = LineChart::new(title, x, y).scales(Scale::Log, Scale::Linear);
            models.iter().fold(chart, |chart, model| {
                let (place, error) = point(model);
                let series = Series::new(model.name, vec![(place.cost, place.quality)]);
                chart.series(series.with_errors(vec![error]).with_dots())
            })
        };
    let chart = LineChart::new("Decoding speed", "texts side by side", "tokens/s")
        .scales(Scale::Log, Scale::Log);
    let speed = models.iter().fold(chart, |chart, model| {
        let rows = &model.cells[0].speed;
        let xy = rows
            .iter()
            .map(|r| (r.batch as f64, r.tokens_per_s))
            .collect();
        chart.series(Series::new(model.name, xy).with_dots())
    });
    let training = "training FLOPs, autoencoder included";
    let inference = "FLOPs per token, one sample a step, decoder included";
    vec![
        (
            "training-flops.svg",
            curve_chart("Quality by training work", training, |p| p.train_flops),
        ),
        (
            "training-seconds.svg",
            curve_chart(
                "Quality by training time",
                "seconds in training steps",
                |p| p.train_seconds,
            ),
        ),
        (
            "inference-flops.svg",
            score_chart("Quality by inference work", inference, "Brier-1", &|m| {
                m.point(|c| c.infer_flops_per_token)
            }),
        ),
        (
            "brier-lm-training-flops.svg",
            score_chart("BrierLM by training work", training, "BrierLM", &|m| {
                m.brier_lm_point(|c| c.train_flops)
            }),
        ),
        (
            "brier-lm-inference-flops.svg",
            score_chart("BrierLM by inference work", inference, "BrierLM", &|m| {
                m.brier_lm_point(|c| c.infer_flops_per_token)
            }),
        ),
        ("speed.svg", speed),
    ]
}

fn page(
    comparison: &Comparison,
    models: &[Model<'_>],
    verdicts: &[Verdict],
    charts: &[(&'static str, LineChart)],
) -> String {
    let grid = &comparison.grid;
    let mut body = format!(
        "<header><h1>Comparison “{}”</h1></header>\n",
        escape(&grid.name)
    );
    let mut section = |title: &str, content: String| {
        body.push_str(&format!(
            "<section>\n<h2>{}</h2>\n{content}</section>\n",
            escape(title)
        ));
    };
    let scroll = |table: &Table| format!("<div class=\"scroll wide\">{}</div>\n", table.to_html());
    let caption = |text: &str| format!("<p class=\"caption\">{}</p>\n", escape(text));

    if !verdicts.is_empty() {
        section(
            "What it says",
            format!(
                "<ul>\n{}</ul>\n{}",
                verdicts
                    .iter()
                    .map(|v| format!("<li>{}</li>\n", escape(&sentence(v))))
                    .collect::<String>(),
                caption(
                    "Against the frontier of the token models of this grid, quality being Brier-1. \
                     Each token model's points are first made to rise by an isotonic fit with their \
                     errors, because a maximum over noisy points is biased upwards; the maximum \
                     over models that is left favours the token models a little where two are \
                     equally good. Savings are interpolated between points, with 95 % intervals; \
                     nothing is extrapolated: an interval of which more than 2.5 % of the draws lie \
                     beyond the frontier is open at that end. Training is compared on the learning \
                     curves (the last point of the CALM against all points of the token models), \
                     inference on the final scores. The learning curves are scored at the same \
                     positions, on fewer windows; their learning rate is what the grid says, and a \
                     decay at the end would favour last points. Intervals: windows and \
                     seeds drawn with replacement, the same windows for all models; where a model has \
                     one seed, how much another would change is not in them.",
                )
            ),
        );
    }
    section(
        "Scores",
        format!(
            "{}{}",
            scroll(&scores_table(models)),
            caption(&(protocol(comparison) + &loaded(&comparison.cells)))
        ),
    );
    section(
        "Frontier",
        charts
            .iter()
            .map(|(_, chart)| chart.to_svg())
            .collect::<String>(),
    );
    section(
        "Cost and speed",
        format!(
            "{}{}{}",
            scroll(&cost_table(models)),
            scroll(&speed_table(models)),
            caption(
                "Training time is the time in steps. Memory is the largest resident set of the \
                 process in that part of the work; what the process kept from earlier cells is in \
                 it, so it is a bound. First \
                 token: from the prompts to the first token of every text. Tokens per second: \
                 after that, all texts together.",
            )
        ),
    );
    section(
        "Ways to be efficient, on this machine",
        format!(
            "{}<ul>\n{}</ul>\n{}",
            scroll(&technique_table(&comparison.techniques)),
            comparison
                .techniques
                .iter()
                .map(|t| format!("<li>{}</li>\n", escape(&described(t))))
                .collect::<String>(),
            caption(
                "Batch 1, temperature 1, the prompt's reading included; rows are timed in turn, \
                 round by round; medians, and medians of the ratios within a round.",
            )
        ),
    );
    section("Scaling law with K", scaling(&comparison.scaling));
    section("Reproduce", reproduction(comparison));
    html_page(&format!("{} · comparison", grid.name), &body)
}

fn protocol(comparison: &Comparison) -> String {
    let protocol = comparison.grid.protocol;
    let positions = comparison.cells.first().map_or(0, |c| c.scores.positions);
    format!(
        "Mean over seeds ± standard error (of the text, over windows, and of the seeds where \
         there are several). The same {} positions for all models: the multiples of {} tokens in \
         {} windows of the test part; curves along the way are of the validation part. CALM: {} draws a position, all pairs; token models: exact \
         probabilities, {} drawn prefixes a position. Seed {}.",
        format::grouped(positions),
        protocol.every,
        comparison.cells.first().map_or(0, |c| c.windows),
        protocol.draws,
        protocol.token_draws,
        protocol.seed,
    )
}

/// Which cells were loaded and from where, as further sentences; empty where none was.
fn loaded(cells: &[CellRecord]) -> String {
    let runs: Vec<String> = cells
        .iter()
        .filter_map(|cell| {
            let loaded = cell.made_with.loaded.as_ref()?;
            let revision = match &loaded.git_revision {
                Some(by) if Some(by) != cell.git_revision.as_ref() => {
                    format!(", trained by revision {by}")
                }
                _ => String::new(),
            };
            let (model, seed, run) = (&cell.model, cell.seed, &loaded.run);
            Some(format!("{model} seed {seed} from {run}{revision}"))
        })
        .collect();
    if runs.is_empty() {
        return String::new();
    }
    format!(
        " Loaded instead of trained: {}; memory, seconds and learning rates are those of their runs, and \
         where a run was scored at other positions or windows on the way, its learning curve is its \
         last point.",
        runs.join("; ")
    )
}

fn scaling(found: &std::result::Result<Fit, FitError>) -> String {
    let fit = match found {
        Ok(fit) => fit,
        Err(why) => {
            return format!(
                "<p class=\"empty\">No law was fitted: {}.</p>\n",
                escape(&why.to_string())
            );
        }
    };
    let mut table = Table::new(["coefficient", "value", "95 % interval"]);
    type Coefficient = (&'static str, fn(&Law) -> f64);
    let rows: [Coefficient; 6] = [
        ("E, floor", |l| l.floor),
        ("A, gain by parameters", |l| l.parameter_gain),
        ("α, exponent of parameters", |l| l.parameter_exponent),
        ("B, gain by data", |l| l.token_gain),
        ("β, exponent of data", |l| l.token_exponent),
        ("γ, exponent of K", |l| l.chunk_exponent),
    ];
    for (name, get) in rows {
        let [low, high] = fit.interval(get);
        table.row([
            name.to_owned(),
            format::significant(get(&fit.law), 3),
            format!(
                "{} to {}",
                format::significant(low, 3),
                format::significant(high, 3)
            ),
        ]);
    }
    let [n, d, k] = fit.range;
    let span = |[low, high]: [f64; 2]| format!("{} to {}", format::count(low), format::count(high));
    let text = format!(
        "−ln Brier-1 = E + K^γ (A (N/{})^−α + B (D/{})^−β), N parameters without the autoencoder, D \
         training tokens. {} runs, {} points of their learning curves, Brier-1 fitted with its \
         errors. Root mean square error of Brier-1: {} on the fitted points, \
         {} on runs left out one at a time, {} for the mean of the others. Valid for N from {}, D \
         from {}, K from {}; outside of that it is a guess. Intervals: bootstrap over runs.{}",
        format::count(fit.law.parameter_unit),
        format::count(fit.law.token_unit),
        fit.runs,
        fit.points,
        format::significant(fit.brier_1_residual, 2),
        format::significant(fit.brier_1_heldout, 2),
        format::significant(fit.brier_1_heldout_of_mean, 2),
        span(n),
        span(d),
        span(k),
        fit.untold()
            .iter()
            .map(|untold| format!(" Left open: {untold}."))
            .collect::<String>(),
    );
    format!(
        "<div class=\"scroll\">{}</div>\n<p class=\"caption\">{}</p>\n",
        table.to_html(),
        escape(&text)
    )
}

fn reproduction(comparison: &Comparison) -> String {
    let toml = comparison.grid.to_toml();
    let first = comparison.cells.first();
    let device = first.map_or("", |cell| cell.made_with.device.as_str());
    let named = GRIDS.iter().any(|(name, _)| {
        *name == comparison.grid.name && Grid::resolve(name).is_ok_and(|g| g == comparison.grid)
    });
    // A grid of the user's own is written beside the report.
    let grid = if named {
        comparison.grid.name.as_str()
    } else {
        GRID
    };
    let machine = first.map_or(String::new(), |cell| {
        let host = &cell.made_with.host;
        format!(
            "Device {device}; {} threads, {}, {} {}. Program: {}.",
            host.cpus,
            host.memory_bytes
                .map_or("memory unknown".to_owned(), format::bytes),
            host.os,
            host.arch,
            cell.git_revision.as_deref().unwrap_or("revision unknown"),
        )
    });
    format!(
        "<p class=\"caption\">{}</p>\n<pre>cargo xtask compare --grid {}{}</pre>\n<details><summary>The grid</summary>\
         <pre>{}</pre></details>\n",
        escape(&machine),
        escape(grid),
        if device == "flex" {
            String::new()
        } else {
            format!(" --device {}", escape(device))
        },
        escape(&toml),
    )
}
