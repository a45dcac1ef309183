//! `calm export`: a model in the form of the released code.

use std::path::PathBuf;

use calm_lm::{TokenIds, WeightNumbers, open_device};

use crate::error::Result;
use crate::import::{TOKEN_IDS, refuse_what_is_there};
use crate::model::ModelArgs;
use crate::output::print;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Where config.json, model.safetensors and the tokenizer are put; nothing may be there yet.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub fn run(args: Args) -> Result<()> {
    refuse_what_is_there(&args.out)?;
    let (checkpoint, _) = args.model.open()?;
    let checkpoint = checkpoint.with_weights(WeightNumbers::Verbatim);
    let model = checkpoint.load(&open_device("flex")?)?;
    let tokenizer = checkpoint.tokenizer().ok();
    let ids = match checkpoint.is_imported() {
        true => checkpoint.read_json(TOKEN_IDS)?,
        false => TokenIds::default(),
    };
    model.export(tokenizer, ids, &args.out)?;
    let beside = match args.out.join("autoencoder").is_dir() {
        true => " and autoencoder/, which config.json names by its full path",
        false => "",
    };
    print(&format!(
        "{}: config.json, model.safetensors{}{beside}\n",
        args.out.display(),
        if tokenizer.is_some() {
            ", tokenizer"
        } else {
            ""
        }
    ))
}
