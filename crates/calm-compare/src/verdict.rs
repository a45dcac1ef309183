//! What every next-vector model says against the token models, and its words.

use calm_report::format;
use serde::Serialize;

use crate::frontier::{Finding, Measured, compare};
use crate::models::{BRIER_1, BRIER_LM, LOG_LIKELIHOOD, Model, Quality};
use crate::record::{CellRecord, CurvePoint};
use crate::spec::CellKind;

/// What a next-vector model says against the frontier of the token models.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Verdict {
    pub model: String,
    /// With Brier-1 for a quality.
    #[serde(flatten)]
    pub by_brier_1: Findings,
    /// By seconds in training steps, over the learning curves, with Brier-1 for a quality.
    pub training_seconds: Finding,
    /// With BrierLM for a quality, where it is far enough above 0 to have an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_brier_lm: Option<Findings>,
    /// With the cross-entropy for a quality, of a model that has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_cross_entropy: Option<Findings>,
}

/// What a model says by one quality.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Findings {
    /// By training FLOPs, the autoencoder's included, over the learning curves.
    pub training_flops: Finding,
    /// By inference FLOPs per token, over the final scores.
    pub inference_flops: Finding,
    /// By seconds per token at batch 1, over the final scores.
    pub seconds_per_token: Finding,
}

/// Every next-vector model against the token models; nothing where there are none.
pub(crate) fn verdicts(models: &[Model<'_>]) -> Vec<Verdict> {
    let of_kind = |wanted: fn(CellKind) -> bool| models.iter().filter(move |m| wanted(m.kind()));
    let token_models: Vec<&Model<'_>> = of_kind(|kind| kind == CellKind::Baseline).collect();
    if token_models.is_empty() {
        return Vec::new();
    }
    let against = Against(&token_models);
    let of_model = |model: &Model<'_>| {
        let has = |figures: fn(&CellRecord) -> bool| model.cells.iter().all(|c| figures(c));
        let scored = has(|c| (BRIER_LM.of_cell)(c).is_some()) && model.brier_lm().1.is_some();
        let likely = has(|c| (LOG_LIKELIHOOD.of_cell)(c).is_some());
        Verdict {
            model: model.name.to_owned(),
            by_brier_1: against.findings(model, &BRIER_1),
            training_seconds: against.on_curves(model, &BRIER_1, |p| p.train_seconds),
            by_brier_lm: scored.then(|| against.findings(model, &BRIER_LM)),
            by_cross_entropy: likely.then(|| against.findings(model, &LOG_LIKELIHOOD)),
        }
    };
    of_kind(CellKind::is_next_vector).map(of_model).collect()
}

/// The token models, which others are compared with.
struct Against<'a>(&'a [&'a Model<'a>]);

impl Against<'_> {
    fn findings<const N: usize>(&self, model: &Model<'_>, quality: &Quality<N>) -> Findings {
        let seconds = |c: &CellRecord| c.speed_at(1).map_or(f64::NAN, |row| 1.0 / row.tokens_per_s);
        Findings {
            training_flops: self.on_curves(model, quality, |p| p.train_flops),
            inference_flops: self.on_scores(model, quality, |c| c.infer_flops_per_token),
            seconds_per_token: self.on_scores(model, quality, seconds),
        }
    }

    fn on_curves<const N: usize>(
        &self,
        model: &Model<'_>,
        quality: &Quality<N>,
        cost: fn(&CurvePoint) -> f64,
    ) -> Finding {
        let reference: Vec<Measured<N>> = self
            .numbered()
            .flat_map(|(i, b)| b.measured_curve(i, quality, cost))
            .collect();
        match model.measured_curve(0, quality, cost).last() {
            Some(last) => compare(last, &reference),
            None => Finding::Apart,
        }
    }

    fn on_scores<const N: usize>(
        &self,
        model: &Model<'_>,
        quality: &Quality<N>,
        cost: fn(&CellRecord) -> f64,
    ) -> Finding {
        let reference: Vec<Measured<N>> = self
            .numbered()
            .filter_map(|(i, b)| b.measured(i, quality, cost))
            .collect();
        match model.measured(0, quality, cost) {
            Some(ours) => compare(&ours, &reference),
            None => Finding::Apart,
        }
    }

    fn numbered(&self) -> impl Iterator<Item = (usize, &Model<'_>)> {
        self.0.iter().enumerate().map(|(i, model)| (i + 1, *model))
    }
}

/// An interval in words; an end that is open is not named.
fn span(low: Option<String>, high: Option<String>) -> String {
    match (low, high) {
        (Some(low), Some(high)) => format!("{low} to {high}"),
        (Some(low), None) => format!("at least {low}"),
        (None, Some(high)) => format!("at most {high}"),
        (None, None) => "unknown".to_owned(),
    }
}

/// A finding in words; `better` and `worse` say what a higher and a lower quality is.
fn say(finding: &Finding, cost: &str, [better, worse]: [&str; 2]) -> String {
    match finding {
        Finding::EqualQuality { saving, interval } => {
            let [low, high] = *interval;
            // Above twice the cost a factor reads better than a percentage.
            if *saving < -1.0 {
                let factor = |saving: f64| format::significant(1.0 - saving, 2);
                return format!(
                    "{} times the {cost} of the token models at equal quality (95 % interval {})",
                    factor(*saving),
                    span(high.map(factor), low.map(factor)),
                );
            }
            let (word, low, high) = if *saving >= 0.0 {
                ("less", low, high)
            } else {
                ("more", high.map(|x| -x), low.map(|x| -x))
            };
            let percent = |x: f64| format!("{:.0}", 100.0 * x);
            format!(
                "{:.0} % {word} {cost} than the token models at equal quality (95 % interval {} %)",
                100.0 * saving.abs(),
                span(low.map(percent), high.map(percent)),
            )
        }
        Finding::EqualCost {
            difference,
            interval,
        } => format!(
            "at equal {cost}, {} by {} (95 % interval of the difference {} to {}); its quality \
             is not within theirs, or too uncertain to tell, so no saving is stated",
            if *difference < 0.0 { worse } else { better },
            format::significant(difference.abs(), 2),
            format::significant(interval[0], 2),
            format::significant(interval[1], 2),
        ),
        Finding::Dominated => {
            format!("some token model is better for less {cost}")
        }
        Finding::Apart => format!(
            "in {cost} it lies outside of what the token models cover, or too near to the end to \
             tell: nothing is stated"
        ),
    }
}

/// A verdict by Brier-1 in words.
pub(crate) fn sentence(verdict: &Verdict) -> String {
    let words = ["Brier-1 higher", "Brier-1 lower"];
    let by = &verdict.by_brier_1;
    format!(
        "{}: {}; {}; {}; {}.",
        verdict.model,
        say(&by.training_flops, "training FLOPs", words),
        say(&verdict.training_seconds, "training time", words),
        say(&by.inference_flops, "inference FLOPs", words),
        say(&by.seconds_per_token, "time per token at batch 1", words),
    )
}

/// Verdicts by other qualities in words, where there are such.
pub(crate) fn other_sentences(verdict: &Verdict) -> Vec<String> {
    let nats = ["nats a token lower", "nats a token higher"];
    let found = [
        ("perplexity", nats, &verdict.by_cross_entropy),
        (
            "BrierLM",
            ["BrierLM higher", "BrierLM lower"],
            &verdict.by_brier_lm,
        ),
    ];
    let sentence = |(quality, words, by): (_, _, &Option<Findings>)| {
        let by = by.as_ref()?;
        Some(format!(
            "{}, quality being {quality}: {}; {}; {}.",
            verdict.model,
            say(&by.training_flops, "training FLOPs", words),
            say(&by.inference_flops, "inference FLOPs", words),
            say(&by.seconds_per_token, "time per token at batch 1", words),
        ))
    };
    found.into_iter().filter_map(sentence).collect()
}

#[cfg(test)]
mod tests {
    use calm_records::WindowBrier;

    use super::*;
    use crate::models::models;
    use crate::models::tests::cell;

    #[test]
    fn without_a_token_model_there_is_nothing_to_say() {
        let mut calm = cell(&[2, 4], 0.1);
        calm.kind = CellKind::Calm;
        let token = cell(&[2, 4], 0.1);
        assert!(verdicts(&models(std::slice::from_ref(&calm))).is_empty());
        assert!(verdicts(&models(std::slice::from_ref(&token))).is_empty());
        let mut both = [calm, token];
        both[0].model = "calm".to_owned();
        assert_eq!(verdicts(&models(&both)).len(), 1);
    }

    /// A token model whose cross-entropy falls by 1 nat with twice the work, and a local decoder that
    /// reaches its middle at half the work.
    #[test]
    fn models_with_a_likelihood_are_compared_by_it_too() {
        let with_nats = |kind, costs: &[u64], nats: &[f64]| {
            let mut cell = cell(costs, 0.1);
            cell.kind = kind;
            cell.model = kind.name().to_owned();
            for (point, &nats) in cell.curve.iter_mut().zip(nats) {
                point.window_cross_entropy = Some(vec![nats - 0.01, nats + 0.01]);
            }
            let last = cell.curve.last().unwrap().window_cross_entropy.clone();
            cell.window_cross_entropy = last;
            cell
        };
        let token = with_nats(CellKind::Baseline, &[1, 2, 4], &[5.0, 4.0, 3.0]);
        let local = with_nats(CellKind::Local, &[1], &[4.0]);
        let verdicts = verdicts(&models(&[token.clone(), local.clone()]));
        let [verdict] = verdicts.as_slice() else {
            panic!("{verdicts:?}");
        };
        let by = verdict.by_cross_entropy.as_ref().unwrap();
        let Finding::EqualQuality { saving, .. } = by.training_flops else {
            panic!("{by:?}");
        };
        approx::assert_relative_eq!(saving, 0.5, max_relative = 1e-9);
        let words = &other_sentences(verdict)[0];
        assert!(
            words.contains("quality being perplexity: 50 % less training FLOPs"),
            "{words}"
        );
        // Lower at the one inference cost, and said so.
        assert!(
            words.contains("inference FLOPs, nats a token higher by 1"),
            "{words}"
        );
        // A CALM has none, and records from before lack it.
        let mut calm = local.clone();
        (calm.kind, calm.window_cross_entropy) = (CellKind::Calm, None);
        let verdicts = super::verdicts(&models(&[token, calm]));
        assert!(verdicts[0].by_cross_entropy.is_none());
        assert!(other_sentences(&verdicts[0]).is_empty());
    }

    /// BrierLM is a root of means: a model with half the token model's Brier-1 and twice its Brier-2 at
    /// half the work is level with it.
    #[test]
    fn brier_lm_is_a_quality_of_its_own() {
        let scored = |kind: CellKind, tokens: &[u64], brier: &[[f64; 4]]| {
            let mut cell = cell(tokens, 0.1);
            (cell.kind, cell.model) = (kind, kind.name().to_owned());
            let windows = |brier: [f64; 4]| WindowBrier::All(vec![brier; 2]);
            for (point, &brier) in cell.curve.iter_mut().zip(brier) {
                point.window_brier = windows(brier);
            }
            let last = *brier.last().unwrap();
            (cell.scores.brier, cell.scores.window_brier) = (last, windows(last));
            (cell.scores.brier_lm, cell.scores.brier_lm_se) = (1.0, Some(0.1));
            cell
        };
        let token = scored(
            CellKind::Baseline,
            &[1, 2, 4],
            &[[0.1; 4], [0.2; 4], [0.3; 4]],
        );
        let calm = scored(CellKind::Calm, &[1], &[[0.1, 0.4, 0.2, 0.2]]);
        let verdicts = verdicts(&models(&[token.clone(), calm.clone()]));
        let by = verdicts[0].by_brier_lm.as_ref().unwrap();
        let Finding::EqualQuality { saving, .. } = by.training_flops else {
            panic!("{by:?}");
        };
        approx::assert_relative_eq!(saving, 0.5, max_relative = 1e-9);
        let words = &other_sentences(&verdicts[0])[0];
        assert!(
            words.contains("quality being BrierLM: 50 % less training FLOPs"),
            "{words}"
        );
        // Without an error it is too near 0 to be compared, and older records hold Brier-1 alone.
        let mut unclear = calm.clone();
        unclear.scores.brier_lm_se = None;
        let mut older = calm;
        older.scores.window_brier = WindowBrier::First(vec![0.1; 2]);
        for calm in [unclear, older] {
            let verdicts = super::verdicts(&models(&[token.clone(), calm]));
            assert!(verdicts[0].by_brier_lm.is_none());
        }
    }

    #[test]
    fn a_verdict_says_percent_or_times() {
        let of = |saving: f64, interval: [f64; 2]| {
            let interval = interval.map(|end| Some(end).filter(|end| end.is_finite()));
            let equal = Finding::EqualQuality { saving, interval };
            sentence(&Verdict {
                model: "calm".to_owned(),
                by_brier_1: Findings {
                    training_flops: equal,
                    inference_flops: Finding::Dominated,
                    seconds_per_token: Finding::Dominated,
                },
                training_seconds: Finding::Apart,
                by_brier_lm: None,
                by_cross_entropy: None,
            })
        };
        let less = of(0.44, [0.4, 0.5]);
        assert!(
            less.starts_with("calm: 44 % less training FLOPs than the token models at equal quality (95 % interval 40 to 50 %)"),
            "{less}"
        );
        let more = of(-0.5, [-0.75, 0.25]);
        assert!(
            more.contains("50 % more training FLOPs") && more.contains("interval -25 to 75 %"),
            "{more}"
        );
        let times = of(-35.0, [-63.0, -27.0]);
        assert!(
            times.contains("36 times the training FLOPs of the token models")
                && times.contains("interval 28 to 64)"),
            "{times}"
        );
        let open = of(-35.0, [f64::NEG_INFINITY, -27.0]);
        assert!(open.contains("interval at least 28)"), "{open}");
        let open = of(0.44, [0.4, f64::INFINITY]);
        assert!(open.contains("interval at least 40 %)"), "{open}");
    }
}
