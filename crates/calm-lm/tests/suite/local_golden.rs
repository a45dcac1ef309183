//! The model with a local decoder against the values of the independent reference.

use burn::module::Param;
use burn::tensor::{Device, Int, Tensor};
use calm_fixtures::{Fixture, FixtureError, Weights, assert_close};
use calm_lm::{DecoderKind, LocalDecoderSettings, LocalModel, Memory, ModelConfig};
use calm_nn::{Block, Init, NearTokens, NextToken, TransformerConfig};

fn config(f: &Fixture, memory: Memory) -> Result<ModelConfig, FixtureError> {
    let (theta, eps) = (
        f.number("config/rope_theta")?,
        f.number("config/rms_norm_eps")?,
    );
    let mut config = super::config(f.whole("config/patch_size")?);
    config.decoder = DecoderKind::Local;
    config.vocab_size = f.whole("config/vocab_size")?;
    config.chunk_context = 0;
    config.backbone = TransformerConfig {
        layers: f.whole("config/num_hidden_layers")?,
        hidden_size: f.whole("config/hidden_size")?,
        intermediate_size: f.whole("config/intermediate_size")?,
        heads: f.whole("config/num_attention_heads")?,
        kv_heads: f.whole("config/num_key_value_heads")?,
        rope_theta: theta,
        norm_eps: eps,
    };
    config.local = LocalDecoderSettings {
        layers: f.whole("config/local_layers")?,
        hidden_size: f.whole("config/local_hidden_size")?,
        intermediate_size: f.whole("config/local_intermediate_size")?,
        heads: f.whole("config/local_heads")?,
        kv_heads: f.whole("config/local_kv_heads")?,
        rope_theta: theta,
        norm_eps: eps,
        near_tokens: 0,
        window: f.whole("config/local_window")?,
        vector_size: f.whole("config/local_vector_size")?,
        memory,
        tied_embeddings: false,
    };
    Ok(config)
}

fn block(w: &mut Weights<'_>, layer: &str, block: &mut Block) -> Result<(), FixtureError> {
    let (attention, mlp) = (&mut block.attention, &mut block.mlp);
    w.decoder_layer(
        layer,
        [
            &mut attention.q,
            &mut attention.k,
            &mut attention.v,
            &mut attention.o,
        ],
        [&mut mlp.gate, &mut mlp.up, &mut mlp.down],
        [&mut block.input_norm, &mut block.post_attention_norm],
    )
}

fn load(f: &Fixture, case: &Fixture, device: &Device) -> Result<LocalModel, FixtureError> {
    let memory = match case.text("memory")?.as_str() {
        "none" => Memory::None,
        "states" => Memory::States,
        "inputs" => Memory::Inputs,
        _ => Memory::Both,
    };
    let mut model = config(f, memory)?.init_local(0, device);
    let mut w = Weights::new(f, device)?;
    let compressor = &mut model.backbone.compressor;
    w.embedding("transformer.embed_tokens", &mut compressor.embedding)?;
    w.linear("embed_proj.0", &mut compressor.widen)?;
    let narrow = compressor.narrow.as_mut().expect("an MLP");
    w.linear("embed_proj.2", narrow)?;
    w.layer_norm("embed_proj.3", &mut compressor.norm)?;
    let transformer = &mut model.backbone.transformer;
    for (i, layer) in transformer.layers.iter_mut().enumerate() {
        block(&mut w, &format!("transformer.layers.{i}"), layer)?;
    }
    w.rms_norm("transformer.norm", &mut transformer.norm)?;
    w.finish()?;

    let mut w = Weights::new(case, device)?;
    let decoder = &mut model.decoder;
    w.embedding("decoder.embed_tokens", &mut decoder.embedding)?;
    let to_vector = decoder.to_vector.as_mut().expect("another width");
    w.linear("decoder.to_vector", to_vector)?;
    w.linear("decoder.expand", &mut decoder.expand)?;
    if case.whole("near_tokens")? > 0 {
        let weights = case.tensor::<2>("near_weights", device)?;
        let [n, d] = weights.dims();
        decoder.near = NearTokens::new(n, d, &Init::new(0, device));
        let near = decoder.near.as_mut().expect("near tokens");
        near.weights = Param::from_tensor(weights);
    }
    for (i, layer) in decoder.layers.iter_mut().enumerate() {
        let name = format!("decoder.layers.{i}");
        block(&mut w, &name, &mut layer.block)?;
        if let Some(memory) = &mut layer.memory {
            w.linear(&format!("{name}.memory.k_proj"), &mut memory.k)?;
            w.linear(&format!("{name}.memory.v_proj"), &mut memory.v)?;
        }
    }
    w.rms_norm("decoder.norm", &mut decoder.norm)?;
    w.linear("decoder.lm_head", decoder.output.as_mut().expect("its own"))?;
    w.finish()?;
    Ok(model)
}

#[test]
fn logits_and_loss_are_those_of_the_reference() -> Result<(), FixtureError> {
    let device = Device::flex();
    let f = Fixture::load("local_model")?;
    let tokens: Tensor<2, Int> = f.int_tensor("inputs/tokens", &device)?;
    let [batch, length] = tokens.dims();
    for case in f.list("cases")? {
        let model = load(&f, &case, &device)?;
        let hidden = model.hidden(tokens.clone());
        let d = hidden.dims()[2];
        let logits = model.logits(hidden.reshape([batch * length, d]));
        let vocabulary = logits.dims()[1];
        let logits = logits.reshape([batch, length, vocabulary]);
        assert_close(logits, &case.golden("outputs/logits")?, 1e-5);
        let loss = model.loss(tokens.clone());
        let expected = case.number("outputs/cross_entropy")?;
        let loss: f32 = loss.into_scalar();
        assert!(
            (f64::from(loss) - expected).abs() < 1e-5,
            "{loss}, {expected}"
        );
    }
    Ok(())
}
