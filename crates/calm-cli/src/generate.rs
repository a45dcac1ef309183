//! `calm generate`: streams the continuation of a prompt.

use calm_baseline::{
    Drafter, ModelDrafter, PromptLookup, SpeculativeGenerator, TokenGenerator, TokenSampler,
};
use calm_data::Tokenizer;
use calm_likelihood_free::BatchSampler;
use calm_lm::{BaselineCheckpoint, Checkpoint, DEVICE_FORMS, GenerateOptions, Generator};
use calm_nn::Limits;

use burn::tensor::Device;

use crate::error::{CliError, Result};
use crate::model::{AnyCheckpoint, ModelArgs};
use crate::output::{print, tell};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Text to continue; given several times, a batch.
    #[arg(long, default_value = "")]
    prompt: Vec<String>,
    /// Temperature; for a CALM 1/n for a whole n, for a baseline any from 0 (greedy).
    #[arg(long, default_value_t = 0.5)]
    temperature: f64,
    /// Tokens to generate at most.
    #[arg(long, default_value_t = 200)]
    tokens: usize,
    /// CALM: draws per chunk below temperature 1 [default: 200].
    #[arg(long)]
    pool: Option<usize>,
    /// Seed of all draws.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, default_value = "flex", help = format!("The device: {DEVICE_FORMS}"))]
    device: String,
    #[command(flatten)]
    baseline: BaselineArgs,
}

/// What only a token model understands.
#[derive(clap::Args)]
struct BaselineArgs {
    /// Baseline: keep the K likeliest tokens.
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Baseline: keep the likeliest tokens that hold this probability.
    #[arg(long, value_name = "P")]
    top_p: Option<f64>,
    /// Baseline: speculative decoding; `lookup` takes proposals from the text so far, a directory
    /// is the checkpoint of a smaller baseline that makes them.
    #[arg(long, value_name = "lookup|DIR")]
    draft: Option<String>,
    /// Baseline: tokens proposed before each pass of the model, with --draft.
    #[arg(long, default_value_t = 4, value_name = "N", requires = "draft")]
    lookahead: usize,
}

pub fn run(args: Args) -> Result<()> {
    let device = calm_lm::open_device(&args.device)?;
    let (checkpoint, _) = args.model.open()?;
    let tokenizer = checkpoint.tokenizer();
    let prompts: Vec<Vec<u32>> = args
        .prompt
        .iter()
        .map(|p| tokenizer.encode(p))
        .collect::<std::result::Result<_, _>>()?;
    match &checkpoint {
        AnyCheckpoint::Calm(checkpoint) => calm(checkpoint, &prompts, &args, &device),
        AnyCheckpoint::Baseline(checkpoint) => baseline(checkpoint, &prompts, &args, &device),
    }
}

fn calm(checkpoint: &Checkpoint, prompts: &[Vec<u32>], args: &Args, device: &Device) -> Result<()> {
    let only = &args.baseline;
    if only.top_k.is_some() || only.top_p.is_some() || only.draft.is_some() {
        let message = "--top-k, --top-p and --draft need a token model; this is a CALM, which \
                       has no probabilities to cut (a run's baseline: --baseline)";
        return Err(CliError::Usage(message.to_owned()));
    }
    let sampler = BatchSampler::new(args.temperature, args.pool.unwrap_or(200))
        .map_err(calm_lm::Error::from)?;
    let tokenizer = checkpoint.tokenizer();
    let model = checkpoint.load(device)?;
    let options = GenerateOptions {
        sampler,
        max_tokens: args.tokens,
        end_of_text: tokenizer.end_of_text(),
        lead_in: checkpoint.lead_in(),
        seed: args.seed,
    };
    let mut generator = Generator::new(&model, checkpoint.config(), prompts, options, device)?;
    if prompts.len() > 1 {
        return print_all(&args.prompt, generator.run(), tokenizer);
    }
    stream(&args.prompt[0], tokenizer, || {
        (!generator.is_done()).then(|| generator.step().remove(0))
    })
}

fn baseline(
    checkpoint: &BaselineCheckpoint,
    prompts: &[Vec<u32>],
    args: &Args,
    device: &Device,
) -> Result<()> {
    if args.pool.is_some() {
        let message = "--pool is for a CALM; a token model needs no pool to lower the temperature";
        return Err(CliError::Usage(message.to_owned()));
    }
    let only = &args.baseline;
    let sampler = TokenSampler::new(args.temperature, only.top_k, only.top_p)?;
    let tokenizer = checkpoint.tokenizer();
    let model = checkpoint.load(device)?;
    let limits = Limits {
        window: checkpoint.config().window,
        max_tokens: args.tokens,
        end_of_text: tokenizer.end_of_text(),
    };
    let Some(draft) = &only.draft else {
        let mut generator =
            TokenGenerator::new(&model, sampler, limits, prompts, args.seed, device)
                .map_err(calm_lm::Error::from)?;
        if prompts.len() > 1 {
            return print_all(&args.prompt, generator.run(), tokenizer);
        }
        return stream(&args.prompt[0], tokenizer, || {
            (!generator.is_done()).then(|| generator.step().remove(0))
        });
    };
    if prompts.len() > 1 {
        let message = "--draft continues one prompt at a time";
        return Err(CliError::Usage(message.to_owned()));
    }
    let small = match draft.as_str() {
        "lookup" => None,
        path => {
            let small = BaselineCheckpoint::open(path.as_ref())?;
            calm_lm::check_tokenizer(&small.path("tokenizer.json"), tokenizer.fingerprint())?;
            Some((small.load(device)?, small.config().window))
        }
    };
    let drafter: Box<dyn Drafter + '_> = match &small {
        None => Box::new(PromptLookup::new(3)),
        Some((small, window)) => Box::new(ModelDrafter::new(
            small,
            sampler,
            limits.window.max(*window),
            device,
        )),
    };
    let (lookahead, prompt) = (only.lookahead, &prompts[0]);
    let mut generator = SpeculativeGenerator::new(
        &model, drafter, lookahead, sampler, limits, prompt, args.seed, device,
    )
    .map_err(calm_lm::Error::from)?;
    stream(&args.prompt[0], tokenizer, || {
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

fn print_all(prompts: &[String], texts: Vec<Vec<u32>>, tokenizer: &Tokenizer) -> Result<()> {
    for (prompt, tokens) in prompts.iter().zip(texts) {
        print(&format!("{prompt}{}\n\n", tokenizer.decode(&tokens)?))?;
    }
    Ok(())
}

/// Prints the prompt and what follows as it comes; `next` ends with `None`.
fn stream(
    prompt: &str,
    tokenizer: &Tokenizer,
    mut next: impl FnMut() -> Option<Vec<u32>>,
) -> Result<()> {
    print(prompt)?;
    let mut decoder = tokenizer.stream();
    while let Some(tokens) = next() {
        for token in tokens {
            if let Some(text) = decoder.push(token)? {
                print(&text)?;
            }
        }
    }
    if let Some(rest) = decoder.finish()? {
        print(&rest)?;
    }
    print("\n")
}
