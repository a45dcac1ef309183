//! One tensor file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use pytorch_reader::PytorchReader;
use safetensors::tensor::Metadata;
use zip::{CompressionMethod, ZipArchive};

use crate::{Dtype, Error, Result, printable};

/// Longest header that is read: safetensors' own limit.
const LONGEST_HEADER: u64 = 100_000_000;

/// Longest pickle that is read of an archive: each byte of one may take a hundred in memory, and each
/// tensor has some two hundred of them.
const LONGEST_PICKLE: u64 = 16 << 20;

/// Times the file that its tensors may be taken together: those that stand under several names are
/// views of one storage.
const MOST_VIEWS: u64 = 8;

/// The tensors of one file, whose numbers stay in it until they are asked for.
#[derive(Debug)]
pub struct TensorFile {
    path: Arc<Path>,
    tensors: BTreeMap<String, Tensor>,
    metadata: BTreeMap<String, String>,
}

/// A tensor of a file.
#[derive(Clone, Debug)]
pub struct Tensor {
    path: Arc<Path>,
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    source: Source,
}

#[derive(Clone)]
enum Source {
    /// From this byte of the file on.
    At(u64),
    Pytorch(pytorch_reader::Tensor),
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::At(_) => "safetensors",
            Self::Pytorch(_) => "PyTorch",
        })
    }
}

impl TensorFile {
    /// Opens a safetensors file where the name ends so, else PyTorch's.
    ///
    /// # Errors
    /// A file that can't be read, is cut short or makes no sense, or a tensor of a kind of numbers that
    /// is not read here.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = Self {
            path: path.into(),
            tensors: BTreeMap::new(),
            metadata: BTreeMap::new(),
        };
        match path.extension().is_some_and(|e| e == "safetensors") {
            true => file.read_safetensors()?,
            false => file.read_pytorch()?,
        }
        Ok(file)
    }

    fn read_safetensors(&mut self) -> Result<()> {
        let mut file = File::open(&self.path).map_err(Error::io(&*self.path))?;
        let bytes = file.metadata().map_err(Error::io(&*self.path))?.len();
        let mut length = [0; size_of::<u64>()];
        let read = file.read_exact(&mut length);
        read.map_err(|_| Error::malformed(&*self.path, "too short for any safetensors file"))?;
        let length = u64::from_le_bytes(length);
        // The length is the file's word: no memory is taken for more than it holds.
        let room = bytes - size_of::<u64>() as u64;
        if length > room.min(LONGEST_HEADER) {
            let detail = format!("a header of {length} bytes in {room}");
            return Err(Error::malformed(&*self.path, detail));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header)
            .map_err(Error::io(&*self.path))?;
        let header: Metadata =
            serde_json::from_slice(&header).map_err(|e| Error::malformed(&*self.path, e))?;
        let (said, held) = (header.data_len() as u64, room - length);
        if said != held {
            let detail = format!("{held} bytes of numbers where the header speaks of {said}");
            return Err(Error::malformed(&*self.path, detail));
        }
        if let Some(said) = header.metadata() {
            self.metadata.extend(said.clone());
        }
        let data = size_of::<u64>() as u64 + length;
        for (name, info) in header.tensors() {
            let dtype = Dtype::try_from(info.dtype)
                .map_err(|other| unread(&self.path, &name, &format!("{other:?}")))?;
            let source = Source::At(data + info.data_offsets.0 as u64);
            self.insert(name, dtype, info.shape.clone(), source);
        }
        Ok(())
    }

    fn read_pytorch(&mut self) -> Result<()> {
        let file = File::open(&self.path).map_err(Error::io(&*self.path))?;
        let bytes = file.metadata().map_err(Error::io(&*self.path))?.len();
        self.check_archive(file)?;
        let reader =
            PytorchReader::new(&*self.path).map_err(|e| Error::malformed(&*self.path, e))?;
        let mut promised = 0u64;
        for (name, tensor) in reader.into_tensors() {
            // Views may repeat what they look at: weights are looked at twice where they are tied.
            promised = promised.saturating_add(tensor.byte_len() as u64);
            if promised > bytes.saturating_mul(MOST_VIEWS) {
                let detail = format!("tensors of more than {MOST_VIEWS} times the file");
                return Err(Error::malformed(&*self.path, detail));
            }
            let (dtype, shape) = (tensor.dtype().into(), tensor.shape().to_vec());
            self.insert(name, dtype, shape, Source::Pytorch(tensor));
        }
        Ok(())
    }

    fn insert(&mut self, name: String, dtype: Dtype, shape: Vec<usize>, source: Source) {
        let path = self.path.clone();
        let tensor = Tensor {
            path,
            name: name.clone(),
            dtype,
            shape,
            source,
        };
        self.tensors.insert(name, tensor);
    }

    /// Refuses what is no archive of PyTorch's since 1.6, nothing of which is compressed: its numbers
    /// are then no more than the file. The streams of pickles before it know no bounds.
    fn check_archive(&self, file: File) -> Result<()> {
        let malformed = |detail: &str| Err(Error::malformed(&*self.path, detail));
        let mut archive = match ZipArchive::new(std::io::BufReader::new(file)) {
            Ok(archive) => archive,
            Err(_) => {
                return malformed("no archive as PyTorch writes since 1.6; save it again there");
            }
        };
        for i in 0..archive.len() {
            let entry = archive.by_index_raw(i);
            let entry = entry.map_err(|e| Error::malformed(&*self.path, e))?;
            if entry.compression() != CompressionMethod::Stored {
                return malformed("a part of it is compressed, as PyTorch never does");
            }
            let is_pickle = entry.name().is_ok_and(|name| name.ends_with(".pkl"));
            if is_pickle && entry.size() > LONGEST_PICKLE {
                return malformed("longer a pickle than any list of tensors");
            }
        }
        Ok(())
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tensors, by name.
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    /// What a safetensors file says of itself.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    pub(crate) fn into_tensors(self) -> BTreeMap<String, Tensor> {
        self.tensors
    }
}

fn unread(path: &Path, name: &str, dtype: &str) -> Error {
    let (path, name, dtype) = (path.to_owned(), printable(name), dtype.to_owned());
    let wanted = "a kind of whole bytes (F64 to BF16, I64 to U8, BOOL)";
    Error::WrongDtype {
        path,
        name,
        dtype,
        wanted,
    }
}

impl Tensor {
    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The kind of its numbers.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Extents, the outermost first; empty for a single number.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The numbers as they are stored, little-endian, row by row.
    ///
    /// # Errors
    /// Where the file can't be read or contradicts itself.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        match &self.source {
            Source::At(_) => {
                // Sizes were checked against the file's.
                let mut bytes = vec![0; self.shape.iter().product::<usize>() * self.dtype.size()];
                self.read(&mut bytes)?;
                Ok(bytes)
            }
            // In the machine's order of bytes, which is PyTorch's wherever this is built.
            Source::Pytorch(tensor) => tensor.read().map_err(|e| Error::malformed(&*self.path, e)),
        }
    }

    /// The numbers as they are stored, in a place for as many bytes.
    ///
    /// # Errors
    /// Where the file can't be read or contradicts itself.
    ///
    /// # Panics
    /// Where the place is of another length.
    pub fn read(&self, to: &mut [u8]) -> Result<()> {
        match &self.source {
            Source::At(place) => {
                let length = self.shape.iter().product::<usize>() * self.dtype.size();
                assert_eq!(to.len(), length, "a place for all of {}", self.name);
                let read = File::open(&self.path).and_then(|mut file| {
                    file.seek(SeekFrom::Start(*place))?;
                    file.read_exact(to)
                });
                read.map_err(Error::io(&*self.path))
            }
            // In the machine's order of bytes, which is PyTorch's wherever this is built.
            Source::Pytorch(tensor) => {
                let bytes = tensor.read();
                let bytes = bytes.map_err(|e| Error::malformed(&*self.path, e))?;
                to.copy_from_slice(&bytes);
                Ok(())
            }
        }
    }

    /// The numbers as f32: f16 and bf16 widened, f64 rounded.
    ///
    /// # Errors
    /// Where they are no floating-point numbers, or can't be read.
    pub fn floats(&self) -> Result<Vec<f32>> {
        let numbers = self.dtype.floats(&self.bytes()?);
        numbers.ok_or_else(|| self.wrong("floating-point numbers"))
    }

    /// The numbers as i64; booleans as 0 and 1.
    ///
    /// # Errors
    /// Where they are no whole numbers that i64 holds, or can't be read.
    pub fn integers(&self) -> Result<Vec<i64>> {
        let numbers = self.dtype.integers(&self.bytes()?);
        numbers.ok_or_else(|| self.wrong("whole numbers"))
    }

    /// The error that these numbers are not what is `wanted`.
    pub fn wrong(&self, wanted: &'static str) -> Error {
        Error::WrongDtype {
            path: self.path.to_path_buf(),
            name: printable(&self.name),
            dtype: self.dtype.to_string(),
            wanted,
        }
    }
}
