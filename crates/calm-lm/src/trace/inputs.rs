//! The inputs of a trace, checked as they are asked for.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;

use burn::tensor::{Device, Int, Tensor, TensorData};
use calm_weights::{TensorFiles, printable};

use crate::{Error, Result};

/// Names that inputs of a trace have.
pub(super) const INPUTS: [&str; 11] = [
    "input_ids",
    "latent",
    "posterior_noise",
    "head_condition",
    "target",
    "target_mask",
    "head_noise",
    "t",
    "x0",
    "noise",
    "sample_noise",
];

/// Inputs of a trace, by name; which of them were asked for is kept.
#[derive(Debug)]
pub struct TraceInputs<'a> {
    files: &'a TensorFiles,
    device: &'a Device,
    used: RefCell<BTreeSet<String>>,
}

impl<'a> TraceInputs<'a> {
    /// The tensors of a file, to be put on `device`.
    pub fn new(files: &'a TensorFiles, device: &'a Device) -> Self {
        let used = RefCell::default();
        Self {
            files,
            device,
            used,
        }
    }

    /// What no part of the model asked for.
    pub fn unused(&self) -> Vec<String> {
        let used = self.used.borrow();
        let names = self.files.iter().map(|(name, _)| name);
        let unused = names.filter(|&name| !used.contains(name));
        unused.map(printable).collect()
    }

    fn get<const D: usize>(
        &self,
        name: &str,
    ) -> Result<Option<(&'a calm_weights::Tensor, [usize; D])>> {
        debug_assert!(INPUTS.contains(&name));
        self.used.borrow_mut().insert(name.to_owned());
        let Some(tensor) = self.files.get(name) else {
            return Ok(None);
        };
        let shape = tensor.shape().try_into();
        let shape = shape.map_err(|_| self.wrong(name, format!("{D} dimensions")))?;
        Ok(Some((tensor, shape)))
    }

    pub(super) fn floats<const D: usize>(&self, name: &str) -> Result<Option<Tensor<D>>> {
        let Some((tensor, shape)) = self.get::<D>(name)? else {
            return Ok(None);
        };
        let data = TensorData::new(tensor.floats()?, shape);
        Ok(Some(Tensor::from_data(data, self.device)))
    }

    pub(super) fn integers<const D: usize>(
        &self,
        name: &str,
    ) -> Result<Option<(Vec<i64>, [usize; D])>> {
        let Some((tensor, shape)) = self.get::<D>(name)? else {
            return Ok(None);
        };
        Ok(Some((tensor.integers()?, shape)))
    }

    /// A tensor of this many dimensions, of which those that aren't 0 are fixed.
    pub(super) fn of_shape<const D: usize>(
        &self,
        name: &str,
        wanted: [usize; D],
    ) -> Result<Option<Tensor<D>>> {
        let Some(tensor) = self.floats::<D>(name)? else {
            return Ok(None);
        };
        let fits = tensor
            .dims()
            .iter()
            .zip(wanted)
            .all(|(&is, wanted)| wanted == 0 || wanted == is);
        match fits && tensor.shape().num_elements() > 0 {
            true => Ok(Some(tensor)),
            false => Err(self.wrong(name, format!("{wanted:?} (0: any)"))),
        }
    }

    /// Token ids `[batch, tokens]`, of whole chunks.
    pub(super) fn tokens(&self, vocab: usize, chunk: usize) -> Result<Option<Tensor<2, Int>>> {
        let Some((ids, [batch, tokens])) = self.integers::<2>("input_ids")? else {
            return Ok(None);
        };
        if tokens % chunk != 0 || batch * tokens == 0 {
            return Err(self.wrong(
                "input_ids",
                format!("[batch, tokens], tokens a multiple of K = {chunk}"),
            ));
        }
        if let Some(outside) = ids.iter().find(|&&id| id < 0 || id >= vocab as i64) {
            return Err(self.refused(format!("input_ids: {outside} is no token of {vocab}")));
        }
        let data = TensorData::new(ids, [batch, tokens]);
        Ok(Some(Tensor::from_data(data, self.device)))
    }

    fn wrong(&self, name: &str, wanted: String) -> Error {
        let shape = self
            .files
            .get(name)
            .map_or(&[][..], |tensor| tensor.shape());
        self.refused(format!("{name} is {shape:?}, wanted is {wanted}"))
    }

    pub(super) fn refused(&self, detail: String) -> Error {
        let (path, detail) = (self.files.path().to_owned(), printable(&detail));
        Error::TraceInput { path, detail }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.files.path().to_owned()
    }

    /// Times of diffusion `[m, p]`, where 0 stands for any number.
    pub(super) fn times(&self, m: usize, p: usize) -> Result<Option<Tensor<2, Int>>> {
        let Some((times, shape)) = self.integers::<2>("t")? else {
            return Ok(None);
        };
        if shape[1] != p || (m > 0 && shape[0] != m) {
            return Err(self.wrong("t", format!("[{m}, {p}] (0: any)")));
        }
        if let Some(outside) = times.iter().find(|&&t| !(0..1000).contains(&t)) {
            return Err(self.refused(format!("t: {outside} is no time from 0 to 999")));
        }
        let data = TensorData::new(times, shape);
        Ok(Some(Tensor::from_data(data, self.device)))
    }

    /// The rows of `[batch * predicted]` that count; `None` where none does.
    pub(super) fn counted(&self, batch: usize, predicted: usize) -> Result<Option<Tensor<1, Int>>> {
        let all = batch * predicted;
        let mask = self.get::<2>("target_mask")?.map(|(mask, shape)| {
            let whole = mask.integers().or_else(|error| {
                // 0 and 1 may be floating-point numbers.
                let floats = mask.floats()?;
                let only = floats.iter().all(|&x| x == 0.0 || x == 1.0);
                let whole = floats.iter().map(|&x| x as i64).collect();
                only.then_some(whole).ok_or(error)
            });
            whole.map(|whole| (whole, shape))
        });
        let rows: Vec<i64> = match mask.transpose()? {
            None => (0..all as i64).collect(),
            Some((mask, shape)) if shape == [batch, predicted] => (0..)
                .zip(mask)
                .filter(|&(_, counts)| counts != 0)
                .map(|(row, _)| row)
                .collect(),
            Some(_) => return Err(self.wrong("target_mask", format!("[{batch}, {predicted}]"))),
        };
        let some = !rows.is_empty();
        Ok(some.then(|| Tensor::from_ints(rows.as_slice(), self.device)))
    }
}
