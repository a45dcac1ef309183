//! Kinds of numbers, and their conversion.

use std::fmt;

use half::{bf16, f16};

/// Kinds of numbers that tensor files hold, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // They say it all.
pub enum Dtype {
    F64,
    F32,
    F16,
    Bf16,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    /// A byte each, 0 or 1.
    Bool,
}

impl Dtype {
    /// Bytes of a number.
    pub const fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 | Self::U64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 | Self::U16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// As f32, where these are floating-point numbers; of f64 the nearest.
    pub(crate) fn floats(self, bytes: &[u8]) -> Option<Vec<f32>> {
        Some(match self {
            Self::F32 => numbers(bytes, f32::from_le_bytes),
            Self::F64 => numbers(bytes, |b| f64::from_le_bytes(b) as f32),
            Self::F16 => numbers(bytes, |b| f16::from_le_bytes(b).to_f32()),
            Self::Bf16 => numbers(bytes, |b| bf16::from_le_bytes(b).to_f32()),
            _ => return None,
        })
    }

    /// As i64, where these are whole numbers that it holds, or booleans.
    pub(crate) fn integers(self, bytes: &[u8]) -> Option<Vec<i64>> {
        Some(match self {
            Self::I64 => numbers(bytes, i64::from_le_bytes),
            Self::I32 => numbers(bytes, |b| i32::from_le_bytes(b).into()),
            Self::I16 => numbers(bytes, |b| i16::from_le_bytes(b).into()),
            Self::I8 => numbers(bytes, |b| i8::from_le_bytes(b).into()),
            Self::U64 => {
                let whole = numbers(bytes, u64::from_le_bytes);
                let fitting = whole.into_iter().map(|x| i64::try_from(x).ok());
                return fitting.collect();
            }
            Self::U32 => numbers(bytes, |b| u32::from_le_bytes(b).into()),
            Self::U16 => numbers(bytes, |b| u16::from_le_bytes(b).into()),
            Self::U8 | Self::Bool => numbers(bytes, |[b]| b.into()),
            _ => return None,
        })
    }
}

fn numbers<const N: usize, T>(bytes: &[u8], number: impl Fn([u8; N]) -> T) -> Vec<T> {
    let (whole, rest) = bytes.as_chunks::<N>();
    debug_assert!(rest.is_empty(), "sizes are checked when a file is opened");
    whole.iter().map(|&bytes| number(bytes)).collect()
}

/// As in safetensors' headers.
impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F64 => "F64",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::I64 => "I64",
            Self::I32 => "I32",
            Self::I16 => "I16",
            Self::I8 => "I8",
            Self::U64 => "U64",
            Self::U32 => "U32",
            Self::U16 => "U16",
            Self::U8 => "U8",
            Self::Bool => "BOOL",
        })
    }
}

impl From<pytorch_reader::DType> for Dtype {
    fn from(dtype: pytorch_reader::DType) -> Self {
        use pytorch_reader::DType as Of;
        match dtype {
            Of::F64 => Self::F64,
            Of::F32 => Self::F32,
            Of::F16 => Self::F16,
            Of::BF16 => Self::Bf16,
            Of::I64 => Self::I64,
            Of::I32 => Self::I32,
            Of::I16 => Self::I16,
            Of::I8 => Self::I8,
            Of::U64 => Self::U64,
            Of::U32 => Self::U32,
            Of::U16 => Self::U16,
            Of::U8 => Self::U8,
            Of::Bool => Self::Bool,
        }
    }
}

impl TryFrom<safetensors::Dtype> for Dtype {
    /// What is not read here: complex numbers, and those of less than a byte or with shared scales.
    type Error = safetensors::Dtype;

    fn try_from(dtype: safetensors::Dtype) -> std::result::Result<Self, Self::Error> {
        use safetensors::Dtype as Of;
        Ok(match dtype {
            Of::F64 => Self::F64,
            Of::F32 => Self::F32,
            Of::F16 => Self::F16,
            Of::BF16 => Self::Bf16,
            Of::I64 => Self::I64,
            Of::I32 => Self::I32,
            Of::I16 => Self::I16,
            Of::I8 => Self::I8,
            Of::U64 => Self::U64,
            Of::U32 => Self::U32,
            Of::U16 => Self::U16,
            Of::U8 => Self::U8,
            Of::BOOL => Self::Bool,
            other => return Err(other),
        })
    }
}

impl From<Dtype> for safetensors::Dtype {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F64 => Self::F64,
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::Bf16 => Self::BF16,
            Dtype::I64 => Self::I64,
            Dtype::I32 => Self::I32,
            Dtype::I16 => Self::I16,
            Dtype::I8 => Self::I8,
            Dtype::U64 => Self::U64,
            Dtype::U32 => Self::U32,
            Dtype::U16 => Self::U16,
            Dtype::U8 => Self::U8,
            Dtype::Bool => Self::BOOL,
        }
    }
}
