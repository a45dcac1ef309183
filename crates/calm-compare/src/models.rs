//! The cells of a model taken together over its seeds.

use calm_likelihood_free::brier_lm;

use crate::frontier::{Measured, Point};
use crate::record::{CellRecord, CurvePoint};
use crate::spec::CellKind;

/// One model of the grid over its seeds.
pub(crate) struct Model<'a> {
    pub name: &'a str,
    pub cells: Vec<&'a CellRecord>,
}

/// A quality, higher is better, that is made of the means of `N` figures of every window; `None`
/// where a model has none.
pub(crate) struct Quality<const N: usize> {
    pub of_cell: fn(&CellRecord) -> Option<Vec<[f64; N]>>,
    pub of_point: fn(&CurvePoint) -> Option<Vec<[f64; N]>>,
    pub of_means: fn(&[f64; N]) -> f64,
}

pub(crate) const BRIER_1: Quality<1> = Quality {
    of_cell: |cell| Some(single(cell.scores.window_brier.first())),
    of_point: |point| Some(single(point.window_brier.first())),
    of_means: |[brier_1]| *brier_1,
};

/// 0 where a mean is not positive, as [`brier_lm`] has it.
pub(crate) const BRIER_LM: Quality<4> = Quality {
    of_cell: |cell| cell.scores.window_brier.all().map(<[_]>::to_vec),
    of_point: |point| point.window_brier.all().map(<[_]>::to_vec),
    of_means: |brier| brier_lm(brier, &[[0.0; 4]; 4]).0,
};

pub(crate) const LOG_LIKELIHOOD: Quality<1> = Quality {
    of_cell: |cell| cell.window_cross_entropy.clone().map(single),
    of_point: |point| point.window_cross_entropy.clone().map(single),
    of_means: |[nats]| -nats,
};

fn single(figures: Vec<f64>) -> Vec<[f64; 1]> {
    figures.into_iter().map(|figure| [figure]).collect()
}

pub(crate) fn models(cells: &[CellRecord]) -> Vec<Model<'_>> {
    let mut models: Vec<Model<'_>> = Vec::new();
    for cell in cells {
        match models.iter_mut().find(|m| m.name == cell.model) {
            Some(model) => model.cells.push(cell),
            None => models.push(Model {
                name: &cell.model,
                cells: vec![cell],
            }),
        }
    }
    models
}

impl Model<'_> {
    pub(crate) fn kind(&self) -> CellKind {
        self.cells[0].kind
    }

    /// The mean of a figure over the seeds, and its standard error: that of the text, and where
    /// there are several seeds that of the seeds, added in squares.
    pub(crate) fn mean(
        &self,
        value: impl Fn(&CellRecord) -> f64,
        error: impl Fn(&CellRecord) -> f64,
    ) -> (f64, f64) {
        mean(&self.cells, |c| value(c), |c| error(c))
    }

    pub(crate) fn brier(&self, n: usize) -> (f64, f64) {
        self.mean(|c| c.scores.brier[n], |c| c.scores.brier_se[n])
    }

    /// BrierLM of the Brier scores averaged over the seeds, and its standard error, where it has one:
    /// over one seed that of its record, over several by the covariances of text and seeds together.
    pub(crate) fn brier_lm(&self) -> (f64, Option<f64>) {
        if let [only] = self.cells.as_slice() {
            return (only.scores.brier_lm, only.scores.brier_lm_se);
        }
        let seeds = self.cells.len() as f64;
        let pooled: [f64; 4] = std::array::from_fn(|n| self.brier(n).0);
        let mut covariance = [[0.0; 4]; 4];
        let known = self
            .cells
            .iter()
            .all(|cell| cell.scores.covariance.is_some());
        for cell in &self.cells {
            // The windows are the same for all seeds: more seeds make the text's part no smaller.
            let of_text = cell.scores.covariance.unwrap_or_default();
            let apart = |n: usize| cell.scores.brier[n] - pooled[n];
            for (i, row) in covariance.iter_mut().enumerate() {
                for (j, entry) in row.iter_mut().enumerate() {
                    *entry += (of_text[i][j] + apart(i) * apart(j) / (seeds - 1.0)) / seeds;
                }
            }
        }
        let (value, error) = brier_lm(&pooled, &covariance);
        (value, error.filter(|_| known))
    }

    /// Final Brier-1 at a cost, and its standard error.
    pub(crate) fn point(&self, cost: impl Fn(&CellRecord) -> f64) -> (Point, f64) {
        self.at(cost, self.brier(0))
    }

    /// Final BrierLM at a cost, and its standard error.
    pub(crate) fn brier_lm_point(&self, cost: impl Fn(&CellRecord) -> f64) -> (Point, f64) {
        let (value, error) = self.brier_lm();
        self.at(cost, (value, error.unwrap_or(f64::NAN)))
    }

    fn at(&self, cost: impl Fn(&CellRecord) -> f64, (quality, error): (f64, f64)) -> (Point, f64) {
        let cost = self.mean(cost, |_| 0.0).0;
        (Point { cost, quality }, error)
    }

    /// Points of the learning curves of all seeds, averaged, with standard errors.
    pub(crate) fn curve(&self, cost: impl Fn(&CurvePoint) -> f64) -> Vec<(Point, f64)> {
        self.curve_points()
            .iter()
            .map(|seeds| {
                let (quality, error) = mean(seeds, |p| p.brier_1, |p| p.brier_1_se);
                let cost = mean(seeds, |p| cost(p), |_| 0.0).0;
                (Point { cost, quality }, error)
            })
            .collect()
    }

    /// Points of the learning curves, each of all seeds: after as many tokens as every seed was
    /// scored after.
    fn curve_points(&self) -> Vec<Vec<&CurvePoint>> {
        let of_all = |tokens: u64| {
            let curves = self.cells.iter().map(|c| c.curve.iter());
            curves
                .map(|mut curve| curve.find(|p| p.tokens == tokens))
                .collect()
        };
        let first = &self.cells[0].curve;
        first.iter().filter_map(|p| of_all(p.tokens)).collect()
    }

    /// The final quality of every seed and window, as model number `model`.
    pub(crate) fn measured<const N: usize>(
        &self,
        model: usize,
        quality: &Quality<N>,
        cost: impl Fn(&CellRecord) -> f64,
    ) -> Option<Measured<N>> {
        let seeds = self.cells.iter().map(|c| (quality.of_cell)(c));
        Some(Measured {
            model,
            cost: self.mean(cost, |_| 0.0).0,
            figures: seeds.collect::<Option<_>>()?,
            quality: quality.of_means,
        })
    }

    /// The same along the learning curves, of the points that have it.
    pub(crate) fn measured_curve<const N: usize>(
        &self,
        model: usize,
        quality: &Quality<N>,
        cost: impl Fn(&CurvePoint) -> f64,
    ) -> Vec<Measured<N>> {
        let points = self.curve_points();
        let points = points.iter().filter_map(|seeds| {
            let of_seeds = seeds.iter().map(|p| (quality.of_point)(p));
            Some(Measured {
                model,
                cost: mean(seeds, |p| cost(p), |_| 0.0).0,
                figures: of_seeds.collect::<Option<_>>()?,
                quality: quality.of_means,
            })
        });
        points.collect()
    }
}

/// The mean over seeds and its standard error; see [`Model::mean`].
fn mean<T>(seeds: &[&T], value: impl Fn(&T) -> f64, error: impl Fn(&T) -> f64) -> (f64, f64) {
    let n = seeds.len() as f64;
    let mean = seeds.iter().map(|s| value(s)).sum::<f64>() / n;
    let text = seeds.iter().map(|s| error(s)).sum::<f64>() / n;
    let between = if n > 1.0 {
        let square: f64 = seeds.iter().map(|s| (value(s) - mean).powi(2)).sum();
        square / (n - 1.0) / n
    } else {
        0.0
    };
    (mean, (text * text + between).sqrt())
}

#[cfg(test)]
pub(crate) mod tests {
    use calm_records::WindowBrier;

    use super::*;
    use crate::record::{MadeWith, Scores};
    use crate::spec::{ProtocolConfig, SpeedConfig};

    /// A record with a point of the curve after each of these tokens, worth `brier_1`.
    pub(crate) fn cell(tokens: &[u64], brier_1: f64) -> CellRecord {
        let point = |&tokens: &u64| CurvePoint {
            tokens,
            train_flops: 10.0 * tokens as f64,
            train_seconds: 0.0,
            brier_1,
            brier_1_se: 0.0,
            window_brier: WindowBrier::All(vec![[brier_1; 4]; 2]),
            window_cross_entropy: None,
        };
        CellRecord {
            made_with: MadeWith {
                experiment: String::new(),
                protocol: ProtocolConfig {
                    windows: 2,
                    every: 1,
                    draws: 2,
                    token_draws: 1,
                    seed: 1,
                },
                speed: SpeedConfig {
                    batches: Vec::new(),
                    prompt_tokens: 1,
                    tokens: 2,
                    repetitions: 1,
                },
                device: String::new(),
                text: String::new(),
                host: Default::default(),
                loaded: None,
            },
            git_revision: None,
            model: "model".to_owned(),
            kind: CellKind::Baseline,
            seed: 1,
            chunk_size: 1,
            parameters: 1,
            train_tokens: 6,
            autoencoder_tokens: 0,
            train_flops: 60.0,
            train_flops_without_autoencoder: 60.0,
            train_seconds: 0.0,
            peak_rss_bytes: None,
            decoding_rss_bytes: None,
            infer_flops_per_token: 1.0,
            infer_flops_per_token_without_autoencoder: 1.0,
            cache_bytes_per_token: 1.0,
            scores: Scores {
                brier: [brier_1; 4],
                brier_se: [0.0; 4],
                covariance: Some([[0.0; 4]; 4]),
                brier_lm: 0.0,
                brier_lm_se: None,
                unigram: [0.0; 4],
                positions: 1,
                window_brier: WindowBrier::All(vec![[brier_1; 4]; 2]),
            },
            windows: 2,
            cross_entropy: None,
            window_cross_entropy: None,
            curve: tokens.iter().map(point).collect(),
            speed: Vec::new(),
        }
    }

    #[test]
    fn a_curve_averages_what_all_seeds_were_scored_after() {
        let cells = [cell(&[2, 4, 6], 0.1), cell(&[3, 4, 6], 0.3)];
        let model = &models(&cells)[0];
        let costs: Vec<f64> = model
            .curve(|p| p.train_flops)
            .iter()
            .map(|(point, _)| point.cost)
            .collect();
        assert_eq!(costs, [40.0, 60.0]);
        let measured = model.measured_curve(1, &BRIER_1, |p| p.train_flops);
        assert_eq!(measured[1].figures, [[[0.1]; 2], [[0.3]; 2]]);
        approx::assert_relative_eq!(measured[1].point().quality, 0.2, max_relative = 1e-12);
    }

    /// Three seeds as calm-k4 of 2026-11-25-compare-nano-long: one happens to have a positive Brier-4,
    /// their mean is negative. A mean of BrierLM cut off at 0 would read 0.040.
    #[test]
    fn brier_lm_over_seeds_is_that_of_the_mean_scores() {
        let seed = |brier: [f64; 4], brier_lm: f64| {
            let mut cell = cell(&[1], brier[0]);
            cell.scores.brier = brier;
            (cell.scores.brier_lm, cell.scores.brier_lm_se) = (brier_lm, None);
            cell
        };
        let k4 = [
            seed([0.0524, 0.00758, 0.000234, -1.26e-5], 0.0),
            seed([0.0568, 0.00833, 0.000427, 9.8e-6], 0.1186),
            seed([0.0630, 0.01007, 0.000067, -8.4e-6], 0.0),
        ];
        assert_eq!(models(&k4)[0].brier_lm(), (0.0, None));

        // Geometric mean of the means, with the spread of the seeds alone as its error:
        // the logarithm's is a quarter of the sum of the four relative errors, which move together.
        let pair = [
            seed([0.09, 0.09, 0.09, 0.09], 9.0),
            seed([0.11, 0.11, 0.11, 0.11], 11.0),
        ];
        let (value, error) = models(&pair)[0].brier_lm();
        approx::assert_relative_eq!(value, 10.0, max_relative = 1e-12);
        approx::assert_relative_eq!(error.unwrap(), 1.0, max_relative = 1e-12);
        // The text's covariance is shared: it adds as it is.
        let mut with_text = pair.clone();
        with_text
            .iter_mut()
            .for_each(|c| c.scores.covariance = Some([[3e-4; 4]; 4]));
        let (_, error) = models(&with_text)[0].brier_lm();
        approx::assert_relative_eq!(error.unwrap(), 2.0, max_relative = 1e-12);
        with_text[0].scores.covariance = None;
        assert_eq!(
            models(&with_text)[0].brier_lm().1,
            None,
            "not known is not 0"
        );
    }
}
