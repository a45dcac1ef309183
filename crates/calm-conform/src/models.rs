//! Whole models with weights of a seed: forward, backward, text, checkpoints.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use calm_baseline::{TokenGenerator, TokenModel, TokenSampler, score_window};
use calm_likelihood_free::{BatchSampler, GenerativeHead};
use calm_lm::{
    BaselineCheckpoint, CalmModel, Checkpoint, CheckpointWriter, GenerateOptions, Generator,
    LocalModel, WeightNumbers,
};
use calm_nn::{HostDraws, Limits, NextToken, RandomStream, chunk_tensor};
use calm_train::{Experiment, preset};

use crate::case::{Check, Part};
use crate::{Error, Outputs};

/// A model small enough for a software driver, on preset `debug`; a case's changes come after.
const SMALL: [&str; 13] = [
    "model.vocab_size=37",
    "model.window=16",
    "model.latent_size=6",
    "model.autoencoder.hidden_size=16",
    "model.autoencoder.intermediate_size=20",
    "model.backbone.hidden_size=16",
    "model.backbone.intermediate_size=24",
    "model.head.noise_size=5",
    "model.head.samples=4",
    "model.head.posterior_samples=6",
    "baseline.transformer.hidden_size=16",
    "baseline.transformer.intermediate_size=24",
    "baseline.init_std=0.3",
];

/// Tokens of the vocabulary of [`SMALL`] that are words; the one above ends a text.
const WORDS: usize = 36;

/// The changes of a case after those that make it small.
pub(crate) fn resolve(set: &[String]) -> Result<Experiment, Error> {
    let all: Vec<String> = SMALL
        .into_iter()
        .map(str::to_owned)
        .chain(set.iter().cloned())
        .collect();
    Ok(preset::resolve("debug", &all)?)
}

/// A case on `device`.
pub(crate) fn run(
    part: Part,
    check: Check,
    set: &[String],
    device: &Device,
) -> Result<Outputs, Error> {
    let experiment = resolve(set)?;
    let build = |device: &Device| Model::new(part, &experiment, device);
    match check {
        Check::Forward => build(device).forward(&experiment, device),
        Check::Gradients => Ok(build(device).gradients(device)),
        Check::Text => build(device).text(&experiment, device),
        Check::Move | Check::Checkpoint => {
            let flex = Device::flex();
            let mut outputs = Outputs::default();
            for (way, from, to) in [("there", &flex, device), ("back", device, &flex)] {
                let moved = match check {
                    Check::Move => build(from).on(to),
                    _ => stored(part, &experiment, from, to, WeightNumbers::F32, check)?,
                };
                let found = moved.forward(&experiment, to)?;
                let named = found.0.into_iter();
                outputs
                    .0
                    .extend(named.map(|(name, x)| (format!("{way}: {name}"), x)));
            }
            Ok(outputs)
        }
        Check::ShortWeights => {
            let mut outputs = Outputs::default();
            for (name, numbers) in [("bf16", WeightNumbers::Bf16), ("int8", WeightNumbers::Int8)] {
                let model = stored(part, &experiment, &Device::flex(), device, numbers, check)?;
                let found = model.forward(&experiment, device)?;
                let named = found.0.into_iter();
                outputs
                    .0
                    .extend(named.map(|(output, x)| (format!("{name}: {output}"), x)));
            }
            Ok(outputs)
        }
    }
}

/// A model that was written on one device and read on the other.
fn stored(
    part: Part,
    experiment: &Experiment,
    from: &Device,
    to: &Device,
    numbers: WeightNumbers,
    check: Check,
) -> Result<Model, Error> {
    let place = tempfile::tempdir().map_err(Error::Place)?;
    let path = place.path().join("checkpoint");
    let config = &experiment.model;
    match Model::new(part, experiment, from) {
        Model::Calm(model) => {
            let writer = CheckpointWriter::new(&path, config, None)?;
            writer.write_autoencoder(model.autoencoder)?;
            writer.write_language_model(model.language_model)?;
            writer.finish()?;
            let checkpoint = Checkpoint::open(&path)?.with_weights(numbers);
            Ok(Model::Calm(checkpoint.load(to)?))
        }
        Model::Local(model) => {
            let writer = CheckpointWriter::new(&path, config, None)?;
            writer.write_local_model(model)?;
            writer.finish()?;
            let checkpoint = Checkpoint::open(&path)?.with_weights(numbers);
            Ok(Model::Local(checkpoint.load_local(to)?))
        }
        Model::Token(model) => {
            let writer = CheckpointWriter::new(&path, &experiment.token_model(), None)?;
            writer.write_token_model(model)?;
            writer.finish()?;
            let checkpoint = BaselineCheckpoint::open(&path)?.with_weights(numbers);
            Ok(Model::Token(checkpoint.load(to)?))
        }
        Model::Autoencoder(_) => Err(Error::NoSuchCheck(part, check)),
    }
}

#[allow(clippy::large_enum_variant)] // There is one of these at a time.
enum Model {
    /// A CALM whose autoencoder is looked at.
    Autoencoder(CalmModel),
    Calm(CalmModel),
    Local(LocalModel),
    Token(TokenModel),
}

/// A model whose every parameter is random: what begins at zero or one would hide what comes before it.
fn stirred<M: Module>(model: M) -> M {
    struct Stir(RandomStream);
    impl ModuleMapper for Stir {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| {
                let values = self.0.normal(tensor.shape().num_elements());
                let data = TensorData::new(values, tensor.shape());
                let device = tensor.device();
                tensor + Tensor::from_data(data, &device) * 0.15
            })
        }
    }
    model.map(&mut Stir(RandomStream::new(4)))
}

fn tokens(n: usize) -> Vec<u32> {
    let mut stream = RandomStream::new(8);
    (0..n).map(|_| stream.below(WORDS) as u32).collect()
}

impl Model {
    fn new(part: Part, experiment: &Experiment, device: &Device) -> Self {
        match part {
            Part::Autoencoder => Self::Autoencoder(stirred(experiment.model.init(3, device))),
            Part::Calm => Self::Calm(stirred(experiment.model.init(3, device))),
            Part::Local => Self::Local(stirred(experiment.model.init_local(5, device))),
            Part::Token => Self::Token(stirred(experiment.token_model().init(5, device))),
        }
    }

    /// On another device.
    fn on(self, device: &Device) -> Self {
        let calm = |model: CalmModel| CalmModel {
            autoencoder: model.autoencoder.to_device(device),
            language_model: model.language_model.to_device(device),
        };
        match self {
            Self::Autoencoder(model) => Self::Autoencoder(calm(model)),
            Self::Calm(model) => Self::Calm(calm(model)),
            Self::Local(model) => Self::Local(model.to_device(device)),
            Self::Token(model) => Self::Token(model.to_device(device)),
        }
    }

    fn forward(&self, experiment: &Experiment, device: &Device) -> Result<Outputs, Error> {
        let mut outputs = Outputs::default();
        let k = experiment.model.chunk_size;
        match self {
            Self::Autoencoder(model) => {
                let chunks = chunk_tensor(&tokens(12 * k), 12, k, device).reshape([12, k]);
                let posterior = model.autoencoder.encode(chunks);
                let logits = model.autoencoder.logits(posterior.mean.clone());
                outputs.add_tensor("mean", posterior.mean);
                outputs.add_tensor("log_std", posterior.log_std);
                outputs.add_tensor("logits", logits);
            }
            Self::Calm(model) => {
                let batch = chunk_tensor(&tokens(32), 2, k, device);
                let hidden = model.language_model.backbone.forward(batch);
                let [batch, steps, d] = hidden.dims();
                let flat = hidden.clone().reshape([batch * steps, d]);
                let head = &model.language_model.head;
                let samples = head.sample(flat, 3, &mut HostDraws::new(1));
                outputs.add_tensor("hidden", hidden);
                outputs.add_tensor("samples", samples);
            }
            Self::Local(model) => scores(model, k, device, &mut outputs),
            Self::Token(model) => scores(model, k, device, &mut outputs),
        }
        Ok(outputs)
    }

    fn gradients(self, device: &Device) -> Outputs {
        let autodiff = device.clone().autodiff();
        let windows = || chunk_tensor(&tokens(32), 2, 1, &autodiff).squeeze_dim::<2>(2);
        match self {
            Self::Autoencoder(model) => {
                let k = model.autoencoder.chunk_size();
                let chunks = windows().reshape([32 / k, k]);
                let autoencoder = model.autoencoder.train();
                let loss = autoencoder.loss(chunks, &mut HostDraws::new(3)).total;
                with_gradients(&autoencoder, loss)
            }
            Self::Calm(model) => {
                let k = model.autoencoder.chunk_size();
                let batch = chunk_tensor(&tokens(32), 2, k, &autodiff);
                let lm = model.language_model.train();
                let mut draws = HostDraws::new(2);
                let loss = lm.loss(&model.autoencoder, batch, &mut draws).total;
                with_gradients(&lm, loss)
            }
            Self::Local(model) => {
                let model = model.train();
                let loss = model.loss(windows());
                with_gradients(&model, loss)
            }
            Self::Token(model) => {
                let model = model.train();
                let loss = model.loss(windows());
                with_gradients(&model, loss)
            }
        }
    }

    /// Two texts by recorded draws, past the window of those that allow it.
    fn text(&self, experiment: &Experiment, device: &Device) -> Result<Outputs, Error> {
        let prompts = [tokens(3), tokens(8)];
        let mut outputs = Outputs::default();
        let mut add = |name: &str, texts: Vec<Vec<u32>>| {
            for (i, text) in texts.into_iter().enumerate() {
                let numbers = text.into_iter().map(|token| token as f32).collect();
                outputs.add(format!("{name}, text {i}"), numbers);
            }
        };
        match self {
            Self::Calm(model) => {
                let sampler = BatchSampler::new(0.5, 8).expect("a temperature of 1/2");
                let options = GenerateOptions {
                    sampler: sampler.into(),
                    max_tokens: 12,
                    end_of_text: WORDS as u32,
                    lead_in: &[],
                    seed: 2,
                };
                let config = &experiment.model;
                let generator = Generator::new(model, config, &prompts, options, device);
                add("T = 1/2", generator?.run());
            }
            Self::Local(model) => {
                add("greedy", greedy(model, &prompts, device)?);
            }
            Self::Token(model) => {
                add("greedy", greedy(model, &prompts, device)?);
            }
            Self::Autoencoder(_) => {
                return Err(Error::NoSuchCheck(Part::Autoencoder, Check::Text));
            }
        }
        Ok(outputs)
    }
}

/// Two greedy texts of 24 tokens in a window of 16.
fn greedy<M: NextToken>(
    model: &M,
    prompts: &[Vec<u32>],
    device: &Device,
) -> Result<Vec<Vec<u32>>, Error> {
    let limits = Limits {
        window: 16,
        max_tokens: 24,
        end_of_text: WORDS as u32,
    };
    let (sampler, lead_in) = (TokenSampler::greedy(), [1, WORDS as u32]);
    let generator = TokenGenerator::new(model, sampler, limits, &lead_in, prompts, 0, device);
    Ok(generator.map_err(|e| Error::Prompt(e.to_string()))?.run())
}

/// Surprisals of a window, and its Brier-1 scores, which are exact. Longer n-grams are drawn: a draw near
/// a border may fall on either side of it.
fn scores<M: NextToken>(model: &M, k: usize, device: &Device, outputs: &mut Outputs) {
    let draws = &mut HostDraws::new(6);
    let scores = score_window(model, &tokens(16), k, 4, draws, device);
    outputs.add(
        "surprisal",
        scores.surprisal.iter().map(|&x| x as f32).collect(),
    );
    let brier = scores.brier.iter().map(|scores| scores[0] as f32);
    outputs.add("Brier-1", brier.collect());
}

/// A loss and the gradients of all parameters, by their paths.
fn with_gradients<M: Module>(module: &M, loss: Tensor<1>) -> Outputs {
    struct Gradients<'a> {
        of: &'a GradientsParams,
        path: Vec<String>,
        outputs: Outputs,
    }
    impl ModuleVisitor for Gradients<'_> {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.path.push(name.to_owned());
        }

        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            // What has none says so by its length.
            let gradient = self.of.get::<D>(param.id);
            let numbers = gradient.map(|gradient| gradient.into_data().iter().collect());
            self.outputs
                .add(self.path.join("."), numbers.unwrap_or_default());
        }
    }
    let mut outputs = Outputs::default();
    outputs.add_tensor("loss", loss.clone());
    let gradients = GradientsParams::from_grads(loss.backward(), module);
    let mut visitor = Gradients {
        of: &gradients,
        path: Vec::new(),
        outputs,
    };
    module.visit(&mut visitor);
    visitor.outputs
}
