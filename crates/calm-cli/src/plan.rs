//! `calm plan`: what a training budget buys, by the scaling law of a comparison.

use std::path::PathBuf;

use calm_compare::Scaling;
use calm_report::{Table, format};
use serde::Deserialize;

use crate::error::{CliError, Result};
use crate::output::print;

#[derive(clap::Args)]
pub struct Args {
    /// Training FLOPs, the autoencoder's included.
    #[arg(long)]
    flops: f64,
    /// A comparison with a scaling law: its directory (`calm compare --grid scaling`).
    #[arg(long, value_name = "DIR", default_value = "runs/compare-scaling")]
    from: PathBuf,
}

#[derive(Deserialize)]
struct Found {
    scaling: Option<Scaling>,
}

pub fn run(args: Args) -> Result<()> {
    if !(args.flops > 0.0 && args.flops.is_finite()) {
        let message = format!("--flops {} is no budget; give one like 1e15", args.flops);
        return Err(CliError::Usage(message));
    }
    let path = args.from.join("comparison.json");
    let text = std::fs::read_to_string(&path).map_err(|source| CliError::Io {
        path: path.clone(),
        source,
    })?;
    let found: Found = serde_json::from_str(&text).map_err(|e| {
        CliError::Usage(format!(
            "{}: {e}; a law of an older program is made anew by `cargo xtask compare \
                 --analyse {} --out DIR`",
            path.display(),
            args.from.display()
        ))
    })?;
    let Some(scaling) = found.scaling else {
        return Err(CliError::Usage(format!(
            "{}: this comparison has no scaling law; `cargo xtask compare --grid scaling` makes \
             one, and the report of this one says why it has none",
            path.display()
        )));
    };
    let Some(plan) = scaling.plan(args.flops)? else {
        return Err(CliError::Usage(format!(
            "{:e} FLOP do not pay for the smallest model and its autoencoder",
            args.flops
        )));
    };
    let mut table = Table::new([
        "K",
        "parameters",
        "width",
        "layers",
        "tokens",
        "FLOP a token",
        "Brier-1",
        "95 % interval",
        "preferred",
        "outside the fit",
    ]);
    for (choice, share) in plan.choices.iter().zip(&plan.preferred) {
        let [low, high] = choice.interval;
        table.row([
            choice.chunk_size.to_string(),
            format::count(choice.parameters as f64),
            choice.hidden_size.to_string(),
            match choice.local_layers {
                Some(local) => format!("{} + {local} local", choice.layers),
                None => choice.layers.to_string(),
            },
            format::count(choice.tokens),
            format::scientific(choice.infer_flops_per_token, 1),
            format::significant(choice.brier_1, 3),
            format!(
                "{} to {}",
                format::significant(low, 2),
                format::significant(high, 2)
            ),
            format::percent(*share),
            match choice.extrapolation {
                x if x > 1.0 => format!("{} times", format::significant(x, 2)),
                _ => "no".to_owned(),
            },
        ]);
    }
    let best = &plan.choices[0];
    let caution = if best.extrapolation > 1.0 {
        format!(
            "The recommended model lies {} times outside the range that the law was fitted on: \
             this is a guess, and the interval, which assumes the law's form, is too narrow.\n",
            format::significant(best.extrapolation, 2)
        )
    } else {
        String::new()
    };
    print(&format!(
        "{}For {:e} FLOP: K = {}, {} parameters, {} tokens. \u{201c}Preferred\u{201d}: share of \
         the bootstrap's laws whose best model has this K.\n{caution}",
        table.to_text(),
        plan.flops,
        best.chunk_size,
        format::count(best.parameters as f64),
        format::count(best.tokens),
    ))
}
