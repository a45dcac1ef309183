//! "What this shows and what it does not": sentences composed from a run's own figures.

use crate::format::{count, fixed, percent, scientific, signed, significant, with_error};
use crate::summary::{AutoencoderSummary, BaselineSummary, ModelSummary, Summary};

/// Plain sentences about a summary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// What the figures support, most important first.
    pub shows: Vec<String>,
    /// What must not be read into them.
    pub does_not_show: Vec<String>,
}

/// Composes the findings of a summary.
pub fn findings(summary: &Summary) -> Findings {
    let mut found = Findings::default();
    if let Some(calm) = &summary.calm {
        found.shows.push(against_unigram(calm));
        found.shows.push(brier_lm(calm));
    }
    if let Some(autoencoder) = &summary.autoencoder {
        found.shows.push(reconstruction(
            autoencoder,
            summary.calm.as_ref().map(|c| c.chunk_size),
        ));
    }
    if let (Some(calm), Some(baseline)) = (&summary.calm, &summary.baseline) {
        found.shows.push(against_baseline(calm, baseline));
    }
    let limits = &mut found.does_not_show;
    if summary.calm.is_some() && summary.baseline.is_none() {
        limits.push(
            "Whether predicting vectors pays off here. No token model was trained in this run to \
             compare with; the stage “baseline” trains one on the same tokens."
                .to_owned(),
        );
    }
    if summary.calm.is_some() || summary.baseline.is_some() {
        limits.push(match &summary.protocol {
            Some(p) => format!(
                "Anything under another protocol. The scores hold for windows of {} tokens, {} \
                 positions and {} draws a position; the window length alone moves BrierLM by tens \
                 of percent, so compare only figures taken at the same length in tokens.",
                p.window_tokens,
                crate::format::grouped(p.positions),
                p.draws,
            ),
            None => "Anything comparable: the scores were stored without their protocol (window \
                     length, positions, draws), and the window length alone moves BrierLM by tens \
                     of percent."
                .to_owned(),
        });
    }
    if let Some(calm) = &summary.calm {
        limits.push(
            "Quality through the loss. The energy score depends on the latent space it is \
             measured in: a lower loss over another autoencoder says nothing."
                .to_owned(),
        );
        limits.push(format!(
            "Anything about the published sizes. CALM-M has 371 M parameters, about 500 G tokens \
             of training and a BrierLM of 5.72 on another text with another tokenizer \
             (arXiv 2510.27688); this model has {} parameters and saw {} tokens, all stages \
             together.",
            count(calm.parameters as f64),
            count(summary.tokens_seen as f64),
        ));
        limits.push(format!(
            "The price of fluent text. {} FLOP per generated token is one sample a step at \
             temperature 1; a lower temperature draws many samples for every chunk.",
            scientific(calm.infer_flops_per_token, 1),
        ));
    }
    limits.push(
        "How much another seed would change. Standard errors cover the text and the draws of the \
         evaluation, not the training: this is one run."
            .to_owned(),
    );
    found
}

/// The difference in standard errors; NaN where the error is unknown or zero.
pub(crate) fn standard_errors(difference: f64, error: f64) -> f64 {
    if error > 0.0 {
        difference / error
    } else {
        f64::NAN
    }
}

fn against_unigram(model: &ModelSummary) -> String {
    let (brier, error, unigram) = (model.brier[0], model.brier_se[0], model.unigram_brier[0]);
    let z = standard_errors(brier - unigram, model.over_unigram_se[0]);
    let reading = match z {
        z if z.is_nan() => {
            "the standard error of the difference is unknown, so it cannot be judged".into()
        }
        z if z >= 3.0 => format!(
            "{} standard errors above it. No fixed distribution does much better than the unigram \
             one, so the model uses its context",
            fixed(z, 1),
        ),
        z if z >= 2.0 => format!(
            "{} standard errors above it: a hint that the model uses its context, not proof",
            fixed(z, 1),
        ),
        z if z > -2.0 => format!(
            "not distinguishable from it ({} standard errors): nothing here says that the model \
             has learnt more than how frequent each token is",
            signed(z, 1),
        ),
        z => format!(
            "{} standard errors below it: worse than ignoring the context altogether",
            fixed(-z, 1),
        ),
    };
    format!(
        "Brier-1 is {} against {} for the corpus’s unigram distribution on the same positions: \
         {reading}.",
        with_error(brier, error),
        significant(unigram, 4),
    )
}

fn brier_lm(model: &ModelSummary) -> String {
    let named = |indices: &[usize]| {
        let names: Vec<_> = indices.iter().map(|i| format!("Brier-{}", i + 1)).collect();
        match names.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
            _ => names.concat(),
        }
    };
    let pick = |test: &dyn Fn(usize) -> bool| (0..4).filter(|&i| test(i)).collect::<Vec<_>>();
    let none = pick(&|i| model.brier[i] <= 0.0);
    let weak = pick(&|i| model.brier[i] < 2.0 * model.brier_se[i]);
    if model.brier_lm <= 0.0 {
        let cause = if none.is_empty() {
            "the four figures do not multiply to a positive number".to_owned()
        } else {
            format!("{} came out at or below zero", named(&none))
        };
        return format!(
            "BrierLM is 0 because {cause}. It is a geometric mean, so one such figure sets all of \
             it to zero; the true value of a rare match is tiny and its estimate is easily \
             negative. Read Brier-1, which does not depend on it."
        );
    }
    let mut text = format!(
        "BrierLM is {} on its scale of 0 to 100 (unigram distribution: {}).",
        with_error(model.brier_lm, model.brier_lm_se.unwrap_or(f64::NAN)),
        significant(brier_lm_of(&model.unigram_brier), 3),
    );
    if !weak.is_empty() {
        text.push_str(&format!(
            " It is shaky: {} {} less than two standard errors from zero, and a geometric mean \
             follows its smallest factor.",
            named(&weak),
            if weak.len() == 1 { "lies" } else { "lie" },
        ));
    }
    text
}

/// `100 * (product of the four)^(1/4)`, 0 where any factor is not positive.
pub(crate) fn brier_lm_of(brier: &[f64; 4]) -> f64 {
    if brier.iter().any(|&b| b <= 0.0) {
        return 0.0;
    }
    100.0 * brier.iter().product::<f64>().powf(0.25)
}

fn reconstruction(autoencoder: &AutoencoderSummary, chunk_size: Option<usize>) -> String {
    let (exact, noisy) = (autoencoder.token_accuracy, autoencoder.noisy_token_accuracy);
    let mut text = format!(
        "The autoencoder gives back {} of {} held-out tokens from the posterior mean and {} from \
         a latent drawn from the posterior.",
        percent(exact),
        crate::format::grouped(autoencoder.heldout_tokens),
        percent(noisy),
    );
    if let Some(chunk_size) = chunk_size.filter(|&k| k > 1) {
        text.push_str(&format!(
            " If errors fell independently, {} of the chunks of {chunk_size} tokens would come \
             back whole from such a draw: what the language model writes passes through this \
             decoder.",
            percent(noisy.powi(chunk_size as i32)),
        ));
    }
    text
}

fn against_baseline(calm: &ModelSummary, baseline: &BaselineSummary) -> String {
    let token = &baseline.model;
    let difference = calm.brier[0] - token.brier[0];
    let error = calm.brier_se[0].hypot(token.brier_se[0]);
    let ratio = calm.train_flops / token.train_flops;
    let work = match ratio {
        r if (0.9..=1.1).contains(&r) => "Both spent the same training FLOP to within 10 %".into(),
        r if r.is_finite() && r > 0.0 => format!(
            "CALM spent {} times the baseline’s training FLOP, so this is not a comparison on \
             equal work",
            significant(r, 2),
        ),
        _ => "The training FLOP of both are not known, so the work is not compared".to_owned(),
    };
    format!(
        "The token baseline has a Brier-1 of {} and a BrierLM of {} (perplexity {}); CALM differs \
         from it in Brier-1 by {} ({} standard errors; the two were combined as if independent). \
         {work}.",
        with_error(token.brier[0], token.brier_se[0]),
        with_error(token.brier_lm, token.brier_lm_se.unwrap_or(f64::NAN)),
        significant(baseline.perplexity, 3),
        with_error(difference, error),
        signed(standard_errors(difference, error), 1),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::tests::{model, summary};

    fn with(brier: [f64; 4], brier_se: [f64; 4], brier_lm: f64) -> ModelSummary {
        ModelSummary {
            brier,
            brier_se,
            over_unigram_se: brier_se,
            brier_lm,
            ..model()
        }
    }

    #[test]
    fn brier_1_is_judged_by_standard_errors() {
        for (brier, words) in [
            (0.0130, "5.0 standard errors above it. No fixed"),
            (0.0120, "2.5 standard errors above it: a hint"),
            (0.0113, "not distinguishable from it (+0.7 standard errors)"),
            (0.0107, "not distinguishable from it (−0.7 standard errors)"),
            (0.0094, "4.0 standard errors below it: worse"),
        ] {
            let text = against_unigram(&with([brier; 4], [0.000_4; 4], 0.1));
            assert!(text.contains(words), "{text}");
            assert!(text.contains("against 0.01100 for"), "{text}");
        }
        let text = against_unigram(&with([0.0131; 4], [f64::NAN; 4], 0.1));
        assert!(text.contains("cannot be judged"), "{text}");
    }

    #[test]
    fn a_brier_lm_of_zero_is_explained() {
        let text = brier_lm(&with([0.01, 1e-4, -1e-5, -2e-6], [1e-5; 4], 0.0));
        assert!(
            text.contains("0 because Brier-3 and Brier-4 came out at or below zero"),
            "{text}"
        );
        let text = brier_lm(&with(
            [0.01, 1e-3, 1e-4, 1e-5],
            [1e-4, 1e-4, 1e-5, 9e-6],
            0.2,
        ));
        assert!(text.contains("shaky: Brier-4 lies less than two"), "{text}");
        let text = brier_lm(&with([0.01, 1e-3, 1e-4, 1e-5], [1e-6; 4], 0.2));
        assert!(!text.contains("shaky"), "{text}");
        approx::assert_relative_eq!(brier_lm_of(&[0.1; 4]), 10.0, max_relative = 1e-12);
        // Two negative factors must not cancel.
        assert_eq!(brier_lm_of(&[0.1, -0.1, -0.1, 0.1]), 0.0);
    }

    #[test]
    fn work_is_compared_before_scores() {
        let text = findings(&summary()).shows.join("\n");
        assert!(text.contains("same training FLOP to within 10 %"), "{text}");
        let mut other = summary();
        other.calm.as_mut().unwrap().train_flops *= 3.0;
        let text = findings(&other).shows.join("\n");
        assert!(
            text.contains("3.0 times the baseline’s training FLOP"),
            "{text}"
        );
        assert!(text.contains("97.44 % of the chunks of 2 tokens"), "{text}");
    }

    #[test]
    fn only_what_was_run_is_spoken_of() {
        let found = findings(&Summary {
            calm: None,
            baseline: None,
            ..summary()
        });
        assert_eq!(found.shows.len(), 1);
        assert!(
            found.shows[0].contains("99.34 % of 65,536 held-out tokens"),
            "{found:?}"
        );
        assert_eq!(found.does_not_show.len(), 1);

        let found = findings(&Summary {
            baseline: None,
            protocol: None,
            ..summary()
        });
        let limits = found.does_not_show.join("\n");
        assert!(limits.contains("No token model was trained"), "{limits}");
        assert!(limits.contains("stored without their protocol"), "{limits}");
        let limits = findings(&summary()).does_not_show.join("\n");
        assert!(
            limits.contains("windows of 256 tokens, 8,192 positions and 8 draws"),
            "{limits}"
        );
    }
}
