//! What a run's figures support and what they do not: the numbers behind `findings.html`.

use askama::Template;

use crate::show;
use crate::show::standard_errors;
use calm_records::{ModelSummary, Summary};

/// "What this shows and what it does not", composed from a run's own figures.
#[derive(Template)]
#[template(path = "findings.html")]
pub(crate) struct Findings<'a> {
    pub summary: &'a Summary,
}

impl Findings<'_> {
    /// Brier-1 above the unigram distribution's, in standard errors.
    fn over_unigram(&self, model: &ModelSummary) -> f64 {
        let difference = model.brier[0] - model.unigram_brier[0];
        standard_errors(difference, model.over_unigram_se[0])
    }

    /// What keeps BrierLM at zero.
    fn not_positive(&self, model: &ModelSummary) -> Vec<String> {
        named(|n| model.brier[n] <= 0.0)
    }

    /// What BrierLM can't be trusted for.
    fn shaky(&self, model: &ModelSummary) -> Vec<String> {
        named(|n| model.brier[n] < 2.0 * model.brier_se[n])
    }

    /// Share of chunks that come back whole if errors fall independently.
    fn whole_chunks(&self, token_accuracy: &f64, chunk_size: &usize) -> f64 {
        token_accuracy.powf(*chunk_size as f64)
    }

    /// Brier-1 above the token model's, with its error, as if both were independent.
    fn over_baseline(&self, calm: &ModelSummary, token: &ModelSummary) -> (f64, f64) {
        let error = calm.brier_se[0].hypot(token.brier_se[0]);
        (calm.brier[0] - token.brier[0], error)
    }

    fn work_ratio(&self, calm: &ModelSummary, token: &ModelSummary) -> f64 {
        calm.train_flops / token.train_flops
    }
}

fn named(holds: impl Fn(usize) -> bool) -> Vec<String> {
    let all = (0..4).filter(|&n| holds(n));
    all.map(|n| format!("Brier-{}", n + 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::show::brier_lm;
    use calm_records::examples::{model, summary};

    /// What is said of a summary, in one line without markup.
    fn said(summary: &Summary) -> String {
        let html = Findings { summary }.render().unwrap().replace('\n', " ");
        let text = html
            .split('<')
            .map(|part| part.split_once('>').map_or(part, |(_, text)| text));
        let words: Vec<_> = text.flat_map(|part| part.split([' ', '\u{a0}'])).collect();
        let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
        words.join(" ")
    }

    fn with(brier: [f64; 4], brier_se: [f64; 4], brier_lm: f64) -> Summary {
        let calm = Some(ModelSummary {
            brier,
            brier_se,
            over_unigram_se: brier_se,
            brier_lm,
            ..model()
        });
        Summary { calm, ..summary() }
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
            let text = said(&with([brier; 4], [0.000_4; 4], 0.1));
            assert!(text.contains(words), "{text}");
            assert!(text.contains("against 0.01100 for"), "{text}");
        }
        let text = said(&with([0.0131; 4], [f64::NAN; 4], 0.1));
        assert!(text.contains("cannot be judged"), "{text}");
    }

    #[test]
    fn a_brier_lm_of_zero_is_explained() {
        let text = said(&with([0.01, 1e-4, -1e-5, -2e-6], [1e-5; 4], 0.0));
        let words = "0 because Brier-3 and Brier-4 came out at or below zero";
        assert!(text.contains(words), "{text}");
        let text = said(&with(
            [0.01, 1e-3, 1e-4, 1e-5],
            [1e-4, 1e-4, 1e-5, 9e-6],
            0.2,
        ));
        assert!(text.contains("shaky: Brier-4 lies less than two"), "{text}");
        let text = said(&with([0.01, 1e-3, 1e-4, 1e-5], [1e-6; 4], 0.2));
        assert!(!text.contains("shaky"), "{text}");
        approx::assert_relative_eq!(brier_lm(&[0.1; 4]), 10.0, max_relative = 1e-12);
        // Two negative factors must not cancel.
        assert_eq!(brier_lm(&[0.1, -0.1, -0.1, 0.1]), 0.0);
    }

    #[test]
    fn work_is_compared_before_scores() {
        let text = said(&summary());
        assert!(text.contains("same training FLOP to within 10 %"), "{text}");
        let mut other = summary();
        other.calm.as_mut().unwrap().train_flops *= 3.0;
        let text = said(&other);
        assert!(
            text.contains("3.0 times the baseline’s training FLOP"),
            "{text}"
        );
        assert!(text.contains("97.44 % of the chunks of 2 tokens"), "{text}");
    }

    #[test]
    fn only_what_was_run_is_spoken_of() {
        let text = said(&Summary {
            calm: None,
            baseline: None,
            ..summary()
        });
        assert!(text.contains("99.34 % of 65,536 held-out tokens"), "{text}");
        for absent in ["Brier", "energy score", "371 M", "protocol"] {
            assert!(!text.contains(absent), "{absent}: {text}");
        }
        let text = said(&Summary {
            baseline: None,
            protocol: None,
            ..summary()
        });
        assert!(text.contains("No token model was trained"), "{text}");
        assert!(text.contains("stored without their protocol"), "{text}");
        let text = said(&summary());
        let words = "windows of 256 tokens, 8,192 positions and 8 draws";
        assert!(text.contains(words), "{text}");
    }
}
