//! `calm generate`: streams the continuation of a prompt.

use calm_data::Tokenizer;
use calm_likelihood_free::BatchSampler;
use calm_lm::{DEVICE_FORMS, GenerateOptions, Generator};

use crate::error::Result;
use crate::model::ModelArgs;
use crate::output::print;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Text to continue; given several times, a batch.
    #[arg(long, default_value = "")]
    prompt: Vec<String>,
    /// Temperature, 1/n for a whole n.
    #[arg(long, default_value_t = 0.5)]
    temperature: f64,
    /// Tokens to generate at most.
    #[arg(long, default_value_t = 200)]
    tokens: usize,
    /// Draws per chunk below temperature 1.
    #[arg(long, default_value_t = 200)]
    pool: usize,
    /// Seed of all draws.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, default_value = "flex", help = format!("The device: {DEVICE_FORMS}"))]
    device: String,
}

pub fn run(args: Args) -> Result<()> {
    let sampler = BatchSampler::new(args.temperature, args.pool).map_err(calm_lm::Error::from)?;
    let device = calm_lm::open_device(&args.device)?;
    let (checkpoint, _) = args.model.open()?;
    let tokenizer = checkpoint.tokenizer();
    let prompts: Vec<Vec<u32>> = args
        .prompt
        .iter()
        .map(|p| tokenizer.encode(p))
        .collect::<std::result::Result<_, _>>()?;
    let model = checkpoint.load(&device)?;
    let options = GenerateOptions {
        sampler,
        max_tokens: args.tokens,
        end_of_text: tokenizer.end_of_text(),
        seed: args.seed,
    };
    let generator = Generator::new(&model, checkpoint.config(), &prompts, options, &device)?;
    if prompts.len() == 1 {
        return stream(generator, &args.prompt[0], tokenizer);
    }
    for (prompt, tokens) in args.prompt.iter().zip(generator.run()) {
        print(&format!("{prompt}{}\n\n", tokenizer.decode(&tokens)?))?;
    }
    Ok(())
}

fn stream(mut generator: Generator<'_>, prompt: &str, tokenizer: &Tokenizer) -> Result<()> {
    print(prompt)?;
    let mut decoder = tokenizer.stream();
    while !generator.is_done() {
        for token in generator.step().remove(0) {
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
