//! Every kernel against its plain version on the CPU: values and the gradients of all inputs. With
//! an executor's feature the kernels are those of that executor, else those of the CPU.

mod activation;
mod adamw;
mod attention;
mod checkpoint;
mod cross_entropy;
mod cross_entropy_formula;
mod empty;
mod energy;
mod local;
mod norm;
mod rope;

// Operations that have a kernel on the CPU alone.
#[cfg(not(any(feature = "vulkan", feature = "webgpu")))]
mod argmax;
#[cfg(not(any(feature = "vulkan", feature = "webgpu")))]
mod cached;
#[cfg(not(any(feature = "vulkan", feature = "webgpu")))]
mod cached_local;
#[cfg(not(any(feature = "vulkan", feature = "webgpu")))]
mod linear;
#[cfg(not(any(feature = "vulkan", feature = "webgpu")))]
mod weights;

use burn::tensor::{Device, Tensor, TensorData};

/// The device whose kernels are tested.
pub fn device() -> Device {
    #[cfg(feature = "vulkan")]
    let kind = burn::tensor::DeviceType::Vulkan;
    #[cfg(all(feature = "webgpu", not(feature = "vulkan")))]
    let kind = burn::tensor::DeviceType::Wgpu;
    #[cfg(any(feature = "vulkan", feature = "webgpu"))]
    {
        let found = Device::enumerate(kind).into_vec();
        let device = found
            .into_iter()
            .next()
            .expect("a GPU or a software driver");
        assert!(calm_kernels::fused(&device), "no kernels for {device:?}");
        device
    }
    #[cfg(not(any(feature = "vulkan", feature = "webgpu")))]
    Device::flex()
}

/// Numbers of about the size of activations, different for every `seed`.
pub fn numbers<const D: usize>(shape: [usize; D], seed: u64) -> TensorData {
    TensorData::new(calm_kernels::normals(seed, shape.iter().product()), shape)
}

/// A leaf that collects a gradient, on the device whose kernels are tested.
pub fn leaf<const D: usize>(data: &TensorData) -> Tensor<D> {
    leaf_on(data, device())
}

/// A leaf that collects a gradient.
pub fn leaf_on<const D: usize>(data: &TensorData, device: Device) -> Tensor<D> {
    Tensor::<D>::from_data(data.clone(), &device.autodiff()).require_grad()
}

/// `|a - b| <= 1e-4 (largest |b|) + 1e-6`
#[track_caller]
pub fn assert_close(what: &str, a: TensorData, b: TensorData) {
    assert_eq!(a.shape(), b.shape(), "{what}: shapes");
    let (a, b): (Vec<f32>, Vec<f32>) = (a.iter::<f32>().collect(), b.iter::<f32>().collect());
    let size = b.iter().fold(0.0f32, |size, x| size.max(x.abs()));
    for (i, (a, b)) in a.iter().zip(&b).enumerate() {
        assert!(
            (a - b).abs() <= 1e-4 * size + 1e-6,
            "{what}, entry {i}: {a} and {b}, largest {size}"
        );
    }
}

/// Compares a kernel with its plain version on the CPU: values with and without autodiff, and the
/// gradients of all leaves for one random upstream gradient.
#[macro_export]
macro_rules! compare {
    ($case:expr, [$($name:ident: $rank:literal = $data:expr),* $(,)?], $fast:expr, $slow:expr) => {{
        $(let $name = $data;)*
        let case = $case;
        let fast = $fast;
        let slow = $slow;
        {
            let slow = {
                $(let $name = burn::tensor::Tensor::<$rank>::from_data($name.clone(), &burn::tensor::Device::flex());)*
                slow($($name),*)
            };
            $(let $name = burn::tensor::Tensor::<$rank>::from_data($name.clone(), &$crate::device());)*
            let fast = fast($($name),*);
            $crate::assert_close(&format!("{case:?}, without autodiff"), fast.into_data(), slow.into_data());
        }
        let run = |which: bool| {
            let device = if which { $crate::device() } else { burn::tensor::Device::flex() };
            $(let $name = $crate::leaf_on::<$rank>(&$name, device.clone());)*
            let y = if which { fast($($name.clone()),*) } else { slow($($name.clone()),*) };
            let upstream = $crate::numbers(y.dims(), 99);
            let upstream = burn::tensor::Tensor::from_data(upstream, &y.device());
            let grads = (y.clone() * upstream).sum().backward();
            (y.into_data(), vec![$((stringify!($name), $name.grad(&grads).expect("the graph reaches every input").into_data())),*])
        };
        let ((y_fast, g_fast), (y_slow, g_slow)) = (run(true), run(false));
        $crate::assert_close(&format!("{case:?}, values"), y_fast, y_slow);
        for ((name, a), (_, b)) in g_fast.into_iter().zip(g_slow) {
            $crate::assert_close(&format!("{case:?}, gradient of {name}"), a, b);
        }
    }};
}
