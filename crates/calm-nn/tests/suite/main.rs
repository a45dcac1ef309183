//! Golden values and properties of the shared layers.

mod cache;
mod near_tokens;
mod rope;
mod transformer;

use burn::tensor::{Device, Tensor};
use calm_nn::{Init, RandomStream, Transformer, TransformerConfig};

fn small(heads: usize, kv_heads: usize) -> TransformerConfig {
    TransformerConfig {
        layers: 2,
        hidden_size: 16,
        intermediate_size: 20,
        heads,
        kv_heads,
        rope_theta: 10_000.0,
        norm_eps: 1e-6,
    }
}

/// A transformer whose weights are large enough for every layer to matter.
fn lively(config: &TransformerConfig, device: &Device) -> Transformer {
    let mut model = config.init(&mut Init::new(7, device));
    for block in &mut model.layers {
        let (a, m) = (&mut block.attention, &mut block.mlp);
        for linear in [
            &mut a.q,
            &mut a.k,
            &mut a.v,
            &mut a.o,
            &mut m.gate,
            &mut m.up,
            &mut m.down,
        ] {
            let weight = linear.weight.val() * 15.0;
            linear.weight = burn::module::Param::from_tensor(weight.detach());
        }
    }
    model
}

/// Standard normal values `[batch, positions, 16]`.
fn input(batch: usize, positions: usize, seed: u64, device: &Device) -> Tensor<3> {
    let values = RandomStream::new(seed).normal(batch * positions * 16);
    Tensor::<1>::from_floats(values.as_slice(), device).reshape([batch, positions, 16])
}
