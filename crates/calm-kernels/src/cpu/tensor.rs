//! Between flex's tensors and slices.

use burn::tensor::{DType, Element, Shape, TensorData};
use burn_flex::FlexTensor;
use bytemuck::Pod;

use calm_gemm::Mat;

/// A tensor whose numbers lie side by side, read as f32.
pub(crate) struct Floats(FlexTensor);

impl Floats {
    /// Copies where the tensor is a view with gaps.
    ///
    /// # Panics
    /// Where the tensor is not f32: flex computes in f32 here.
    pub(crate) fn new(tensor: FlexTensor) -> Self {
        if tensor.as_slice::<f32>().is_some() {
            return Self(tensor);
        }
        let dtype = tensor.dtype();
        let tensor = tensor.to_contiguous();
        assert!(
            tensor.as_slice::<f32>().is_some(),
            "the kernels of flex take f32, not {dtype:?}"
        );
        Self(tensor)
    }

    pub(crate) fn shape(&self) -> &Shape {
        self.0.layout().shape()
    }

    /// The last dimension.
    pub(crate) fn width(&self) -> usize {
        let shape = self.shape();
        shape[shape.num_dims() - 1]
    }
}

/// A matrix of any strides, so that a transposed view is not copied.
pub(crate) struct Matrix {
    tensor: FlexTensor,
    strides: [usize; 2],
}

impl Matrix {
    /// Copies only where a stride is negative.
    ///
    /// # Panics
    /// Where the tensor is no matrix.
    pub(crate) fn new(tensor: FlexTensor) -> Self {
        let strides = |tensor: &FlexTensor| -> Option<[usize; 2]> {
            let [rows, cols] = tensor.layout().strides() else {
                panic!("a matrix has two dimensions");
            };
            Some([(*rows).try_into().ok()?, (*cols).try_into().ok()?])
        };
        if let Some(strides) = strides(&tensor) {
            return Self { tensor, strides };
        }
        let tensor = tensor.to_contiguous();
        let strides = strides(&tensor).expect("a fresh copy has positive strides");
        Self { tensor, strides }
    }

    pub(crate) fn dims(&self) -> [usize; 2] {
        let shape = self.tensor.layout().shape();
        [shape[0], shape[1]]
    }

    /// Whether the numbers are bf16, as weights may be.
    pub(crate) fn is_bf16(&self) -> bool {
        self.tensor.dtype() == DType::BF16
    }

    /// # Panics
    /// Where the numbers are of another kind.
    pub(crate) fn mat<T: Element + Pod>(&self) -> Mat<'_, T> {
        let start = self.tensor.layout().start_offset();
        Mat::strided(
            &self.tensor.storage::<T>()[start..],
            self.dims(),
            self.strides,
        )
    }
}

impl std::ops::Deref for Floats {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        self.0.as_slice().expect("checked when it was made")
    }
}

/// A tensor of flex from numbers in row-major order.
pub(crate) fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape.into()))
}

/// `n` numbers that `fill` writes, all of them; what they were before means nothing.
pub(crate) fn filled(n: usize, fill: impl FnOnce(&mut [f32])) -> Vec<f32> {
    let mut out: Vec<f32> = Vec::with_capacity(n);
    // SAFETY: the memory is there and any bits are an f32. Clearing it first would cost a pass
    // over memory that is written once more anyway.
    unsafe {
        fill(std::slice::from_raw_parts_mut(out.as_mut_ptr(), n));
        out.set_len(n);
    }
    out
}

/// Indices below `bound` from an integer tensor.
///
/// # Panics
/// Where one lies outside.
pub(crate) fn ids(tensor: FlexTensor, bound: usize) -> Vec<usize> {
    let data = tensor.into_data();
    data.iter::<i64>()
        .map(|id| {
            let inside = usize::try_from(id).ok().filter(|&id| id < bound);
            inside.unwrap_or_else(|| panic!("index {id} is outside 0..{bound}"))
        })
        .collect()
}
