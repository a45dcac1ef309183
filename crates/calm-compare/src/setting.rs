//! Where and on what a comparison is made.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use calm_data::{CacheDir, TokenStore, Tokenizer, unigram};
use calm_records::{RunDir, RunInfo};

use crate::spec::Cell;
use crate::{Event, Result};

/// Where and on what to compare.
#[derive(Debug)]
pub struct Options<'a> {
    /// The directory of the comparison.
    pub out: PathBuf,
    /// The device, without autodiff.
    pub device: &'a Device,
    /// Its string, for the records.
    pub device_name: &'a str,
    /// Machine and program, for the records of the runs.
    pub info: RunInfo,
    /// Where corpora and token streams are kept.
    pub cache: &'a CacheDir,
    /// Set to true to finish the step, save and stop.
    pub interrupt: &'a AtomicBool,
}

impl Options<'_> {
    /// The directory of a cell's record, and of its run where it is trained here.
    pub(crate) fn directory(&self, cell: &Cell) -> PathBuf {
        self.out.join("cells").join(cell.name())
    }

    /// The run that holds a cell's model.
    pub(crate) fn run(&self, cell: &Cell) -> Result<RunDir> {
        Ok(match &cell.loaded {
            Some(loaded) => RunDir::open(&loaded.run)?,
            None => RunDir::open(self.directory(cell))?,
        })
    }
}

/// The text that all cells see.
pub(crate) struct Text {
    pub store: TokenStore,
    /// How often each token occurs in the training text.
    pub unigram: Vec<u64>,
}

impl Text {
    pub(crate) fn prepare(
        cell: &Cell,
        options: &Options<'_>,
        observe: Observer<'_>,
    ) -> Result<Self> {
        let data = &cell.experiment.data;
        let vocab_size = cell.experiment.model.vocab_size;
        let mut forward = |event: calm_train::Event<'_>| observe(Event::Train(event));
        let tokenizer = match &cell.loaded {
            Some(_) => {
                Tokenizer::load(&options.run(cell)?.tokenizer()).map_err(calm_train::Error::from)?
            }
            None => calm_train::data::tokenizer(data, vocab_size, options.cache, &mut forward)?,
        };
        let (split, cache) = (data.split(), options.cache);
        let store = calm_train::data::token_store(data, &split, &tokenizer, cache, &mut forward)?;
        Ok(Self {
            unigram: unigram(store.train(), tokenizer.vocab_size()),
            store,
        })
    }
}

/// Receives events.
pub(crate) type Observer<'a> = &'a mut dyn FnMut(Event<'_>);
