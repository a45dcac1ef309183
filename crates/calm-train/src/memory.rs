//! What a stage of a run needs in memory, told from its configuration.

use calm_nn::{PartMemory, TrainingMemory, step_bytes};
use calm_records::Stage;
use serde::Serialize;

use crate::Experiment;

/// What a process of `calm train` holds beside tensors on the CPU: program, tokenizer, text, buffers of
/// threads. Measured (docs/log.md).
const PROCESS: u64 = 105 << 20;

/// Resident memory for each byte of tensors: an allocator rounds sizes up and keeps what was freed.
/// Measured with that of calm-alloc, which lies between 1.1 and 1.3.
const ALLOCATED: f64 = 1.2;

/// Memory of a training step on one device, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct StageMemory {
    /// The stage.
    pub stage: Stage,
    /// Windows per forward pass.
    pub batch_windows: usize,
    /// Whether blocks are checkpointed.
    pub gradient_checkpointing: bool,
    /// Parameters that are trained.
    pub parameters: u64,
    /// Parameters that are read alone: the frozen autoencoder's.
    pub frozen: u64,
    /// Both moments of AdamW.
    pub optimizer: u64,
    /// Gradients; twice where a step has several parts, whose sum stands while one is computed.
    pub gradients: u64,
    /// Kept of the forward pass for the backward pass.
    pub activations: u64,
    /// The part of `activations` that every window adds.
    pub activations_per_window: u64,
    /// Most that one part of the model, or the update of one parameter, holds beside these for a while.
    pub transient: u64,
    /// The most that stands at once: less than the sum of all, for gradients come as activations go.
    pub total: u64,
    /// Resident memory of a process that trains on the CPU.
    pub resident: u64,
}

impl StageMemory {
    /// Of `stage` with `batch_windows` windows per forward pass; `None` of an autoencoder where the model
    /// has none.
    pub fn new(
        experiment: &Experiment,
        stage: Stage,
        batch_windows: usize,
        gradient_checkpointing: bool,
    ) -> Option<Self> {
        let parts = |windows| parts(experiment, stage, windows, gradient_checkpointing);
        let (of_batch, of_more) = (parts(batch_windows)?, parts(batch_windows + 1)?);
        let sum =
            |parts: &[PartMemory], of: fn(&PartMemory) -> u64| parts.iter().map(of).sum::<u64>();
        let activations = sum(&of_batch, |part| part.kept);
        let parameters = sum(&of_batch, |part| part.parameters);
        let frozen = match stage {
            Stage::Lm => experiment.model.frozen_bytes(),
            Stage::Autoencoder | Stage::Baseline => 0,
        };
        let optimizer = 2 * parameters;
        let summed = match experiment.stage(stage).accumulate {
            1 => 0,
            _ => parameters,
        };
        // The optimizer makes a parameter and its moments anew, one parameter after the other.
        let largest = of_batch.iter().map(|part| part.largest).max().unwrap_or(0);
        let update = parameters + 3 * largest;
        let transient = (of_batch.iter())
            .map(|part| part.forward.max(part.backward))
            .fold(3 * largest, u64::max);
        let step = (summed + step_bytes(&of_batch)).max(update);
        // Two buffers of 4 bytes a token.
        let streamed = match experiment.data.stream.enabled {
            true => 8 * experiment.data.stream.buffer_tokens as u64,
            false => 0,
        };
        let (gradients, total) = (parameters + summed, parameters + frozen + optimizer + step);
        Some(Self {
            stage,
            batch_windows,
            gradient_checkpointing,
            parameters,
            frozen,
            optimizer,
            gradients,
            activations,
            activations_per_window: sum(&of_more, |part| part.kept) - activations,
            transient,
            total,
            resident: PROCESS + streamed + (ALLOCATED * total as f64) as u64,
        })
    }

    /// Of the most windows per forward pass whose resident memory is at most `bytes`; `None` where one window needs
    /// more, or the model has no such stage.
    pub fn largest(
        experiment: &Experiment,
        stage: Stage,
        bytes: u64,
        gradient_checkpointing: bool,
    ) -> Option<Self> {
        /// Windows beyond which nobody asks.
        const MOST: usize = 1 << 24;
        let of = |windows| Self::new(experiment, stage, windows, gradient_checkpointing);
        let fits = |windows| of(windows).is_some_and(|memory| memory.resident <= bytes);
        if !fits(1) {
            return None;
        }
        // `low` fits and `high` does not.
        let (mut low, mut high) = (1, 2);
        while fits(high) && high < MOST {
            (low, high) = (high, 2 * high);
        }
        while high - low > 1 {
            let middle = low.midpoint(high);
            match fits(middle) {
                true => low = middle,
                false => high = middle,
            }
        }
        of(low)
    }
}

fn parts(
    experiment: &Experiment,
    stage: Stage,
    windows: usize,
    checkpointing: bool,
) -> Option<Vec<PartMemory>> {
    let model = &experiment.model;
    match stage {
        Stage::Autoencoder if model.is_local() => None,
        Stage::Autoencoder => Some(model.autoencoder_memory(windows, checkpointing)),
        Stage::Lm => Some(model.language_model_memory(windows, checkpointing)),
        Stage::Baseline => {
            let tokens = windows * model.window;
            Some(
                experiment
                    .token_model()
                    .training_memory(tokens, checkpointing),
            )
        }
    }
}
