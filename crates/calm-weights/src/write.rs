//! Writing safetensors, one tensor at a time.

use std::io::Write;
use std::path::Path;

use safetensors::tensor::{Metadata, TensorInfo};

use crate::{Dtype, Error, Result};

/// A tensor to be written, whose numbers are made when its turn comes.
pub struct TensorToWrite {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    numbers: Box<dyn Fn() -> Vec<u8>>,
}

impl std::fmt::Debug for TensorToWrite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {:?}", self.name, self.dtype, self.shape)
    }
}

impl TensorToWrite {
    /// A tensor whose numbers, little-endian and row by row, `numbers` makes.
    pub fn new(
        name: impl Into<String>,
        dtype: Dtype,
        shape: impl Into<Vec<usize>>,
        numbers: impl Fn() -> Vec<u8> + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            dtype,
            shape: shape.into(),
            numbers: Box::new(numbers),
        }
    }

    /// A tensor of f32.
    pub fn floats(name: impl Into<String>, shape: impl Into<Vec<usize>>, values: Vec<f32>) -> Self {
        let numbers = move || values.iter().flat_map(|x| x.to_le_bytes()).collect();
        Self::new(name, Dtype::F32, shape, numbers)
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.size()
    }
}

/// Writes a safetensors file atomically, with `metadata` in its header.
///
/// # Errors
/// Where it can't be written, or two tensors have one name; what stood there is then as it was.
///
/// # Panics
/// Where a tensor's numbers are not as many as its shape says.
pub fn write_safetensors(
    path: &Path,
    metadata: &[(&str, &str)],
    mut tensors: Vec<TensorToWrite>,
) -> Result<()> {
    // Large numbers first, as others write them: all lie at multiples of their size.
    tensors.sort_by(|a, b| (b.dtype.size(), &a.name).cmp(&(a.dtype.size(), &b.name)));
    let mut end = 0;
    let infos = tensors.iter().map(|tensor| {
        let begin = end;
        end += tensor.bytes();
        let info = TensorInfo {
            dtype: tensor.dtype.into(),
            shape: tensor.shape.clone(),
            data_offsets: (begin, end),
        };
        (tensor.name.clone(), info)
    });
    let infos: Vec<_> = infos.collect();
    let said = metadata
        .iter()
        .map(|&(key, value)| (key.to_owned(), value.to_owned()));
    let said = (!metadata.is_empty()).then(|| said.collect());
    let header = Metadata::new(said, infos).map_err(|e| Error::malformed(path, e))?;
    if header.offset_keys().len() != tensors.len() {
        return Err(Error::malformed(path, "two tensors of one name"));
    }
    let mut header = serde_json::to_vec(&header).map_err(|e| Error::malformed(path, e))?;
    header.resize(header.len().next_multiple_of(8), b' ');

    let mut file = calm_files::beside(path).map_err(Error::io(path))?;
    let mut write = || {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        for tensor in &tensors {
            let numbers = (tensor.numbers)();
            assert_eq!(
                numbers.len(),
                tensor.bytes(),
                "the numbers of {}",
                tensor.name
            );
            file.write_all(&numbers)?;
        }
        Ok(())
    };
    write().map_err(Error::io(path))?;
    calm_files::persist(file, path).map_err(Error::io(path))
}
