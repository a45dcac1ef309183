//! Against the values of the independent reference.

use burn::module::Param;
use burn::tensor::{Device, Int, Tensor};
use calm_baseline::score_window;
use calm_baseline::{TokenModel, TokenModelConfig};
use calm_fixtures::{Fixture, FixtureError, Weights, assert_close};
use calm_nn::{HostDraws, Init, NearTokens, NextToken, TransformerConfig};

fn load(device: &Device) -> Result<(Fixture, TokenModel, Tensor<2, Int>), FixtureError> {
    let f = Fixture::load("token_model")?;
    let config = TokenModelConfig {
        vocab_size: f.whole("config/vocab_size")?,
        window: 8,
        init_std: 0.02,
        tied_embeddings: false,
        scale_embeddings: false,
        zero_init_residual: false,
        near_tokens: 0,
        transformer: TransformerConfig {
            layers: f.whole("config/num_hidden_layers")?,
            hidden_size: f.whole("config/hidden_size")?,
            intermediate_size: f.whole("config/intermediate_size")?,
            heads: f.whole("config/num_attention_heads")?,
            kv_heads: f.whole("config/num_key_value_heads")?,
            rope_theta: f.number("config/rope_theta")?,
            norm_eps: f.number("config/rms_norm_eps")?,
        },
    };
    let mut model = config.init(0, device);
    let mut w = Weights::new(&f, device)?;
    w.embedding("model.embed_tokens", &mut model.embedding)?;
    for (i, block) in model.transformer.layers.iter_mut().enumerate() {
        let (attention, mlp) = (&mut block.attention, &mut block.mlp);
        w.decoder_layer(
            &format!("model.layers.{i}"),
            [
                &mut attention.q,
                &mut attention.k,
                &mut attention.v,
                &mut attention.o,
            ],
            [&mut mlp.gate, &mut mlp.up, &mut mlp.down],
            [&mut block.input_norm, &mut block.post_attention_norm],
        )?;
    }
    w.rms_norm("model.norm", &mut model.transformer.norm)?;
    w.linear("lm_head", model.output.as_mut().expect("an output layer"))?;
    w.finish()?;
    let tokens = f.int_tensor::<2>("inputs/tokens", device)?;
    Ok((f, model, tokens))
}

fn logits(model: &TokenModel, tokens: Tensor<2, Int>) -> Tensor<3> {
    let [batch, length] = tokens.dims();
    let hidden = model.hidden(tokens);
    let d = hidden.dims()[2];
    let flat = model.logits(hidden.reshape([batch * length, d]));
    let vocabulary = flat.dims()[1];
    flat.reshape([batch, length, vocabulary])
}

#[test]
fn logits_and_loss_are_those_of_the_reference() -> Result<(), FixtureError> {
    for device in [Device::flex(), Device::flex().autodiff()] {
        let (f, model, tokens) = load(&device)?;
        assert_close(
            logits(&model, tokens.clone()),
            &f.golden("outputs/logits")?,
            1e-5,
        );
        let loss = f64::from(model.loss(tokens).into_scalar::<f32>());
        let expected = f.number("outputs/cross_entropy")?;
        approx::assert_relative_eq!(loss, expected, max_relative = 1e-5);
    }
    Ok(())
}

#[test]
fn without_an_output_layer_the_embedding_serves() -> Result<(), FixtureError> {
    let (f, mut model, tokens) = load(&Device::flex())?;
    model.output = None;
    assert_close(
        logits(&model, tokens),
        &f.golden("outputs/tied_logits")?,
        1e-5,
    );
    Ok(())
}

#[test]
fn near_tokens_are_added_as_the_reference_does() -> Result<(), FixtureError> {
    let device = Device::flex();
    let (f, mut model, tokens) = load(&device)?;
    let weights = f.tensor::<2>("inputs/near_weights", &device)?;
    let [n, d] = weights.dims();
    model.near = NearTokens::new(n, d, &Init::new(0, &device));
    let near = model.near.as_mut().expect("two near tokens");
    near.weights = Param::from_tensor(weights);
    assert_close(
        logits(&model, tokens),
        &f.golden("outputs/near_logits")?,
        1e-5,
    );
    Ok(())
}

/// Brier-1 is exact. The others are means of 20,000 draws; a draw of the collision probability
/// lies in [0, 1], so the standard error of the mean is at most 0.5 / sqrt(20,000) = 0.0035, and
/// five of it are passed by chance less than once in a million.
#[test]
fn brier_scores_are_those_of_the_enumeration() -> Result<(), FixtureError> {
    let device = Device::flex();
    let (f, model, tokens) = load(&device)?;
    let window: Vec<u32> = tokens
        .narrow(0, 0, 1)
        .into_data()
        .iter::<i64>()
        .map(|t| t as u32)
        .collect();
    let position = f.whole("inputs/position")?;
    let scores = score_window(
        &model,
        &window,
        position,
        20_000,
        &mut HostDraws::new(1),
        &device,
    );
    assert_eq!(scores.positions, [position]);
    let expected = f.golden("outputs/brier")?.values;
    for (n, (found, expected)) in scores.brier[0].iter().zip(expected).enumerate() {
        let tolerance = if n == 0 { 1e-6 } else { 0.0175 };
        approx::assert_abs_diff_eq!(*found, expected, epsilon = tolerance);
    }
    Ok(())
}
