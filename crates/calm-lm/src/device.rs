//! Device strings: the one place where a backend is chosen.

mod remote;

use burn::tensor::Device;

use crate::{Error, Result};
pub use remote::{Listen, TOKEN_VARIABLE, device_token, serve_devices};

/// The forms that [`open_device`] understands.
pub const DEVICE_FORMS: &str = "flex (CPU), vulkan[:N], webgpu[:N], metal[:N], cuda[:N], rocm[:N], \
                                remote:ws://HOST:PORT[/N], remote:iroh://ID[@HOST:PORT][/N]";

/// A device under the string that it was opened by, for records and messages.
#[derive(Clone, Debug)]
pub struct NamedDevice {
    /// The string.
    pub name: String,
    /// Without autodiff.
    pub device: Device,
}

impl NamedDevice {
    /// [`open_device`] with its string.
    ///
    /// # Errors
    /// As there.
    pub fn open(name: &str) -> Result<Self> {
        let device = open_device(name)?;
        let name = name.to_owned();
        Ok(Self { name, device })
    }

    /// Whether it is another machine's, or another process's.
    pub fn is_remote(&self) -> bool {
        self.name.starts_with("remote:")
    }

    /// Opens devices that tensors are to move between.
    ///
    /// # Errors
    /// As [`open_device`], and compute servers of both transports, which don't reach each other.
    pub fn open_all<S: AsRef<str>>(names: &[S]) -> Result<Vec<Self>> {
        let all: Vec<Self> = names
            .iter()
            .map(|name| Self::open(name.as_ref()))
            .collect::<Result<_>>()?;
        let by = |transport: &str| all.iter().find(|device| device.name.starts_with(transport));
        match (by("remote:ws:"), by("remote:iroh:")) {
            (Some(first), Some(other)) => Err(Error::Remote {
                device: other.name.clone(),
                detail: format!("tensors don't move between it and {}", first.name),
            }),
            _ => Ok(all),
        }
    }
}

/// Opens a device by its string, as given to `--device`.
///
/// `flex` is always there; the others need the feature of their name. `:N` is the N-th device of
/// that kind in the executor's own order; without it the executor picks. `remote:` is the N-th device of
/// a compute server ([`serve_devices`]), which is asked with the token in [`TOKEN_VARIABLE`].
///
/// # Errors
/// Unknown string, executor not compiled in, no such device.
pub fn open_device(given: &str) -> Result<Device> {
    if given.starts_with("remote:") {
        return remote::open(given);
    }
    let (name, index) = match given.split_once(':') {
        Some((name, index)) => (name, Some(index)),
        None => (given, None),
    };
    let unknown = || Error::UnknownDevice {
        given: given.to_owned(),
        known: DEVICE_FORMS,
    };
    let index: Option<usize> = index.map(str::parse).transpose().map_err(|_| unknown())?;
    match name {
        "flex" if index.is_none() => Ok(Device::flex()),
        "vulkan" => vulkan(given, index),
        "webgpu" => webgpu(given, index),
        "metal" => metal(given, index),
        "cuda" => cuda(given, index),
        "rocm" => rocm(given, index),
        _ => Err(unknown()),
    }
}

macro_rules! executor {
    ($function:ident, $feature:literal, $compiled:meta, $kind:ident, $hint:literal) => {
        #[cfg($compiled)]
        fn $function(given: &str, index: Option<usize>) -> Result<Device> {
            let found = Device::enumerate(burn::tensor::DeviceType::$kind).into_vec();
            let count = found.len();
            found
                .into_iter()
                .nth(index.unwrap_or(0))
                .ok_or_else(|| Error::NoDevice {
                    given: given.to_owned(),
                    found: match count {
                        0 => "none".to_owned(),
                        n => format!("only {n}, numbered from 0,"),
                    },
                    hint: if count == 0 { $hint } else { "" },
                })
        }

        #[cfg(not($compiled))]
        fn $function(given: &str, _index: Option<usize>) -> Result<Device> {
            Err(Error::NotCompiled {
                given: given.to_owned(),
                feature: $feature,
            })
        }
    };
}

#[cfg(feature = "vulkan")]
executor!(
    vulkan,
    "vulkan",
    feature = "vulkan",
    Vulkan,
    "; install a Vulkan driver (mesa-vulkan-drivers brings a software one)"
);
// The same drivers with kernels in WGSL: wgpu takes Vulkan wherever there is a driver.
#[cfg(not(feature = "vulkan"))]
executor!(
    vulkan,
    "vulkan",
    feature = "webgpu",
    Wgpu,
    "; install a Vulkan driver (mesa-vulkan-drivers brings a software one)"
);
executor!(webgpu, "webgpu", feature = "webgpu", Wgpu, "");
executor!(metal, "metal", feature = "metal", Metal, "");
executor!(
    cuda,
    "cuda",
    feature = "cuda",
    Cuda,
    "; is the NVIDIA driver installed?"
);
executor!(
    rocm,
    "rocm",
    feature = "rocm",
    Rocm,
    "; is the ROCm driver installed?"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flex_is_always_there() {
        assert_eq!(open_device("flex").unwrap(), Device::flex());
    }

    #[test]
    fn nonsense_names_the_known_forms() {
        for given in ["", "gpu", "flex:0", "vulkan:x", "cuda:-1", "Flex"] {
            let error = open_device(given).unwrap_err().to_string();
            assert!(error.contains("vulkan[:N]"), "{given}: {error}");
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn an_executor_that_is_not_compiled_names_its_feature() {
        let error = open_device("cuda:1").unwrap_err().to_string();
        assert!(error.contains("--features cuda"), "{error}");
    }
}
