//! The ways to be efficient, measured on the same machine with the same text: no cache, KV cache,
//! fused attention, speculative decoding, CALM.

use std::sync::atomic::{AtomicBool, Ordering};

use calm_baseline::{ModelDrafter, PromptLookup, TokenModel, TokenModelConfig, TokenSampler};
use calm_lm::{CalmModel, LocalModel, ModelConfig};
use calm_nn::{Cost, NextToken};
use calm_train::{baseline_checkpoint, language_model_checkpoint};

use crate::Result;
use crate::attention::attention_rows;
use crate::decoding::{Bench, Run};
use crate::grid::Grid;
use crate::record::{CellRecord, Technique};
use crate::setting::{Options, Text};
use crate::spec::{Cell, CellKind};
use crate::speed::median;

/// A next-vector model of the grid, loaded.
struct LoadedNextVector<M> {
    model: M,
    config: ModelConfig,
    name: String,
}

/// A token model of the grid, loaded.
struct LoadedToken {
    model: TokenModel,
    config: TokenModelConfig,
    name: String,
}

pub(crate) fn techniques(
    grid: &Grid,
    cells: &[Cell],
    records: &[CellRecord],
    text: &Text,
    options: &Options<'_>,
) -> Result<Option<Vec<Technique>>> {
    let device = options.device;
    let firsts: Vec<(&Cell, &CellRecord)> = cells
        .iter()
        .zip(records)
        .enumerate()
        .filter(|(i, (cell, _))| cells[..*i].iter().all(|c| c.model != cell.model))
        .map(|(_, pair)| pair)
        .collect();
    let mut tokens: Vec<_> = firsts
        .iter()
        .filter(|(cell, _)| cell.kind == CellKind::Baseline)
        .collect();
    tokens.sort_by_key(|(_, record)| record.parameters);
    let (Some((target, _)), draft) = (tokens.last(), tokens.first()) else {
        return Ok(Some(Vec::new()));
    };
    let load_token = |cell: &Cell| -> Result<LoadedToken> {
        let checkpoint = baseline_checkpoint(&options.run(cell)?)?.checkpoint;
        Ok(LoadedToken {
            model: checkpoint.load(device)?,
            config: checkpoint.config().clone(),
            name: cell.model.clone(),
        })
    };
    let small = match draft {
        Some((draft, _)) if draft.model != target.model => Some(load_token(draft)?),
        _ => None,
    };
    let target = load_token(target)?;
    let (mut calms, mut locals) = (Vec::new(), Vec::new());
    for (cell, _) in firsts.iter().filter(|(cell, _)| cell.kind.is_next_vector()) {
        let checkpoint = language_model_checkpoint(&options.run(cell)?)?.checkpoint;
        let (config, name) = (checkpoint.config().clone(), cell.model.clone());
        match cell.kind {
            CellKind::Local => locals.push(LoadedNextVector {
                model: checkpoint.load_local(device)?,
                config,
                name,
            }),
            _ => calms.push(LoadedNextVector {
                model: checkpoint.load(device)?,
                config,
                name,
            }),
        }
    }
    let bench = Bench {
        speed: &grid.speed,
        device,
        text: text.store.validation(),
        window: target.config.window,
        sampler: TokenSampler::new(1.0, None, None).expect("a temperature of 1"),
    };
    let next_vector = (calms.as_slice(), locals.as_slice());
    let rows = decoding_rows(
        &bench,
        &target,
        small.as_ref(),
        next_vector,
        options.interrupt,
    );
    Ok(rows.map(|mut rows| {
        rows.extend(attention_rows(&target.config, &grid.speed, device));
        rows
    }))
}

/// A way to decode, with what is said about it.
struct Entry<'a> {
    technique: Technique,
    run: Decode<'a>,
}

/// Continues a prompt with a seed, timed.
type Decode<'a> = Box<dyn Fn(&[u32], u64) -> Run + 'a>;

/// Speculation by a model.
fn speculation<'a, M: NextToken>(
    bench: &'a Bench<'_>,
    target: &'a TokenModel,
    draft: &'a M,
) -> Decode<'a> {
    Box::new(move |prompt, seed| {
        let (device, window) = (bench.device, bench.window);
        let drafter = ModelDrafter::new(draft, bench.sampler, window, device);
        bench.speculative(target, drafter, prompt, seed)
    })
}

fn decoding_rows(
    bench: &Bench<'_>,
    target: &LoadedToken,
    small: Option<&LoadedToken>,
    (calms, locals): (
        &[LoadedNextVector<CalmModel>],
        &[LoadedNextVector<LocalModel>],
    ),
    interrupt: &AtomicBool,
) -> Option<Vec<Technique>> {
    let LoadedToken {
        model,
        config,
        name,
    } = target;
    let cache = Some(config.cache_bytes() as f64);
    let same = format!("that of {name}, exactly");
    let row = |title: String, mechanism: &str, cache, distribution: &str, limit: &str| Technique {
        name: title,
        mechanism: mechanism.to_owned(),
        unit: "tokens/s".to_owned(),
        rate: f64::NAN,
        ratio: f64::NAN,
        compared_with: String::new(),
        steps_per_1000_tokens: None,
        draft_steps_per_1000_tokens: None,
        acceptance: None,
        cache_bytes_per_token: cache,
        distribution: distribution.to_owned(),
        limit: limit.to_owned(),
    };
    let mut entries = vec![
        Entry {
            technique: row(
                format!("{name}, no cache"),
                "reads the whole text again for every token",
                Some(0.0),
                &same,
                "work grows with the square of the length",
            ),
            run: Box::new(|prompt, seed| bench.uncached(model, prompt, seed)),
        },
        Entry {
            technique: row(
                format!("{name}, KV cache"),
                "keeps keys and values, reads one token a step",
                cache,
                &same,
                "one step per token; memory grows with the length",
            ),
            run: Box::new(|prompt, seed| bench.cached(model, prompt, seed)),
        },
        Entry {
            technique: row(
                format!("{name}, speculation by prompt lookup"),
                "proposes what followed the same tokens before, verifies all in one pass",
                cache,
                &same,
                "pays where the text repeats itself",
            ),
            run: Box::new(|prompt, seed| {
                bench.speculative(model, PromptLookup::new(3), prompt, seed)
            }),
        },
    ];
    if let Some(small) = small {
        let both = (config.cache_bytes() + small.config.cache_bytes()) as f64;
        entries.push(Entry {
            technique: row(
                format!("{name}, speculation by {}", small.name),
                "a smaller model proposes, one pass verifies",
                Some(both),
                &same,
                "pays where the small model is much cheaper and mostly right",
            ),
            run: speculation(bench, model, &small.model),
        });
    }
    for calm in calms {
        let LoadedNextVector {
            model,
            config,
            name,
        } = calm;
        let k = config.chunk_size;
        let cache = config.cache_bytes_per_token();
        entries.push(Entry {
            technique: row(
                format!("{name} (K = {k})"),
                "predicts the vector of the next K tokens in one step",
                Some(cache),
                "its own; see the scores",
                "another model: its quality must be compared first",
            ),
            run: Box::new(move |prompt, seed| bench.calm(model, config, prompt, seed)),
        });
    }

    for local in locals {
        let LoadedNextVector {
            model: draft,
            config: of_draft,
            name: by,
        } = local;
        let k = of_draft.chunk_size;
        let own = of_draft.cache_bytes_per_token();
        entries.push(Entry {
            technique: row(
                format!("{by} (K = {k}, local decoder)"),
                "one step of the backbone for K tokens, one of a small transformer over near tokens \
                 for each",
                Some(own),
                "its own; see the scores",
                "another model: its quality must be compared first",
            ),
            run: Box::new(move |prompt, seed| bench.cached(draft, prompt, seed)),
        });
        entries.push(Entry {
            technique: row(
                format!("{name}, speculation by {by}"),
                "the local decoder proposes, one pass verifies",
                Some(config.cache_bytes() as f64 + own),
                &same,
                "pays where the draft is much cheaper and mostly right",
            ),
            run: speculation(bench, model, draft),
        });
    }

    // Round by round, so that what disturbs the machine disturbs all of them.
    let mut runs: Vec<Vec<Run>> = entries.iter().map(|_| Vec::new()).collect();
    for round in 0..bench.speed.repetitions {
        if interrupt.load(Ordering::SeqCst) {
            return None;
        }
        let prompt = bench.prompt(round);
        for (entry, runs) in entries.iter().zip(&mut runs) {
            runs.push((entry.run)(&prompt, round as u64));
        }
    }
    let rate = |run: &Run| run.tokens / run.seconds;
    let reference = entries[1].technique.name.clone();
    let cached: Vec<f64> = runs[1].iter().map(rate).collect();
    let rows = entries
        .into_iter()
        .zip(&runs)
        .map(|(entry, runs)| {
            let steps = runs.iter().map(|r| 1000.0 * r.steps / r.tokens).collect();
            let drafted: Vec<f64> = runs
                .iter()
                .filter_map(|r| Some(1000.0 * r.draft_steps? / r.tokens))
                .collect();
            let accepted: Vec<f64> = runs.iter().filter_map(|r| r.acceptance).collect();
            Technique {
                rate: median(runs.iter().map(rate).collect()),
                ratio: median(runs.iter().zip(&cached).map(|(r, c)| rate(r) / c).collect()),
                compared_with: reference.clone(),
                steps_per_1000_tokens: Some(median(steps)),
                draft_steps_per_1000_tokens: (!drafted.is_empty()).then(|| median(drafted)),
                acceptance: (!accepted.is_empty()).then(|| median(accepted)),
                ..entry.technique
            }
        })
        .collect();
    Some(rows)
}
