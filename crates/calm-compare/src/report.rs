//! `cells.csv`, `comparison.json`, the charts, and `compare.html`.

use std::path::Path;

use askama::Template;
use calm_records::write_atomic;
use calm_report::{LineChart, Scale, Series, Table, format, html_page, legend_of};
use serde::Serialize;

use crate::Result;
use crate::frontier::Point;
use crate::grid::{GRIDS, Grid};
use crate::models::{Model, models};
use crate::plan::Scaling;
use crate::record::{CellRecord, Technique, law_of, to_csv};
use crate::scaling::{Fit, FitError, Law};
use crate::tables::{cost_table, described, scores_table, speed_table, technique_table};
use crate::verdict::{Verdict, other_sentences, sentence, verdicts};

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
                .filter(|cell| cell.kind == law_of(&comparison.cells))
                .map(|cell| (cell.chunk_size, cell.autoencoder_tokens as f64))
                .collect(),
        }),
        cells: &comparison.cells,
    };
    let text = serde_json::to_string(&whole).expect("numbers have a JSON form");
    write_atomic(&out.join("comparison.json"), (text + "\n").as_bytes())?;
    let charts = charts(&models);
    for (name, chart) in &charts {
        write_atomic(&out.join(name), chart.to_svg().as_bytes())?;
    }
    let page = Page {
        comparison,
        models: &models,
        verdicts: &verdicts,
        charts: &charts,
    };
    let body = page.render().expect("writing to a string");
    let page = html_page(&format!("{} · comparison", comparison.grid.name), &body);
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

/// `compare.html`: the words are in `templates/`.
#[derive(Template)]
#[template(path = "compare.html")]
struct Page<'a> {
    comparison: &'a Comparison,
    models: &'a [Model<'a>],
    verdicts: &'a [Verdict],
    charts: &'a [(&'static str, LineChart)],
}

impl Page<'_> {
    /// Which cells were loaded and from where.
    fn loaded(&self) -> String {
        let cells = self.comparison.cells.iter();
        let runs = cells.filter_map(|cell| {
            let loaded = cell.made_with.loaded.as_ref()?;
            let revision = match &loaded.git_revision {
                Some(by) if Some(by) != cell.git_revision.as_ref() => {
                    format!(", trained by revision {by}")
                }
                _ => String::new(),
            };
            let (model, seed, run) = (&cell.model, cell.seed, &loaded.run);
            Some(format!("{model} seed {seed} from {run}{revision}"))
        });
        runs.collect::<Vec<_>>().join("; ")
    }

    fn first(&self) -> Option<&CellRecord> {
        self.comparison.cells.first()
    }

    fn positions(&self) -> String {
        format::grouped(self.first().map_or(0, |cell| cell.scores.positions))
    }

    /// Of the fit: the coefficients with their intervals.
    fn coefficients(&self, fit: &Fit) -> String {
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
            let [low, high] = fit.interval(get).map(|end| format::significant(end, 3));
            let value = format::significant(get(&fit.law), 3);
            table.row([name.to_owned(), value, format!("{low} to {high}")]);
        }
        table.to_html()
    }

    fn span(&self, [low, high]: &[f64; 2]) -> String {
        format!("{} to {}", format::count(*low), format::count(*high))
    }

    fn count(&self, value: &f64) -> String {
        format::count(*value)
    }

    fn number(&self, value: &f64) -> String {
        format::significant(*value, 2)
    }

    fn machine(&self) -> String {
        self.first().map_or(String::new(), |cell| {
            let host = &cell.made_with.host;
            let unknown = || "memory unknown".to_owned();
            format!(
                "Device {}; {} threads, {}, {} {}. Program: {}.",
                cell.made_with.device,
                host.cpus,
                host.memory_bytes.map_or_else(unknown, format::bytes),
                host.os,
                host.arch,
                cell.git_revision.as_deref().unwrap_or("revision unknown"),
            )
        })
    }

    fn command(&self) -> String {
        let grid = &self.comparison.grid;
        let same = |name: &str| Grid::resolve(name).is_ok_and(|named| named == *grid);
        let named = GRIDS
            .iter()
            .any(|(name, _)| *name == grid.name && same(name));
        // A grid of the user's own is written beside the report.
        let from = if named { grid.name.as_str() } else { GRID };
        let device = self.first().map_or("flex", |cell| &cell.made_with.device);
        match device {
            "flex" => format!("cargo xtask compare --grid {from}"),
            device => format!("cargo xtask compare --grid {from} --device {device}"),
        }
    }
}
