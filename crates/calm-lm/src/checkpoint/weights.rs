//! Weights in a file: burnpack, written one tensor at a time and read through a memory map.

use std::fs::File;
use std::path::Path;
use std::sync::Mutex;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::store::ModuleRecord;
use burn::tensor::{AllocationProperty, Bytes, DType, Device, Tensor, TensorData};
use calm_kernels::Depth;
use half::bf16;
use memmap2::Mmap;

use crate::{Error, Result};

/// Writes the parameters of `module`. Burn's own records copy all of them first; here one at a time is
/// read back from its device, and let go where nobody else holds it.
pub(super) fn save<M: Module>(module: M, path: &Path) -> Result<()> {
    let mut parameters = Parameters::default();
    module.visit(&mut parameters);
    drop(module);
    let written = burn_pack::Writer::new(parameters.tensors).write_to_file(path);
    written.map_err(|e| Error::Io {
        path: path.to_owned(),
        source: std::io::Error::other(e.to_string()),
    })
}

/// The parameters of a module under their paths, as Burn's records have them.
#[derive(Default)]
struct Parameters {
    path: Vec<String>,
    tensors: Vec<burn_pack::Tensor>,
}

impl ModuleVisitor for Parameters {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val();
        let (dtype, shape) = (tensor.dtype(), tensor.shape());
        let (name, id) = (self.path.join("."), Some(param.id.val()));
        let bytes = shape.num_elements() * dtype.size();
        // Asked for once.
        let tensor = Mutex::new(Some(tensor));
        let numbers = move || {
            let taken = tensor.lock().ok().and_then(|mut tensor| tensor.take());
            let taken = taken.ok_or_else(|| burn_pack::Error::IoError("written already".into()))?;
            Ok(taken.into_data().into_parts().0)
        };
        let tensor = burn_pack::Tensor::deferred(name, dtype, shape, id, bytes, numbers);
        self.tensors.push(tensor);
    }
}

/// What loaded weights are kept in: the matrices of linear layers and embedding tables, which are all
/// but a few thousandths of a model. Norms and biases are f32 always, and so is everything computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightNumbers {
    /// f32: for training, and wherever the last bits count.
    #[default]
    F32,
    /// As they are stored: bf16 of models that are stored so, which changes nothing but the order of
    /// sums. On the CPU a memory map of the file.
    Stored,
    /// As they are stored, norms and biases too: to be written elsewhere, not to compute with.
    Verbatim,
    /// bf16, rounded when they are loaded: half the memory, and half of what decoding reads.
    Bf16,
    /// 8 bits with a scale for each block of up to 240 inputs, rounded when they are loaded: a quarter
    /// of the memory, and a quarter of what decoding reads.
    Int8,
}

/// `fresh` with the parameters of a file. Those that are kept as they are stored stay in it until they
/// are used, on the CPU. Other devices have no products of short weights that pay: there they are rounded
/// alike and kept in f32.
///
/// # Errors
/// Where the file can't be read, or its tensors are not those of `fresh`.
pub(super) fn load<M: Module>(
    path: &Path,
    fresh: M,
    numbers: WeightNumbers,
    device: &Device,
) -> Result<M> {
    let weights = |detail: String| Error::Weights {
        path: path.to_owned(),
        detail,
    };
    let record = match numbers {
        // Read one by one, rounded and let go: mapped, all of the file would stay in memory.
        WeightNumbers::Bf16 | WeightNumbers::Int8 => ModuleRecord::load(path),
        _ => {
            let file = File::open(path).map_err(Error::io(path))?;
            // SAFETY: a checkpoint's files are never written again, and what replaces a checkpoint is
            // another directory. Who cuts one short by hand is stopped by the system.
            let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path))?;
            let bytes = bytes::Bytes::from_owner(map);
            ModuleRecord::from_bytes(Bytes::from_shared(bytes, AllocationProperty::File))
        }
    };
    let mut record = record.map_err(|e| weights(e.to_string()))?;
    if !calm_kernels::reads_short_weights(device) {
        // Which may not even hold them.
        record = record.cast_to_module_dtype();
    }
    let loaded = fresh
        .try_load_record(record)
        .map_err(|e| weights(e.to_string()))?;
    Ok(kept_in(loaded, numbers))
}

/// A module with its weights kept in `numbers`.
pub(crate) fn kept_in<M: Module>(module: M, numbers: WeightNumbers) -> M {
    let inside = Vec::new();
    module.map(&mut Convert { numbers, inside })
}

/// Makes of every parameter what it is kept in.
struct Convert {
    numbers: WeightNumbers,
    /// The kinds of modules that a parameter is in.
    inside: Vec<String>,
}

impl ModuleMapper for Convert {
    fn enter_module(&mut self, _name: &str, container_type: &str) {
        self.inside.push(container_type.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.inside.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let inside = |name: &str| self.inside.iter().any(|kind| kind.contains(name));
        let depth = match D {
            2 if inside("Linear") => Some(Depth::Rows),
            2 if inside("Embedding") => Some(Depth::Columns),
            _ => None,
        };
        let weight = depth.is_some();
        let device = param.device();
        let on_cpu = calm_kernels::reads_short_weights(&device);
        let stored = param.val().dtype();
        let lazy = matches!(self.numbers, WeightNumbers::Bf16 | WeightNumbers::Int8);
        let cast = |param: Param<Tensor<D>>, dtype| match stored == dtype {
            // Read now: the file may be gone when it is used.
            true if lazy => param.map(|tensor| {
                let data = tensor.into_data();
                let bytes = data.as_bytes().to_vec();
                let data = TensorData::from_bytes_vec(bytes, data.shape().clone(), dtype);
                Tensor::from_data(data, (&device, dtype))
            }),
            true => param,
            false => param.map(|tensor| tensor.cast(dtype)),
        };
        match self.numbers {
            WeightNumbers::Verbatim => param,
            WeightNumbers::Stored if weight && on_cpu => param,
            WeightNumbers::Bf16 if weight && on_cpu => cast(param, DType::BF16),
            WeightNumbers::Bf16 if weight => param.map(|tensor| {
                let device = tensor.device();
                let rounded = tensor.into_data().convert::<bf16>().convert::<f32>();
                Tensor::from_data(rounded, (&device, DType::F32))
            }),
            WeightNumbers::Int8 => match depth {
                Some(depth) => param.map(|tensor| in_8_bits(tensor, depth, on_cpu)),
                None => cast(param, DType::F32),
            },
            _ => cast(param, DType::F32),
        }
    }
}

/// A matrix rounded to 8 bits; `kept` in them, or in f32.
fn in_8_bits<const D: usize>(weight: Tensor<D>, depth: Depth, kept: bool) -> Tensor<D> {
    let device = weight.device();
    // On the host.
    let rounded = calm_kernels::to_int8(weight.into_data(), depth, &Device::flex());
    match kept {
        // A reshape would round again.
        true => Tensor::from_dispatch(rounded.into_dispatch()),
        false => {
            let data = calm_kernels::wide(rounded).into_data();
            Tensor::from_data(data, (&device, DType::F32))
        }
    }
}
