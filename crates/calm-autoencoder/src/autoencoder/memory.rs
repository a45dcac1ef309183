//! What training an autoencoder holds in memory.

use calm_nn::{
    PartMemory, TrainingMemory, cross_entropy_memory, embedding_memory, f32_bytes, norm_memory,
};

use super::AutoencoderConfig;

impl TrainingMemory for AutoencoderConfig {
    /// Embeddings, the encoder's two stages, the latent, the decoder's two stages, the cross-entropy;
    /// positions are chunks.
    fn training_memory(&self, positions: usize, checkpointing: bool) -> Vec<PartMemory> {
        let (k, l, c) = (self.chunk_size, self.latent_size, &self.settings);
        let (d, ff) = (c.hidden_size, c.intermediate_size);
        let tokens = positions * k;
        let stage = |layers: usize, rows: usize| {
            let of = |width: usize| f32_bytes(rows * width);
            // Inputs of the norm and of the three matrices, and the two factors of the gate.
            let block = PartMemory {
                parameters: f32_bytes(3 * d * ff + d),
                largest: f32_bytes(d * ff),
                kept: of(2 * d + 3 * ff),
                forward: of(d),
                backward: of(d + 2 * ff) + f32_bytes(d * ff),
            };
            let block = match checkpointing {
                true => block.checkpointed(of(d), of(d)),
                false => block,
            };
            vec![block; layers / 2]
        };
        let of = |width: usize| f32_bytes(positions * width);
        // A linear layer of some width per chunk, its input kept.
        let layer = |inputs: usize, outputs: usize, beside: usize| PartMemory {
            parameters: f32_bytes(inputs * outputs + outputs),
            largest: f32_bytes(inputs * outputs),
            kept: of(inputs + beside),
            forward: of(outputs),
            backward: of(inputs + outputs) + f32_bytes(inputs * outputs),
        };
        // Deviations, their noise, variances, and the flags of the divergence's floor, a byte each; where
        // latents are dropped, which.
        let latent = match c.latent_dropout > 0.0 {
            true => 5 * l + l / 4,
            false => 4 * l + l / 4,
        };
        let mut parts = vec![embedding_memory(tokens, self.vocab_size, d, 0, true)];
        parts.extend(stage(c.encoder_layers, tokens));
        parts.push(layer(k * d, d, 0));
        parts.extend(stage(c.encoder_layers, positions));
        parts.push(norm_memory(positions, d));
        parts.push(layer(d, 2 * l, latent));
        parts.push(layer(l, d, 0));
        parts.extend(stage(c.decoder_layers, positions));
        parts.push(layer(d, k * d, 0));
        parts.extend(stage(c.decoder_layers, tokens));
        parts.push(norm_memory(tokens, d));
        parts.push(cross_entropy_memory(tokens, d, self.vocab_size));
        parts
    }
}
