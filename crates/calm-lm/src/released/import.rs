//! Reading a released checkpoint: every tensor of it is accounted for, or nothing is made.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use burn::module::Param;
use burn::tensor::{Device, Element, Tensor, TensorData};
use calm_nn::Init;
use calm_weights::{Dtype, Tensor as Stored, TensorFiles, printable};
use half::{bf16, f16};

use super::config::{ReleasedConfig, Sizes};
use super::names::{
    self, AUTOENCODER, DECODER_TABLE, ENCODER_TABLE, Exchange, HEAD, HEAD_TOO, OUTPUT, TOKEN_NORM,
    TOKEN_TABLE,
};
use crate::{AnyModel, Error, Result};

/// [`AnyModel::import`].
pub fn import(directory: &Path, autoencoder: Option<&Path>, device: &Device) -> Result<AnyModel> {
    let config = ReleasedConfig::read(directory)?;
    let files = Released::open(directory)?;
    let Some(kind) = files.kind() else {
        let some: Vec<_> = files.tensors.keys().take(3).map(String::as_str).collect();
        let detail = format!(
            "no autoencoder, CALM or LLaMA model by the names of its tensors ({}, ..)",
            some.join(", ")
        );
        return Err(files.refused(detail));
    };
    if kind != Kind::Calm && autoencoder.is_some() {
        let detail = format!("{kind}, which needs no autoencoder beside it");
        return Err(files.refused(detail));
    }
    let sizes = Sizes::new(&files.tensors);
    match kind {
        Kind::Autoencoder => {
            let sized = config.autoencoder(&sizes, "");
            let sized = sized.map_err(|e| files.refused(e))?;
            let mut model = sized.init(&mut Init::unloaded(device));
            files.fill(device, &mut |x| names::autoencoder(x, "", &mut model))?;
            Ok(AnyModel::Autoencoder(sized, model))
        }
        Kind::TokenModel => {
            let sized = config.token_model(&sizes);
            let sized = sized.map_err(|e| files.refused(e))?;
            let mut model = sized.unloaded(device);
            files.fill(device, &mut |x| names::token_model(x, &mut model))?;
            Ok(AnyModel::TokenModel(sized, model))
        }
        Kind::Calm => files.calm(&config, autoencoder, device),
    }
}

/// What released files hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Autoencoder,
    Calm,
    TokenModel,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Autoencoder => "an autoencoder",
            Self::Calm => "a CALM",
            Self::TokenModel => "a token model",
        })
    }
}

/// The tensors of a released checkpoint, each under one name.
struct Released {
    path: std::path::PathBuf,
    tensors: BTreeMap<String, Stored>,
    /// Names whose tensor stands a second time under the other name, which is to hold the same.
    twins: Vec<(String, Stored)>,
}

impl Released {
    fn open(directory: &Path) -> Result<Self> {
        let files = TensorFiles::open(directory)?;
        let (mut tensors, mut twins) = (BTreeMap::new(), Vec::new());
        for (name, tensor) in files.iter() {
            // Rotary frequencies, which old files keep beside the weights: they follow from theta.
            if name.ends_with("rotary_emb.inv_freq") {
                continue;
            }
            let head = name
                .strip_prefix(HEAD_TOO)
                .filter(|rest| rest.starts_with('.'));
            let told = head.map_or_else(|| name.to_owned(), |rest| format!("{HEAD}{rest}"));
            if told != name && files.get(&told).is_some() {
                twins.push((told, tensor.clone()));
            } else {
                tensors.insert(told, tensor.clone());
            }
        }
        for prefix in ["", AUTOENCODER] {
            if let Some(table) = tensors.remove(&format!("{prefix}{DECODER_TABLE}")) {
                twins.push((format!("{prefix}{ENCODER_TABLE}"), table));
            }
        }
        // Of a tied output layer a file may hold the one name or the other.
        if !tensors.contains_key(TOKEN_TABLE)
            && tensors.contains_key(TOKEN_NORM)
            && let Some(output) = tensors.remove(OUTPUT)
        {
            tensors.insert(TOKEN_TABLE.to_owned(), output);
        }
        twins.retain(|(name, twin)| {
            let alone = !tensors.contains_key(name);
            if alone {
                tensors.insert(name.clone(), twin.clone());
            }
            !alone
        });
        let path = files.path().to_owned();
        Ok(Self {
            path,
            tensors,
            twins,
        })
    }

    fn kind(&self) -> Option<Kind> {
        let has = |name: &str| self.tensors.contains_key(name);
        if has("embed_proj.0.weight") {
            Some(Kind::Calm)
        } else if has(TOKEN_TABLE) {
            Some(Kind::TokenModel)
        } else {
            has(ENCODER_TABLE).then_some(Kind::Autoencoder)
        }
    }

    fn refused(&self, detail: String) -> Error {
        Error::Import {
            path: self.path.clone(),
            detail: printable(&detail),
        }
    }

    fn calm(
        mut self,
        config: &ReleasedConfig,
        autoencoder: Option<&Path>,
        device: &Device,
    ) -> Result<AnyModel> {
        let inside = format!("{AUTOENCODER}{ENCODER_TABLE}");
        let of_it = match autoencoder {
            Some(directory) => {
                // The one in the file, if any, is not the one that is asked for.
                self.tensors
                    .retain(|name, _| !name.starts_with(AUTOENCODER));
                self.twins
                    .retain(|(name, _)| !name.starts_with(AUTOENCODER));
                match import(directory, None, device)? {
                    AnyModel::Autoencoder(config, model) => Some((config, model)),
                    _ => {
                        let detail = "no autoencoder, as --autoencoder needs one".to_owned();
                        let path = directory.to_owned();
                        return Err(Error::Import { path, detail });
                    }
                }
            }
            None if self.tensors.contains_key(&inside) => None,
            None => {
                let detail = "a CALM without its autoencoder; give the directory of one \
                              (--autoencoder)";
                return Err(self.refused(detail.to_owned()));
            }
        };
        let sizes = Sizes::new(&self.tensors);
        let (sized, given) = match of_it {
            Some((config, model)) => (config, Some(model)),
            None => {
                let config = config.of_the_autoencoder_inside();
                let sized = config.autoencoder(&sizes, AUTOENCODER);
                (sized.map_err(|e| self.refused(e))?, None)
            }
        };
        let config = config.calm(&sizes, sized).map_err(|e| self.refused(e))?;
        let mut model = config.unloaded(device);
        self.fill(device, &mut |x| {
            if given.is_none() {
                names::autoencoder(x, AUTOENCODER, &mut model.autoencoder);
            }
            names::backbone(x, &mut model.language_model.backbone);
            names::head(x, &mut model.language_model.head);
        })?;
        if let Some(given) = given {
            model.autoencoder = given;
        }
        Ok(AnyModel::Calm(config, model))
    }

    /// Reads what `walk` shows, once it is certain that all of it is there and nothing else.
    fn fill(mut self, device: &Device, walk: &mut dyn FnMut(&mut dyn Exchange)) -> Result<()> {
        let mut wanted = Wanted::default();
        walk(&mut wanted);
        self.settle_output(&wanted)?;
        self.account(&wanted)?;
        self.check_twins()?;
        let mut reading = Reading {
            tensors: &self.tensors,
            device,
            failed: None,
        };
        walk(&mut reading);
        reading.failed.map_or(Ok(()), Err)
    }

    /// The output layer of a token model that is tied to its table is a twin of that.
    fn settle_output(&mut self, wanted: &Wanted) -> Result<()> {
        if !wanted.0.contains_key(OUTPUT)
            && wanted.0.contains_key(TOKEN_TABLE)
            && let Some(output) = self.tensors.remove(OUTPUT)
        {
            self.twins.push((TOKEN_TABLE.to_owned(), output));
        }
        Ok(())
    }

    fn account(&self, wanted: &Wanted) -> Result<()> {
        let held: BTreeSet<_> = self.tensors.keys().collect();
        let asked: BTreeSet<_> = wanted.0.keys().collect();
        let others = wanted.0.iter().filter_map(|(name, shape)| {
            let found = self.tensors.get(name)?.shape();
            (found != shape).then(|| format!("{name} {found:?} instead of {shape:?}"))
        });
        let say = |what: &str, names: Vec<String>| {
            const SHOWN: usize = 5;
            let more = match names.len().saturating_sub(SHOWN) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let shown: Vec<_> = names.iter().take(SHOWN).map(String::as_str).collect();
            (!names.is_empty()).then(|| format!("{what}: {}{more}", shown.join(", ")))
        };
        let owned = |name: &&String| (*name).clone();
        let problems = [
            say("missing", asked.difference(&held).map(owned).collect()),
            say("unexpected", held.difference(&asked).map(owned).collect()),
            say("of another shape", others.collect()),
        ];
        let problems: Vec<_> = problems.into_iter().flatten().collect();
        match problems.is_empty() {
            true => Ok(()),
            false => Err(self.refused(format!("tensors {}", problems.join("; ")))),
        }
    }

    fn check_twins(&self) -> Result<()> {
        for (name, twin) in &self.twins {
            let same = match self.tensors.get(name) {
                Some(tensor) => {
                    tensor.dtype() == twin.dtype()
                        && tensor.shape() == twin.shape()
                        && tensor.bytes()? == twin.bytes()?
                }
                None => false,
            };
            if !same {
                let detail = format!(
                    "tensor {} should be {name} once more, and is not",
                    twin.name()
                );
                return Err(self.refused(detail));
            }
        }
        Ok(())
    }
}

/// The tensors that a model has, and their shapes in a released file.
#[derive(Default)]
struct Wanted(BTreeMap<String, Vec<usize>>);

impl Exchange for Wanted {
    fn vector(&mut self, name: String, ours: &mut Param<Tensor<1>>) {
        self.0.insert(name, ours.lazy_shape().to_vec());
    }

    fn table(&mut self, name: String, ours: &mut Param<Tensor<2>>) {
        self.0.insert(name, ours.lazy_shape().to_vec());
    }

    fn matrix(&mut self, name: String, ours: &mut [&mut Param<Tensor<2>>]) {
        let shapes = ours.iter().map(|part| part.lazy_shape());
        let [inputs, outputs] =
            shapes.fold([0, 0], |[inputs, _], shape| [inputs + shape[0], shape[1]]);
        self.0.insert(name, vec![outputs, inputs]);
    }
}

/// Puts the numbers of a file into a model.
struct Reading<'a> {
    tensors: &'a BTreeMap<String, Stored>,
    device: &'a Device,
    /// The first tensor that could not be read; nothing is read after it.
    failed: Option<Error>,
}

impl Reading<'_> {
    /// Makes parameters of a stored tensor: of its rows, or `across`, of its columns.
    fn read<const D: usize>(
        &mut self,
        name: &str,
        across: bool,
        ours: &mut [&mut Param<Tensor<D>>],
    ) {
        if self.failed.is_none() {
            self.failed = self.try_read(&self.tensors[name], across, ours).err();
        }
    }

    fn try_read<const D: usize>(
        &self,
        stored: &Stored,
        across: bool,
        ours: &mut [&mut Param<Tensor<D>>],
    ) -> Result<()> {
        let dtype = stored.dtype();
        let count = stored.shape().iter().product();
        // Where nothing is to be changed, straight to its place: of tables nothing stands twice.
        match (dtype, across) {
            (Dtype::F32, false) => {
                let mut numbers = vec![0f32; count];
                stored.read(bytemuck::cast_slice_mut(&mut numbers))?;
                self.place(ours, numbers);
                return Ok(());
            }
            (Dtype::Bf16, false) => {
                let mut numbers = vec![bf16::ZERO; count];
                stored.read(bytemuck::cast_slice_mut(&mut numbers))?;
                self.place(ours, numbers);
                return Ok(());
            }
            _ => {}
        }
        let bytes = stored.bytes()?;
        let rows = if across { stored.shape()[0] } else { 1 };
        match dtype {
            Dtype::F32 => self.place(ours, by_columns(&bytes, rows, f32::from_le_bytes)),
            Dtype::Bf16 => self.place(ours, by_columns(&bytes, rows, bf16::from_le_bytes)),
            Dtype::F16 => {
                let wide = by_columns(&bytes, rows, |b| f16::from_le_bytes(b).to_f32());
                self.place(ours, wide);
            }
            _ => return Err(stored.wrong("F32, BF16 or F16").into()),
        }
        Ok(())
    }

    fn place<const D: usize, T: Element>(
        &self,
        ours: &mut [&mut Param<Tensor<D>>],
        mut numbers: Vec<T>,
    ) {
        for part in ours {
            let shape = part.lazy_shape();
            let rest = numbers.split_off(shape.num_elements());
            let data = TensorData::new(std::mem::replace(&mut numbers, rest), shape);
            let tensor = Tensor::from_data(data, (self.device, T::dtype()));
            **part = Param::from_tensor(tensor);
        }
    }
}

impl Exchange for Reading<'_> {
    fn vector(&mut self, name: String, ours: &mut Param<Tensor<1>>) {
        self.read(&name, false, &mut [ours]);
    }

    fn table(&mut self, name: String, ours: &mut Param<Tensor<2>>) {
        self.read(&name, false, &mut [ours]);
    }

    fn matrix(&mut self, name: String, ours: &mut [&mut Param<Tensor<2>>]) {
        self.read(&name, true, ours);
    }
}

/// Numbers of N bytes that lie in `rows` rows, column after column; those of one row as they lie.
pub fn by_columns<const N: usize, T: Copy + Default>(
    bytes: &[u8],
    rows: usize,
    number: impl Fn([u8; N]) -> T,
) -> Vec<T> {
    /// Rows and columns that stay in the cache together.
    const BLOCK: usize = 32;
    let (numbers, _) = bytes.as_chunks::<N>();
    if rows <= 1 {
        return numbers.iter().map(|&bytes| number(bytes)).collect();
    }
    let columns = numbers.len() / rows;
    let mut out = vec![T::default(); rows * columns];
    for first_row in (0..rows).step_by(BLOCK) {
        for first_column in (0..columns).step_by(BLOCK) {
            for row in first_row..rows.min(first_row + BLOCK) {
                for column in first_column..columns.min(first_column + BLOCK) {
                    out[column * rows + row] = number(numbers[row * columns + column]);
                }
            }
        }
    }
    out
}
