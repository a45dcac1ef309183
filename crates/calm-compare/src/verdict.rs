//! What every next-vector model says against the token models, and its words.

use calm_report::format;
use serde::Serialize;

use crate::frontier::{Finding, Measured, compare};
use crate::models::{BRIER_1, LOG_LIKELIHOOD, Model, Quality};
use crate::record::{CellRecord, CurvePoint};
use crate::spec::CellKind;

/// What a next-vector model says against the frontier of the token models.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Verdict {
    pub model: String,
    /// By training FLOPs, the autoencoder's included, over the learning curves.
    pub training_flops: Finding,
    /// By seconds in training steps, over the learning curves.
    pub training_seconds: Finding,
    /// By inference FLOPs per token, over the final scores.
    pub inference_flops: Finding,
    /// By seconds per token at batch 1, over the final scores.
    pub seconds_per_token: Finding,
    /// With the cross-entropy for a quality, of a model that has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_cross_entropy: Option<ByCrossEntropy>,
}

/// What a model with a likelihood says against the frontier of the token models' cross-entropies.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ByCrossEntropy {
    /// By training FLOPs, over the learning curves.
    pub training_flops: Finding,
    /// By inference FLOPs per token, over the final scores.
    pub inference_flops: Finding,
    /// By seconds per token at batch 1, over the final scores.
    pub seconds_per_token: Finding,
}

/// Every next-vector model against the token models; nothing where there are none.
pub(crate) fn verdicts(models: &[Model<'_>]) -> Vec<Verdict> {
    let baselines: Vec<&Model<'_>> = models
        .iter()
        .filter(|m| m.kind() == CellKind::Baseline)
        .collect();
    if baselines.is_empty() {
        return Vec::new();
    }
    let numbered = || baselines.iter().enumerate().map(|(i, b)| (i + 1, b));
    let on_curves = |model: &Model<'_>, quality: &Quality, cost: fn(&CurvePoint) -> f64| {
        let reference: Vec<Measured> = numbered()
            .flat_map(|(i, b)| b.measured_curve(i, quality, cost))
            .collect();
        match model.measured_curve(0, quality, cost).last() {
            Some(last) => compare(last, &reference),
            None => Finding::Apart,
        }
    };
    let on_scores = |model: &Model<'_>, quality: &Quality, cost: fn(&CellRecord) -> f64| {
        let reference: Vec<Measured> = numbered()
            .filter_map(|(i, b)| b.measured(i, quality, cost))
            .collect();
        match model.measured(0, quality, cost) {
            Some(ours) => compare(&ours, &reference),
            None => Finding::Apart,
        }
    };
    let seconds = |c: &CellRecord| c.speed_at(1).map_or(f64::NAN, |row| 1.0 / row.tokens_per_s);
    let of_model = |model: &&Model<'_>| {
        let has = model
            .cells
            .iter()
            .all(|c| (LOG_LIKELIHOOD.of_cell)(c).is_some());
        Verdict {
            model: model.name.to_owned(),
            training_flops: on_curves(model, &BRIER_1, |p| p.train_flops),
            training_seconds: on_curves(model, &BRIER_1, |p| p.train_seconds),
            inference_flops: on_scores(model, &BRIER_1, |c| c.infer_flops_per_token),
            seconds_per_token: on_scores(model, &BRIER_1, seconds),
            by_cross_entropy: has.then(|| ByCrossEntropy {
                training_flops: on_curves(model, &LOG_LIKELIHOOD, |p| p.train_flops),
                inference_flops: on_scores(model, &LOG_LIKELIHOOD, |c| c.infer_flops_per_token),
                seconds_per_token: on_scores(model, &LOG_LIKELIHOOD, seconds),
            }),
        }
    };
    let next_vector = models.iter().filter(|m| m.kind().is_next_vector());
    next_vector.map(|model| of_model(&model)).collect()
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

/// A verdict in words.
pub(crate) fn sentence(verdict: &Verdict) -> String {
    let say =
        |finding: &Finding, cost: &str| say(finding, cost, ["Brier-1 higher", "Brier-1 lower"]);
    format!(
        "{}: {}; {}; {}; {}.",
        verdict.model,
        say(&verdict.training_flops, "training FLOPs"),
        say(&verdict.training_seconds, "training time"),
        say(&verdict.inference_flops, "inference FLOPs"),
        say(&verdict.seconds_per_token, "time per token at batch 1"),
    )
}

/// A verdict by cross-entropy in words, where there is one.
pub(crate) fn sentence_by_cross_entropy(verdict: &Verdict) -> Option<String> {
    let by = verdict.by_cross_entropy.as_ref()?;
    let say = |finding: &Finding, cost: &str| {
        let words = ["nats a token lower", "nats a token higher"];
        say(finding, cost, words)
    };
    Some(format!(
        "{}, quality being perplexity: {}; {}; {}.",
        verdict.model,
        say(&by.training_flops, "training FLOPs"),
        say(&by.inference_flops, "inference FLOPs"),
        say(&by.seconds_per_token, "time per token at batch 1"),
    ))
}

#[cfg(test)]
mod tests {
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
        let words = sentence_by_cross_entropy(verdict).unwrap();
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
        assert!(sentence_by_cross_entropy(&verdicts[0]).is_none());
    }

    #[test]
    fn a_verdict_says_percent_or_times() {
        let of = |saving: f64, interval: [f64; 2]| {
            let interval = interval.map(|end| Some(end).filter(|end| end.is_finite()));
            let equal = Finding::EqualQuality { saving, interval };
            sentence(&Verdict {
                model: "calm".to_owned(),
                training_flops: equal,
                training_seconds: Finding::Apart,
                inference_flops: Finding::Dominated,
                seconds_per_token: Finding::Dominated,
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
