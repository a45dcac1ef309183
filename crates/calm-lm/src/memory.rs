//! What training a composed model holds in memory.

use calm_nn::{Cost, PartMemory, TrainingMemory, f32_bytes};

use crate::ModelConfig;

impl ModelConfig {
    /// The parts of the autoencoder in a forward pass over some windows.
    pub fn autoencoder_memory(&self, windows: usize, checkpointing: bool) -> Vec<PartMemory> {
        let chunks = windows * self.steps();
        self.autoencoder().training_memory(chunks, checkpointing)
    }

    /// The parts of the language model in a forward pass over some windows.
    pub fn language_model_memory(&self, windows: usize, checkpointing: bool) -> Vec<PartMemory> {
        if self.is_local() {
            let chunks = windows * self.steps();
            let mut parts = self.backbone().training_memory(chunks, checkpointing);
            let decoder = self.local();
            parts.extend(decoder.training_memory(windows * self.window, checkpointing));
            return parts;
        }
        let positions = windows * (self.steps() - 1);
        let mut parts = self.backbone().training_memory(positions, checkpointing);
        parts.push(self.targets_memory(positions));
        // The auxiliary heads come last, but the graph is as deep there as near the beginning of the
        // generative head, whose backward pass is over before.
        let mut last = PartMemory::default();
        if let Some(auxiliary) = self.auxiliary() {
            for mut part in auxiliary.training_memory(positions, checkpointing) {
                last.forward = last.forward.max(std::mem::take(&mut part.forward));
                parts.push(part);
            }
        }
        let mut head = self.head();
        head.settings.samples = self.objective.samples(head.settings.samples);
        parts.extend(head.training_memory(positions, checkpointing));
        if self.objective.reads_decoder() {
            parts.push(self.decoded_memory(positions, checkpointing));
        }
        parts.push(last);
        parts
    }

    /// Bytes of the parameters that the language model's training reads and leaves as they are: the
    /// autoencoder's.
    pub fn frozen_bytes(&self) -> u64 {
        match self.is_local() {
            true => 0,
            false => f32_bytes(self.autoencoder().parameters() as usize),
        }
    }

    /// The frozen encoder, which keeps nothing.
    fn targets_memory(&self, positions: usize) -> PartMemory {
        let c = &self.autoencoder;
        let block = c.hidden_size + 3 * c.intermediate_size;
        PartMemory {
            forward: f32_bytes(positions * self.chunk_size * block),
            ..PartMemory::default()
        }
    }

    /// The frozen decoder of the objective's draws: its blocks keep what their norms and gates need.
    fn decoded_memory(&self, positions: usize, checkpointing: bool) -> PartMemory {
        let c = &self.autoencoder;
        let (rows, d) = (self.objective.draws * positions, c.hidden_size);
        let block = if checkpointing {
            d
        } else {
            d + 2 * c.intermediate_size
        };
        let stage = c.decoder_layers / 2 * block;
        // Logarithms of probabilities; for overlaps probabilities too, and the same in another order.
        let scores = if self.objective.brier > 0.0 { 3 } else { 1 };
        let of = |width: usize| f32_bytes(rows * self.chunk_size * width);
        PartMemory {
            kept: f32_bytes(rows * stage) + of(stage + d + scores * self.vocab_size),
            forward: of(self.vocab_size),
            backward: of(scores.max(2) * self.vocab_size),
            ..PartMemory::default()
        }
    }
}
