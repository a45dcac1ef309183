//! `calm generate`: streams the continuation of a prompt.

use std::ops::Range;
use std::time::Instant;

use calm_baseline::{
    Drafter, ModelDrafter, PromptLookup, SpeculativeGenerator, TokenGenerator, TokenSampler,
};
use calm_data::Tokenizer;
use calm_eval::{Replica, on_each};
use calm_likelihood_free::{BatchSampler, ExactSampler, GrowingSampler, Otherwise, SamplerError};
use calm_lm::{
    CalmModel, Checkpoint, CheckpointConfig, CheckpointOf, ChunkSampler, GenerateOptions,
    Generator, ModelConfig, NamedDevice, Spent, WeightNumbers,
};
use calm_nn::{Limits, NextToken, mix};

use burn::tensor::Device;

use crate::devices::{DevicesArgs, replicas};
use crate::error::{CliError, Result};
use crate::model::{AnyCheckpoint, ModelArgs, WeightsArgs, no_language_model};
use crate::output::{print, tell};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Text to continue; given several times, a batch.
    #[arg(long, default_value = "")]
    prompt: Vec<String>,
    /// Temperature; for a CALM 1/n for a whole n, or with --exact any in (0, 1]; for a baseline or a
    /// CALM with a local decoder any from 0 (greedy).
    #[arg(long, default_value_t = 0.5)]
    temperature: f64,
    /// Tokens to generate at most.
    #[arg(long, default_value_t = 200)]
    tokens: usize,
    /// CALM: draws per chunk at most, below temperature 1; with --batch exactly as many [default: 200;
    /// with --exact 2000].
    #[arg(long)]
    pool: Option<usize>,
    /// CALM: sample by rejection, without bias but for the chunks that --pool draws don't suffice for:
    /// of these the batch rule chooses one.
    #[arg(long, conflicts_with = "batch")]
    exact: bool,
    /// CALM: the paper's batch rule, from --pool draws for every chunk; otherwise a pool grows until
    /// enough of it agrees, and the rule is corrected.
    #[arg(long)]
    batch: bool,
    /// CALM: draw the tokens of a vector from the decoder's probabilities instead of taking the most
    /// probable; for heads trained with model.objective.log.
    #[arg(long)]
    draw_tokens: bool,
    /// Seed of all draws. A CALM's texts of a batch depend on how many devices share it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    weights: WeightsArgs,
    #[command(flatten)]
    devices: DevicesArgs,
    #[command(flatten)]
    baseline: BaselineArgs,
}

/// What only a model with probabilities understands: a token model, or a local decoder.
#[derive(clap::Args)]
struct BaselineArgs {
    /// Baseline or local decoder: keep the K likeliest tokens.
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// The same: keep the likeliest tokens that hold this probability.
    #[arg(long, value_name = "P")]
    top_p: Option<f64>,
    /// The same: speculative decoding; `lookup` takes proposals from the text so far, a directory is
    /// the checkpoint of a cheaper baseline or local decoder that makes them.
    #[arg(long, value_name = "lookup|DIR")]
    draft: Option<String>,
    /// The same: tokens proposed before each pass of the model, with --draft.
    #[arg(long, default_value_t = 4, value_name = "N", requires = "draft")]
    lookahead: usize,
}

/// What generation took, told at its end.
struct Clock {
    begun: Instant,
    ready: Option<Instant>,
    first: Option<Instant>,
    /// Tokens, and how many of them came first.
    tokens: usize,
    at_first: usize,
}

impl Clock {
    fn start() -> Self {
        Self {
            begun: Instant::now(),
            ready: None,
            first: None,
            tokens: 0,
            at_first: 0,
        }
    }

    /// The model is in memory, or mapped.
    fn ready(&mut self) {
        self.ready = Some(Instant::now());
    }

    fn saw(&mut self, tokens: usize) {
        self.tokens += tokens;
        if self.first.is_none() && tokens > 0 {
            (self.first, self.at_first) = (Some(Instant::now()), tokens);
        }
    }

    fn tell(&self) {
        let (Some(ready), Some(first)) = (self.ready, self.first) else {
            return;
        };
        let seconds = |from: Instant, to: Instant| to.duration_since(from).as_secs_f64();
        let after = self.tokens - self.at_first;
        let rate = match after {
            0 => String::new(),
            _ => format!(
                ", then {:.1} tokens/s",
                after as f64 / seconds(first, Instant::now())
            ),
        };
        tell(&format!(
            "{} tokens: model opened in {:.2} s, first tokens {:.2} s later{rate}",
            self.tokens,
            seconds(self.begun, ready),
            seconds(ready, first)
        ));
    }
}

pub fn run(args: Args) -> Result<()> {
    let clock = &mut Clock::start();
    let mut devices = args.devices.open()?;
    let (checkpoint, _) = args.model.open()?;
    let checkpoint = checkpoint.with_weights(args.weights.numbers());
    if matches!(checkpoint, AnyCheckpoint::Autoencoder(_)) {
        return Err(no_language_model());
    }
    let tokenizer = checkpoint.tokenizer()?;
    // A token model of others saw texts begin as its tokenizer says; a CALM of theirs saw them plain.
    let of_others = matches!(checkpoint, AnyCheckpoint::Baseline(_)) && checkpoint.is_imported();
    let encode = |prompt: &String| match of_others {
        true => tokenizer.encode_beginning(prompt),
        false => tokenizer.encode(prompt),
    };
    let prompts: Vec<Vec<u32>> = args
        .prompt
        .iter()
        .map(encode)
        .collect::<std::result::Result<_, _>>()?;
    if devices.len() > 1 && prompts.len() < 2 {
        let message =
            "--devices share the prompts of a batch: give --prompt several times, or --device";
        return Err(CliError::Usage(message.to_owned()));
    }
    devices.truncate(prompts.len());
    match &checkpoint {
        AnyCheckpoint::Calm(checkpoint) if checkpoint.config().is_local() => {
            let models = replicas(&devices, |d| Ok(checkpoint.load_local(&d.device)?))?;
            let window = checkpoint.config().window;
            token_by_token(models, checkpoint, window, &prompts, &args, clock)
        }
        AnyCheckpoint::Calm(checkpoint) => calm(checkpoint, &devices, &prompts, &args, clock),
        AnyCheckpoint::Baseline(checkpoint) => {
            let models = replicas(&devices, |d| Ok(checkpoint.load(&d.device)?))?;
            let window = checkpoint.config().window;
            token_by_token(models, checkpoint, window, &prompts, &args, clock)
        }
        AnyCheckpoint::Autoencoder(_) => Err(no_language_model()),
    }
}

/// The prompts of part `i` of `parts`, which are no more than there are prompts.
fn share(prompts: &[Vec<u32>], i: usize, parts: usize) -> Range<usize> {
    i * prompts.len() / parts..(i + 1) * prompts.len() / parts
}

fn calm(
    checkpoint: &Checkpoint,
    devices: &[NamedDevice],
    prompts: &[Vec<u32>],
    args: &Args,
    clock: &mut Clock,
) -> Result<()> {
    let only = &args.baseline;
    if only.top_k.is_some() || only.top_p.is_some() || only.draft.is_some() {
        let message = "--top-k, --top-p and --draft need a token model; this is a CALM, which \
                       has no probabilities to cut (a run's baseline: --baseline)";
        return Err(CliError::Usage(message.to_owned()));
    }
    let sampler = sampler(args)?;
    let tokenizer = checkpoint.tokenizer()?;
    let models = replicas(devices, |d| Ok(checkpoint.load(&d.device)?))?;
    clock.ready();
    let options = |seed| GenerateOptions {
        sampler,
        max_tokens: args.tokens,
        end_of_text: tokenizer.end_of_text(),
        lead_in: checkpoint.lead_in(),
        seed,
    };
    fn start<'a>(
        replica: &'a Replica<CalmModel>,
        config: &ModelConfig,
        prompts: &[Vec<u32>],
        options: GenerateOptions<'_>,
        draw_tokens: bool,
    ) -> Result<Generator<'a>> {
        let (model, device, seed) = (&replica.model, &replica.device.device, options.seed);
        let generator = Generator::new(model, config, prompts, options, device)?;
        Ok(match draw_tokens {
            true => generator.drawing_tokens(seed),
            false => generator,
        })
    }
    let (config, draw_tokens) = (checkpoint.config(), args.draw_tokens);
    let spent = if let [_, _, ..] = prompts {
        let parts = models.len();
        let part = |i, replica| -> Result<_> {
            let seed = match i {
                0 => args.seed,
                i => mix(args.seed, i as u64),
            };
            let prompts = &prompts[share(prompts, i, parts)];
            let mut generator = start(&replica, config, prompts, options(seed), draw_tokens)?;
            let texts = generator.finish();
            Ok((texts, generator.spent()))
        };
        let parts: Result<Vec<_>> = on_each(models, part, || ())?.into_iter().collect();
        let (texts, spent): (Vec<_>, Vec<_>) = parts?.into_iter().unzip();
        print_all(&args.prompt, texts.concat(), tokenizer, clock)?;
        spent
            .into_iter()
            .fold(Spent::default(), |sum, part| sum + part)
    } else {
        let mut generator = start(&models[0], config, prompts, options(args.seed), draw_tokens)?;
        stream(&args.prompt[0], tokenizer, clock, || {
            (!generator.is_done()).then(|| generator.step().remove(0))
        })?;
        generator.spent()
    };
    let draws = format!(
        "{:.1} draws a chunk",
        spent.draws as f64 / spent.chunks.max(1) as f64
    );
    if args.exact {
        let (exact, chunks) = (spent.exact, spent.chunks);
        let rest = "the others chosen by the batch rule";
        tell(&format!(
            "{draws}; {exact} of {chunks} chunks accepted, {rest}"
        ));
    } else if args.temperature < 1.0 {
        tell(&draws);
    }
    Ok(())
}

fn sampler(args: &Args) -> Result<ChunkSampler> {
    let pool = |otherwise| args.pool.unwrap_or(otherwise);
    let temperature = args.temperature;
    let sampler = match (args.exact, args.batch) {
        (true, _) => ExactSampler::new(temperature, pool(2000), Otherwise::Batch).map(Into::into),
        (false, true) => BatchSampler::new(temperature, pool(200)).map(Into::into),
        (false, false) => GrowingSampler::new(temperature, pool(200)).map(Into::into),
    };
    sampler.map_err(|e| match e {
        SamplerError::NotReciprocal { .. } if args.temperature > 0.0 && args.temperature < 1.0 => {
            CliError::Usage(format!("{e}; --exact serves any above 0 and up to 1"))
        }
        e => calm_lm::Error::from(e).into(),
    })
}

/// A model with probabilities: a token model, or one with a local decoder.
fn token_by_token<M: NextToken + Send, C: CheckpointConfig>(
    models: Vec<Replica<M>>,
    checkpoint: &CheckpointOf<C>,
    window: usize,
    prompts: &[Vec<u32>],
    args: &Args,
    clock: &mut Clock,
) -> Result<()> {
    clock.ready();
    if args.pool.is_some() || args.exact || args.batch || args.draw_tokens {
        let message = "--pool, --exact, --batch and --draw-tokens are for a CALM without a local decoder; a model that has \
                       probabilities needs no pool to lower the temperature";
        return Err(CliError::Usage(message.to_owned()));
    }
    let only = &args.baseline;
    let sampler = TokenSampler::new(args.temperature, only.top_k, only.top_p)?;
    let tokenizer = checkpoint.tokenizer()?;
    let limits = Limits {
        window,
        max_tokens: args.tokens,
        end_of_text: tokenizer.end_of_text(),
    };
    let (lead_in, seed) = (checkpoint.lead_in(), args.seed);
    fn start<'a, M: NextToken>(
        replica: &'a Replica<M>,
        sampler: TokenSampler,
        limits: Limits,
        lead_in: &[u32],
        prompts: &[Vec<u32>],
        seed: u64,
    ) -> Result<TokenGenerator<'a, M>> {
        let (model, device) = (&replica.model, &replica.device.device);
        let generator = TokenGenerator::new(model, sampler, limits, lead_in, prompts, seed, device);
        Ok(generator.map_err(calm_lm::Error::from)?)
    }
    if only.draft.is_some() && prompts.len() > 1 {
        let message = "--draft continues one prompt at a time";
        return Err(CliError::Usage(message.to_owned()));
    }
    if prompts.len() > 1 {
        let parts = models.len();
        let part = |i, replica| -> Result<_> {
            let rows = share(prompts, i, parts);
            let (first, prompts) = (rows.start, &prompts[rows]);
            let generator = start(&replica, sampler, limits, lead_in, prompts, seed)?;
            Ok(generator.as_rows_from(first, seed).run())
        };
        let texts: Result<Vec<_>> = on_each(models, part, || ())?.into_iter().collect();
        return print_all(&args.prompt, texts?.concat(), tokenizer, clock);
    }
    let Some(draft) = &only.draft else {
        let mut generator = start(&models[0], sampler, limits, lead_in, prompts, seed)?;
        return stream(&args.prompt[0], tokenizer, clock, || {
            (!generator.is_done()).then(|| generator.step().remove(0))
        });
    };
    let (model, device) = (&models[0].model, &models[0].device.device);
    let numbers = args.weights.numbers();
    let drafter = drafter(draft, sampler, window, tokenizer, numbers, device)?;
    let (lookahead, prompt) = (only.lookahead, &prompts[0]);
    let mut generator = SpeculativeGenerator::new(
        model, drafter, lookahead, sampler, limits, prompt, args.seed, device,
    )
    .map_err(calm_lm::Error::from)?;
    stream(&args.prompt[0], tokenizer, clock, || {
        generator.stop().is_none().then(|| generator.step())
    })?;
    let stats = generator.stats();
    tell(&format!(
        "{} tokens in {} passes of the model ({:.2} a token) and {} of the draft; {} of {} \
         proposals accepted ({:.0} %)",
        stats.tokens,
        stats.target_passes,
        stats.steps_per_token(),
        stats.draft_passes,
        stats.accepted,
        stats.proposed,
        100.0 * stats.acceptance()
    ));
    Ok(())
}

/// What proposes: the text so far, or a cheaper model in a checkpoint, which is kept until the program
/// ends.
fn drafter<'a>(
    draft: &str,
    sampler: TokenSampler,
    window: usize,
    tokenizer: &Tokenizer,
    numbers: WeightNumbers,
    device: &'a Device,
) -> Result<Box<dyn Drafter + 'a>> {
    fn over<'a, M: NextToken + 'static>(
        model: M,
        sampler: TokenSampler,
        window: usize,
        device: &'a Device,
    ) -> Box<dyn Drafter + 'a> {
        Box::new(ModelDrafter::new(
            Box::leak(Box::new(model)),
            sampler,
            window,
            device,
        ))
    }
    if draft == "lookup" {
        return Ok(Box::new(PromptLookup::new(3)));
    }
    let checkpoint = AnyCheckpoint::open(draft.as_ref())?.with_weights(numbers);
    let path = checkpoint.directory().join("tokenizer.json");
    calm_lm::check_tokenizer(&path, tokenizer.fingerprint())?;
    match checkpoint {
        AnyCheckpoint::Calm(small) if small.config().is_local() => {
            let window = window.max(small.config().window);
            Ok(over(small.load_local(device)?, sampler, window, device))
        }
        AnyCheckpoint::Calm(_) | AnyCheckpoint::Autoencoder(_) => Err(CliError::Usage(
            "--draft needs a model that knows its own probabilities: a token baseline, or a CALM \
             with a local decoder"
                .to_owned(),
        )),
        AnyCheckpoint::Baseline(small) => {
            let window = window.max(small.config().window);
            Ok(over(small.load(device)?, sampler, window, device))
        }
    }
}

fn print_all(
    prompts: &[String],
    texts: Vec<Vec<u32>>,
    tokenizer: &Tokenizer,
    clock: &mut Clock,
) -> Result<()> {
    // They come together.
    clock.saw(texts.iter().map(Vec::len).sum());
    clock.tell();
    for (prompt, tokens) in prompts.iter().zip(texts) {
        print(&format!("{prompt}{}\n\n", tokenizer.decode(&tokens)?))?;
    }
    Ok(())
}

/// Prints the prompt and what follows as it comes; `next` ends with `None`.
fn stream(
    prompt: &str,
    tokenizer: &Tokenizer,
    clock: &mut Clock,
    mut next: impl FnMut() -> Option<Vec<u32>>,
) -> Result<()> {
    print(prompt)?;
    let mut decoder = tokenizer.stream();
    while let Some(tokens) = next() {
        clock.saw(tokens.len());
        for token in tokens {
            if let Some(text) = decoder.push(token)? {
                print(&text)?;
            }
        }
    }
    if let Some(rest) = decoder.finish()? {
        print(&rest)?;
    }
    print("\n")?;
    clock.tell();
    Ok(())
}
