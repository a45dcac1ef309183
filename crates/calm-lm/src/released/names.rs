//! Where a model's tensors stand in released files: every name once, for reading and for writing.
//!
//! A walk goes through a model and shows each of its parameters, under its released name, to an
//! [`Exchange`], which may read it, write it or make a list. Linear layers are `[out, in]` in these
//! files and `[in, out]` here.

use burn::module::Param;
use burn::nn::{LayerNorm, Linear, RmsNorm};
use burn::tensor::Tensor;
use calm_autoencoder::{ChunkAutoencoder, FeedForwardBlock};
use calm_backbone::{Backbone, ChunkCompressor};
use calm_baseline::TokenModel;
use calm_likelihood_free::{Denoiser, EnergyHead, Head};
use calm_nn::{SwiGlu, Transformer};

/// Where the autoencoder of a CALM stands in its file.
pub const AUTOENCODER: &str = "ae_model.";
/// The two names of a head's place.
pub const HEAD: &str = "generative_head";
/// The other, of which only energy heads make use.
pub const HEAD_TOO: &str = "mlp_generator";
/// The decoder's table of an autoencoder, which is the encoder's.
pub const DECODER_TABLE: &str = "decoder.lm_head_weight";
/// The table that [`DECODER_TABLE`] is.
pub const ENCODER_TABLE: &str = "encoder.embed_tokens.weight";
/// The output layer of a token model, which may be its embedding table.
pub const OUTPUT: &str = "lm_head.weight";
/// The embedding table of a token model.
pub const TOKEN_TABLE: &str = "model.embed_tokens.weight";

/// The last norm of a token model.
pub const TOKEN_NORM: &str = "model.norm.weight";

/// What is done with each parameter of a model.
pub trait Exchange {
    /// A vector, the same in both forms.
    fn vector(&mut self, name: String, ours: &mut Param<Tensor<1>>);

    /// A table, the same in both forms.
    fn table(&mut self, name: String, ours: &mut Param<Tensor<2>>);

    /// A matrix that released files have transposed. Here it may be in parts, one below the other.
    fn matrix(&mut self, name: String, ours: &mut [&mut Param<Tensor<2>>]);
}

/// The autoencoder, its names after `prefix`; the decoder's table is the encoder's and isn't shown.
pub fn autoencoder(x: &mut dyn Exchange, prefix: &str, model: &mut ChunkAutoencoder) {
    let (encoder, decoder) = (&mut model.encoder, &mut model.decoder);
    let name = |rest: &str| format!("{prefix}{rest}");
    x.table(name(ENCODER_TABLE), &mut encoder.embedding.weight);
    let blocks = encoder.token_blocks.iter_mut();
    let blocks = blocks.chain(&mut encoder.chunk_blocks);
    feed_forward_blocks(x, &name("encoder.encoder_layers"), blocks);
    linear(x, &name("encoder.squeeze_layer"), &mut encoder.squeeze);
    rms_norm(x, &name("encoder.norm"), &mut encoder.norm);
    linear(
        x,
        &name("encoder.hidden_to_latent"),
        &mut encoder.to_posterior,
    );
    linear(
        x,
        &name("decoder.latent_to_hidden"),
        &mut decoder.from_latent,
    );
    let blocks = decoder.chunk_blocks.iter_mut();
    let blocks = blocks.chain(&mut decoder.token_blocks);
    feed_forward_blocks(x, &name("decoder.decoder_layers"), blocks);
    linear(x, &name("decoder.expand_layer"), &mut decoder.expand);
    rms_norm(x, &name("decoder.norm"), &mut decoder.norm);
}

/// The backbone.
pub fn backbone(x: &mut dyn Exchange, model: &mut Backbone) {
    let ChunkCompressor {
        embedding,
        widen,
        narrow,
        norm,
        ..
    } = &mut model.compressor;
    x.table(
        "transformer.embed_tokens.weight".to_owned(),
        &mut embedding.weight,
    );
    linear(x, "embed_proj.0", widen);
    if let Some(narrow) = narrow {
        linear(x, "embed_proj.2", narrow);
    }
    layer_norm(x, "embed_proj.3", norm);
    transformer(x, "transformer", &mut model.transformer);
}

/// The head.
pub fn head(x: &mut dyn Exchange, head: &mut Head) {
    match head {
        Head::Energy(head) => energy_head(x, head),
        Head::Flow(head) => denoiser(x, &mut head.net),
        Head::Diffusion(head) => denoiser(x, &mut head.net),
    }
}

fn energy_head(x: &mut dyn Exchange, head: &mut EnergyHead) {
    let name = |rest: &str| format!("{HEAD}.{rest}");
    linear(x, &name("noise_embd"), &mut head.noise_in);
    layer_norm(x, &name("norm_noise"), &mut head.noise_norm);
    linear(x, &name("hidden_embd"), &mut head.hidden_in);
    layer_norm(x, &name("norm_hidden"), &mut head.hidden_norm);
    for (i, block) in head.blocks.iter_mut().enumerate() {
        let name = |rest: &str| name(&format!("mlp_blocks.{i}.{rest}"));
        layer_norm(x, &name("in_ln"), &mut block.norm);
        // The first d of its inputs are x, the others the condition.
        let parts = &mut [&mut block.from_x.weight, &mut block.from_condition.weight];
        x.matrix(name("linears.0.weight"), parts);
        bias(x, &name("linears.0"), &mut block.from_condition);
        linear(x, &name("linears.2"), &mut block.inner);
        linear(x, &name("linears.4"), &mut block.gate_up);
        linear(x, &name("down_proj"), &mut block.down);
    }
    layer_norm(x, &name("final_layer.in_ln"), &mut head.final_norm);
    linear(x, &name("final_layer.linears.0"), &mut head.final_hidden);
    linear(x, &name("final_layer.linears.2"), &mut head.final_out);
}

fn denoiser(x: &mut dyn Exchange, net: &mut Denoiser) {
    let name = |rest: &str| format!("{HEAD}.net.{rest}");
    linear(x, &name("time_embed.mlp.0"), &mut net.time_in);
    linear(x, &name("time_embed.mlp.2"), &mut net.time_out);
    linear(x, &name("cond_embed"), &mut net.condition);
    linear(x, &name("input_proj"), &mut net.input);
    for (i, block) in net.blocks.iter_mut().enumerate() {
        let name = |rest: &str| name(&format!("res_blocks.{i}.{rest}"));
        layer_norm(x, &name("in_ln"), &mut block.norm);
        linear(x, &name("mlp.0"), &mut block.up);
        linear(x, &name("mlp.2"), &mut block.down);
        linear(x, &name("adaLN_modulation.1"), &mut block.modulation);
    }
    linear(
        x,
        &name("final_layer.adaLN_modulation.1"),
        &mut net.modulation,
    );
    linear(x, &name("final_layer.linear"), &mut net.output);
}

/// A token model, by the names of transformers' LlamaForCausalLM; a tied output layer isn't shown.
pub fn token_model(x: &mut dyn Exchange, model: &mut TokenModel) {
    x.table(TOKEN_TABLE.to_owned(), &mut model.embedding.weight);
    transformer(x, "model", &mut model.transformer);
    if let Some(output) = &mut model.output {
        x.matrix(OUTPUT.to_owned(), &mut [&mut output.weight]);
    }
}

fn transformer(x: &mut dyn Exchange, prefix: &str, model: &mut Transformer) {
    for (i, layer) in model.layers.iter_mut().enumerate() {
        let name = |rest: &str| format!("{prefix}.layers.{i}.{rest}");
        rms_norm(x, &name("input_layernorm"), &mut layer.input_norm);
        linear(x, &name("self_attn.q_proj"), &mut layer.attention.q);
        linear(x, &name("self_attn.k_proj"), &mut layer.attention.k);
        linear(x, &name("self_attn.v_proj"), &mut layer.attention.v);
        linear(x, &name("self_attn.o_proj"), &mut layer.attention.o);
        rms_norm(
            x,
            &name("post_attention_layernorm"),
            &mut layer.post_attention_norm,
        );
        swiglu(x, &name("mlp"), &mut layer.mlp);
    }
    rms_norm(x, &format!("{prefix}.norm"), &mut model.norm);
}

fn feed_forward_blocks<'a>(
    x: &mut dyn Exchange,
    prefix: &str,
    blocks: impl Iterator<Item = &'a mut FeedForwardBlock>,
) {
    for (i, block) in blocks.enumerate() {
        rms_norm(x, &format!("{prefix}.{i}.layernorm"), &mut block.norm);
        swiglu(x, &format!("{prefix}.{i}.mlp"), &mut block.mlp);
    }
}

fn swiglu(x: &mut dyn Exchange, name: &str, layer: &mut SwiGlu) {
    linear(x, &format!("{name}.gate_proj"), &mut layer.gate);
    linear(x, &format!("{name}.up_proj"), &mut layer.up);
    linear(x, &format!("{name}.down_proj"), &mut layer.down);
}

fn linear(x: &mut dyn Exchange, name: &str, layer: &mut Linear) {
    x.matrix(format!("{name}.weight"), &mut [&mut layer.weight]);
    bias(x, name, layer);
}

fn bias(x: &mut dyn Exchange, name: &str, layer: &mut Linear) {
    if let Some(bias) = &mut layer.bias {
        x.vector(format!("{name}.bias"), bias);
    }
}

fn rms_norm(x: &mut dyn Exchange, name: &str, norm: &mut RmsNorm) {
    x.vector(format!("{name}.weight"), &mut norm.gamma);
}

fn layer_norm(x: &mut dyn Exchange, name: &str, norm: &mut LayerNorm) {
    x.vector(format!("{name}.weight"), &mut norm.gamma);
    if let Some(beta) = &mut norm.beta {
        x.vector(format!("{name}.bias"), beta);
    }
}
