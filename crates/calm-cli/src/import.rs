//! `calm import`: a released checkpoint becomes a checkpoint directory of ours.

use std::path::{Path, PathBuf};
use std::time::Instant;

use calm_data::Tokenizer;
use calm_lm::{AnyModel, ReleasedConfig, open_device};
use calm_nn::Cost;

use crate::error::{CliError, Result};
use crate::output::{print, tell};

/// Where a checkpoint keeps the ids that the released configuration named, for its export.
pub const TOKEN_IDS: &str = "token_ids.json";

#[derive(clap::Args)]
pub struct Args {
    /// The directory of a released checkpoint: config.json, and weights as model.safetensors or
    /// pytorch_model.bin, single or in shards. Or hf:OWNER/NAME, or hf:OWNER/NAME@REVISION, from the hub at HF_ENDPOINT
    /// [default: Hugging Face's] with the token in HF_TOKEN.
    #[arg(value_name = "SRC")]
    source: String,
    /// Where the checkpoint is put, for --model; nothing may be there yet.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The released autoencoder of a CALM whose file has none inside, or to be taken instead of it; a
    /// directory, or hf:OWNER/NAME.
    #[arg(long, value_name = "DIR")]
    autoencoder: Option<String>,
    /// A tokenizer.json or its directory [default: the source's, if it has one].
    #[arg(long, value_name = "FILE|DIR")]
    tokenizer: Option<PathBuf>,
}

pub fn run(args: Args) -> Result<()> {
    refuse_what_is_there(&args.out)?;
    let source = directory(&args.source)?;
    let autoencoder = args.autoencoder.as_deref().map(directory).transpose()?;
    let start = Instant::now();
    let ids = ReleasedConfig::read(&source)?.token_ids();
    let own = source.join("tokenizer.json");
    let (path, asked) = match args.tokenizer {
        Some(path) => (Some(path), true),
        None => (own.is_file().then_some(own), false),
    };
    // One that was asked for must fit; without the source's own the model is of use too.
    let usable = |tokenizer: calm_data::Result<Tokenizer>| match tokenizer {
        Err(error) if !asked => {
            tell(&format!("{error}; importing without it"));
            Ok(None)
        }
        tokenizer => tokenizer.map(Some),
    };
    let tokenizer = path.map(|path| usable(Tokenizer::load_with_end(&path, ids.eos)));
    let tokenizer = tokenizer.transpose()?.flatten();
    // Files are read and written on the CPU, whatever the model runs on later.
    let device = open_device("flex")?;
    let model = AnyModel::import(&source, autoencoder.as_deref(), &device)?;
    let fits = tokenizer.map(|tokenizer| usable(tokenizer.for_vocabulary(model.vocab_size())));
    let tokenizer = fits.transpose()?.flatten();
    let words = in_words(&model);
    let writer = model.writer(&args.out, tokenizer.as_ref())?;
    writer.write_json(TOKEN_IDS, &ids)?;
    writer.finish()?;
    let tokens = match &tokenizer {
        Some(_) => "",
        None => "no tokenizer came with it: --tokenizer FILE names one to generate and eval\n",
    };
    print(&format!(
        "{words}\nread and written to {} in {:.1} s\n{tokens}",
        args.out.display(),
        start.elapsed().as_secs_f64()
    ))
}

/// Where a model's files are, fetched first where a hub has them.
fn directory(source: &str) -> Result<PathBuf> {
    match source.strip_prefix("hf:") {
        Some(name) => fetch(name),
        None => Ok(source.into()),
    }
}

#[cfg(feature = "hub")]
fn fetch(name: &str) -> Result<PathBuf> {
    use calm_weights::hub::{Hub, HubModel};

    let model = HubModel::parse(name).map_err(CliError::Usage)?;
    let mut bars = crate::progress::Progress::new();
    let found = Hub::from_env().fetch(&model, &mut |file, done, size| {
        bars.bytes(file, done, size);
    });
    bars.finish_bar();
    found.map_err(|e| CliError::Usage(e.to_string()))
}

#[cfg(not(feature = "hub"))]
fn fetch(name: &str) -> Result<PathBuf> {
    Err(CliError::Usage(format!(
        "hf:{name}: this program was built without access to hubs; run `cargo xtask import`, or build \
         it with --features hub"
    )))
}

/// An import replaces nothing.
pub fn refuse_what_is_there(out: &Path) -> Result<()> {
    let empty = match std::fs::read_dir(out) {
        Ok(mut entries) => entries.next().is_none(),
        Err(_) => !out.exists(),
    };
    match empty {
        true => Ok(()),
        false => Err(CliError::Usage(format!(
            "{}: something is there already; name a directory that is new or empty",
            out.display()
        ))),
    }
}

/// What was imported.
fn in_words(model: &AnyModel) -> String {
    let million = |parameters: u64| match parameters {
        0..1_000_000 => format!("{:.1} k", parameters as f64 / 1e3),
        _ => format!("{:.1} M", parameters as f64 / 1e6),
    };
    match model {
        AnyModel::Autoencoder(c, _) => format!(
            "an autoencoder: K = {}, l = {}, V = {}, {} parameters",
            c.chunk_size,
            c.latent_size,
            c.vocab_size,
            million(c.parameters())
        ),
        AnyModel::Calm(c, _) => format!(
            "a CALM with {} head: K = {}, l = {}, V = {}, {} layers of width {}, {} parameters and \
             {} of the autoencoder",
            match c.head.kind {
                calm_lm::HeadKind::Energy => "an energy",
                calm_lm::HeadKind::Flow => "a flow-matching",
                calm_lm::HeadKind::Diffusion => "a diffusion",
            },
            c.chunk_size,
            c.latent_size,
            c.vocab_size,
            c.backbone.layers,
            c.backbone.hidden_size,
            million(c.language_model_parameters()),
            million(c.autoencoder().parameters())
        ),
        AnyModel::TokenModel(c, _) => format!(
            "a token model: V = {}, {} layers of width {}, {} parameters",
            c.vocab_size,
            c.transformer.layers,
            c.transformer.hidden_size,
            million(c.parameters())
        ),
    }
}
