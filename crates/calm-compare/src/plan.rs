//! What a budget buys: size, data and chunk size by a fitted law.

use std::collections::BTreeMap;

use calm_lm::ModelConfig;
use calm_train::Experiment;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::scaling::{Fit, Law};

/// A law and what it was fitted on, as `comparison.json` holds it under `scaling`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scaling {
    /// The law.
    pub fit: Fit,
    /// The grid's preset.
    pub preset: String,
    /// Its overrides.
    pub set: Vec<String>,
    /// Tokens that the autoencoder of each chunk size was trained on.
    pub autoencoder_tokens: BTreeMap<usize, f64>,
}

impl Scaling {
    /// The best models for `flops` in the proportions of the grid's preset; see [`plan`].
    ///
    /// # Errors
    /// A law with an exponent that its runs leave open; a preset that is no longer there.
    pub fn plan(&self, flops: f64) -> crate::Result<Option<Plan>> {
        let untold = self.fit.untold();
        if !untold.is_empty() {
            return Err(Error::Untold { untold });
        }
        let base = calm_train::preset::resolve(&self.preset, &self.set)?;
        Ok(plan(&self.fit, &base, &self.autoencoder_tokens, flops))
    }
}

/// A model that a budget pays for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// Tokens per chunk, K.
    pub chunk_size: usize,
    /// Width of the backbone.
    pub hidden_size: usize,
    /// Its layers.
    pub layers: usize,
    /// Layers of the local decoder, where it has one; its widths keep to the backbone's.
    pub local_layers: Option<usize>,
    /// Parameters, without the autoencoder's.
    pub parameters: u64,
    /// Training tokens that the budget leaves after the autoencoder.
    pub tokens: f64,
    /// FLOPs per generated token.
    pub infer_flops_per_token: f64,
    /// Predicted Brier-1.
    pub brier_1: f64,
    /// Middle 95 % of the prediction over the bootstrap.
    pub interval: [f64; 2],
    /// By what factor the model lies outside the range of the fitted points; 1 inside.
    pub extrapolation: f64,
}

/// A recommendation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The budget in training FLOPs, the autoencoder's included.
    pub flops: f64,
    /// The best model of every chunk size, best first.
    pub choices: Vec<Choice>,
    /// Share of the bootstrap's laws whose best model has the chunk size of each choice.
    pub preferred: Vec<f64>,
}

/// Widths that are considered; the other sizes follow in the base model's proportions.
const WIDTHS: [usize; 14] = [
    32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 2560, 4096,
];

/// The best models for `flops` of training by `fit`, in the proportions of `base`: its width per
/// layer, per head and per feed-forward, of the backbone and of a local decoder, its latent per
/// token, its window, its autoencoder. Chunk sizes are those of `autoencoder_tokens`, which says how
/// many tokens the autoencoder of each is trained on. `None` where the budget does not pay for the
/// smallest.
pub fn plan(
    fit: &Fit,
    base: &Experiment,
    autoencoder_tokens: &BTreeMap<usize, f64>,
    flops: f64,
) -> Option<Plan> {
    let chunk_sizes: Vec<usize> = autoencoder_tokens.keys().copied().collect();
    let candidates: Vec<Vec<Candidate>> = chunk_sizes
        .iter()
        .map(|&k| {
            let tokens = autoencoder_tokens[&k];
            WIDTHS
                .iter()
                .filter_map(|&width| Candidate::new(base, k, width, tokens, flops))
                .collect()
        })
        .collect();
    let best = |law: &Law| -> Vec<Option<(usize, f64)>> {
        candidates
            .iter()
            .map(|of_k| {
                of_k.iter()
                    .map(|c| c.brier_1(law))
                    .enumerate()
                    .max_by(|a, b| a.1.total_cmp(&b.1))
            })
            .collect()
    };
    let first = |law: &Law| -> Option<usize> {
        best(law)
            .iter()
            .enumerate()
            .filter_map(|(k, best)| best.map(|(_, q)| (k, q)))
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .map(|(k, _)| k)
    };
    let mut choices: Vec<(Choice, f64)> = Vec::new();
    for (k, found) in best(&fit.law).into_iter().enumerate() {
        let Some((width, brier_1)) = found else {
            continue;
        };
        let c = &candidates[k][width];
        let (n, d, chunk) = (c.parameters as f64, c.tokens, chunk_sizes[k] as f64);
        let votes = fit
            .bootstrap
            .iter()
            .filter(|law| first(law) == Some(k))
            .count();
        let choice = Choice {
            chunk_size: chunk_sizes[k],
            hidden_size: c.config.backbone.hidden_size,
            layers: c.config.backbone.layers,
            local_layers: c.config.is_local().then_some(c.config.local.layers),
            parameters: c.parameters,
            tokens: d,
            infer_flops_per_token: c.config.inference_flops(c.config.steps()),
            brier_1,
            interval: fit.interval(|law| law.brier_1(n, d, chunk)),
            extrapolation: fit.extrapolation(n, d, chunk),
        };
        choices.push((choice, votes as f64 / fit.bootstrap.len().max(1) as f64));
    }
    choices.sort_by(|a, b| b.0.brier_1.total_cmp(&a.0.brier_1));
    let (choices, preferred): (Vec<_>, Vec<_>) = choices.into_iter().unzip();
    (!choices.is_empty()).then_some(Plan {
        flops,
        choices,
        preferred,
    })
}

struct Candidate {
    config: ModelConfig,
    parameters: u64,
    tokens: f64,
}

impl Candidate {
    /// `None` where the proportions give no valid model, or the autoencoder eats the budget.
    fn new(
        base: &Experiment,
        k: usize,
        width: usize,
        autoencoder_tokens: f64,
        flops: f64,
    ) -> Option<Self> {
        let mut config = base.model.clone();
        let old = base.model.backbone.clone();
        let scaled = |x: usize| (x * width).div_ceil(old.hidden_size);
        config.latent_size = config.latent_size / config.chunk_size.max(1) * k;
        config.chunk_size = k;
        config.window = config.window.div_ceil(k) * k;
        config.backbone.hidden_size = width;
        config.backbone.layers = scaled(old.layers);
        config.backbone.intermediate_size = scaled(old.intermediate_size);
        config.backbone.heads = scaled(old.heads);
        config.backbone.kv_heads = config.backbone.heads / (old.heads / old.kv_heads).max(1);
        config.head.blocks = (config.backbone.layers / 4).max(1);
        let local = &mut config.local;
        let shared = (local.heads / local.kv_heads).max(1);
        local.layers = scaled(local.layers);
        local.hidden_size = scaled(local.hidden_size);
        local.intermediate_size = scaled(local.intermediate_size);
        local.vector_size = scaled(local.vector_size);
        local.heads = scaled(local.heads);
        local.kv_heads = local.heads / shared;
        config.validate().ok()?;
        let left = flops - config.autoencoder_train_flops() * autoencoder_tokens;
        let tokens = left / config.language_model_train_flops(config.steps());
        (tokens >= config.window as f64).then(|| Self {
            parameters: config.language_model_parameters(),
            config,
            tokens,
        })
    }

    fn brier_1(&self, law: &Law) -> f64 {
        let (n, k) = (self.parameters as f64, self.config.chunk_size as f64);
        law.brier_1(n, self.tokens, k)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(law: Law) -> Fit {
        Fit {
            law,
            bootstrap: vec![law; 4],
            runs: 9,
            points: 9,
            brier_1_residual: 0.0,
            brier_1_heldout: 0.0,
            brier_1_heldout_of_mean: 1.0,
            range: [[1e5, 1e8], [1e5, 1e9], [1.0, 4.0]],
        }
    }

    fn law(chunk_exponent: f64) -> Law {
        Law {
            floor: 1.0,
            parameter_gain: 1.0,
            parameter_exponent: 0.3,
            token_gain: 1.0,
            token_exponent: 0.3,
            chunk_exponent,
            parameter_unit: 1e6,
            token_unit: 1e6,
        }
    }

    #[test]
    fn the_plan_spends_the_budget_and_prefers_what_the_law_prefers() {
        let base = calm_train::preset::resolve("nano", &[]).unwrap();
        // Larger chunks cost nothing in quality here, and buy more tokens.
        let tokens = BTreeMap::from([(1, 4e5), (2, 6e5), (4, 1e6)]);
        let free = plan(&fit(law(0.0)), &base, &tokens, 1e16).unwrap();
        assert_eq!(free.choices[0].chunk_size, 4);
        assert_eq!(free.preferred, [1.0, 0.0, 0.0]);
        // Here they cost much.
        let dear = plan(&fit(law(1.5)), &base, &tokens, 1e16).unwrap();
        assert_eq!(dear.choices[0].chunk_size, 1);
        for choice in free.choices.iter().chain(&dear.choices) {
            let k = choice.chunk_size;
            let c = Candidate::new(&base, k, choice.hidden_size, tokens[&k], 1e16).unwrap();
            assert_eq!(c.parameters, choice.parameters);
            let autoencoder = c.config.autoencoder_train_flops() * tokens[&k];
            let lm = c.config.language_model_train_flops(c.config.steps()) * choice.tokens;
            approx::assert_relative_eq!(autoencoder + lm, 1e16, max_relative = 1e-9);
        }
        // More budget, a larger model: the law balances parameters and data.
        let rich = plan(&fit(law(0.0)), &base, &tokens, 1e19).unwrap();
        assert!(rich.choices[0].parameters > 4 * free.choices[0].parameters);
    }

    /// A local decoder without a backbone keeps without one, and grows itself.
    #[test]
    fn a_local_decoder_is_scaled_with_its_backbone() {
        let set = ["model.backbone.layers=0", "model.local.layers=2"].map(str::to_owned);
        let base = calm_train::preset::resolve("nano-local", &set).unwrap();
        let tokens = BTreeMap::from([(2, 0.0), (4, 0.0)]);
        let plan = plan(&fit(law(0.5)), &base, &tokens, 1e17).unwrap();
        for choice in &plan.choices {
            let (k, width) = (choice.chunk_size, choice.hidden_size);
            assert!(width > 256, "K = {k}: width {width}");
            let c = Candidate::new(&base, k, width, 0.0, 1e17).unwrap().config;
            assert_eq!((choice.layers, c.backbone.layers), (0, 0));
            assert_eq!(choice.local_layers, Some((2 * width).div_ceil(256)));
            let local = &c.local;
            assert_eq!((local.hidden_size, local.vector_size), (width, width));
            assert_eq!(local.intermediate_size, (688 * width).div_ceil(256));
            assert_eq!(local.hidden_size / local.heads, 32);
        }
        let calm = calm_train::preset::resolve("nano", &[]).unwrap();
        let calm = super::plan(&fit(law(0.5)), &calm, &tokens, 1e17).unwrap();
        assert_eq!(calm.choices[0].local_layers, None);
    }

    #[test]
    fn a_law_that_tells_nothing_of_parameters_makes_no_plan() {
        let mut open = law(0.5);
        open.parameter_exponent = 17.0;
        let mut scaling = Scaling {
            fit: fit(law(0.5)),
            preset: "nano".to_owned(),
            set: Vec::new(),
            autoencoder_tokens: BTreeMap::from([(1, 4e5), (2, 6e5)]),
        };
        assert!(scaling.plan(1e16).unwrap().is_some());
        scaling.fit.bootstrap.push(open);
        let message = scaling.plan(1e16).unwrap_err().to_string();
        assert!(
            message.contains("parameters") && message.contains("0.30 to 17.00"),
            "{message}"
        );
        assert!(message.contains("other widths"), "{message}");
    }

    #[test]
    fn a_budget_that_buys_nothing_gives_no_plan() {
        let base = calm_train::preset::resolve("nano", &[]).unwrap();
        let tokens = BTreeMap::from([(1, 4e5)]);
        assert!(plan(&fit(law(0.0)), &base, &tokens, 1e6).is_none());
    }
}
