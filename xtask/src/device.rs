//! Device strings: which cargo features a `--device` argument needs.

use std::ffi::{OsStr, OsString};

use crate::error::{Error, Result};
use crate::vulkan;

/// The devices, as `--device` takes them; every one but flex needs the cargo feature of its name.
const KINDS: [&str; 6] = ["flex", "vulkan", "webgpu", "metal", "cuda", "rocm"];

/// What a device asks of the build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Build {
    /// Features of calm-cli and of the benches, as `--features` takes them.
    pub features: &'static str,
    /// The folder under `target` that builds with these features share.
    pub target: &'static str,
}

/// What to build for a device string; nothing special for `flex`, which is always compiled in.
///
/// Where a machine has no GPU, `vulkan` means Mesa's software driver. It gets kernels in WGSL,
/// because cubecl's SPIR-V needs an extension that older versions of that driver lack, and no
/// autotuning, which there compiles for minutes and finds nothing faster.
pub fn build(device: &str) -> Result<Option<Build>> {
    let feature = feature(device)?;
    let software = matches!(feature, Some("vulkan" | "webgpu")) && vulkan::software_only();
    if software && feature == Some("vulkan") {
        eprintln!("note: no GPU found; building for a software driver (kernels in WGSL)");
    }
    Ok(feature.map(|feature| build_of(feature, software)))
}

fn build_of(feature: &'static str, software: bool) -> Build {
    let features = match (feature, software) {
        ("vulkan" | "webgpu", true) => "webgpu",
        ("vulkan", false) => "vulkan,autotune",
        ("webgpu", false) => "webgpu,autotune",
        ("metal", _) => "metal,autotune",
        ("cuda", _) => "cuda,autotune",
        ("rocm", _) => "rocm,autotune",
        _ => unreachable!("a feature from the list of devices"),
    };
    let target = if software { "webgpu" } else { feature };
    Build { features, target }
}

/// The cargo feature that a device string needs: none for `flex`, which is always compiled in.
fn feature(device: &str) -> Result<Option<&'static str>> {
    let (name, index) = match device.split_once(':') {
        Some((name, index)) => (name, Some(index)),
        None => (device, None),
    };
    let unknown = || {
        Error::Usage(format!(
            "no device '{device}'; the devices are flex, vulkan[:N], webgpu[:N], metal[:N], \
             cuda[:N], rocm[:N]"
        ))
    };
    let kind = KINDS
        .iter()
        .find(|kind| **kind == name)
        .ok_or_else(unknown)?;
    match (*kind, index) {
        ("flex", None) => Ok(None),
        ("flex", Some(_)) => Err(unknown()),
        (kind, None) => Ok(Some(kind)),
        // Digits only: `usize` would also parse "+1".
        (kind, Some(index)) if index.bytes().all(|b| b.is_ascii_digit()) => match index.parse() {
            Ok::<usize, _>(_) => Ok(Some(kind)),
            Err(_) => Err(unknown()),
        },
        _ => Err(unknown()),
    }
}

/// The value of `--device X` or `--device=X`, where there is one; the last one counts.
///
/// Arguments after `--` are not options and are not looked at.
pub fn find(args: &[OsString]) -> Result<Option<String>> {
    Ok(split(args)?.0)
}

/// The device, and the arguments without it.
pub fn split(args: &[OsString]) -> Result<(Option<String>, Vec<OsString>)> {
    let mut device = None;
    let mut others = Vec::new();
    let mut words = args.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            others.push(word.clone());
            others.extend(words.by_ref().cloned());
        } else if word == "--device" {
            let value = words.next().ok_or_else(|| {
                Error::Usage("--device needs a value, such as --device vulkan".to_owned())
            })?;
            device = Some(text(value)?);
        } else if let Some(value) = word
            .to_str()
            .and_then(|word| word.strip_prefix("--device="))
        {
            device = Some(value.to_owned());
        } else {
            others.push(word.clone());
        }
    }
    Ok((device, others))
}

fn text(word: &OsStr) -> Result<String> {
    word.to_str().map(str::to_owned).ok_or_else(|| {
        Error::Usage(format!(
            "--device '{}' is not valid UTF-8",
            word.to_string_lossy()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn every_device_string_has_its_feature() {
        assert_eq!(feature("flex").unwrap(), None);
        for kind in ["vulkan", "webgpu", "metal", "cuda", "rocm"] {
            assert_eq!(feature(kind).unwrap(), Some(kind));
            assert_eq!(feature(&format!("{kind}:12")).unwrap(), Some(kind));
        }
    }

    #[test]
    fn every_device_builds_with_its_own_features() {
        assert_eq!(build("flex").unwrap(), None);
        for (feature, expected) in [
            ("vulkan", "vulkan,autotune"),
            ("webgpu", "webgpu,autotune"),
            ("metal", "metal,autotune"),
            ("cuda", "cuda,autotune"),
            ("rocm", "rocm,autotune"),
        ] {
            let (features, target) = (expected, feature);
            assert_eq!(build_of(feature, false), Build { features, target });
        }
        let (features, target) = ("webgpu", "webgpu");
        for feature in ["vulkan", "webgpu"] {
            assert_eq!(build_of(feature, true), Build { features, target });
        }
    }

    #[test]
    fn a_bad_device_string_is_answered_with_the_list() {
        for bad in [
            "", "cpu", "Vulkan", "flex:0", "cuda:", "cuda:x", "cuda:-1", "cuda:+1",
        ] {
            let message = feature(bad).unwrap_err().to_string();
            assert!(
                message.starts_with(&format!("no device '{bad}'; ")),
                "{message}"
            );
            assert!(message.ends_with("rocm[:N]"), "{message}");
            assert_eq!(message.lines().count(), 1);
        }
    }

    #[test]
    fn the_device_is_found_in_both_spellings_and_the_last_counts() {
        let device = |line| find(&words(line)).unwrap();
        assert_eq!(device("--preset nano"), None);
        assert_eq!(
            device("--preset nano --device vulkan:1 --resume").as_deref(),
            Some("vulkan:1")
        );
        assert_eq!(device("--device=cuda").as_deref(), Some("cuda"));
        assert_eq!(
            device("--device flex --device=cuda").as_deref(),
            Some("cuda")
        );
        assert_eq!(device("-- --device cuda"), None);
        let message = find(&words("--resume --device")).unwrap_err().to_string();
        assert_eq!(message, "--device needs a value, such as --device vulkan");
    }

    #[test]
    fn split_keeps_the_other_arguments_in_order() {
        let (device, others) =
            split(&words("a --device cuda b --device=flex -- --device c")).unwrap();
        assert_eq!(device.as_deref(), Some("flex"));
        assert_eq!(others, words("a b -- --device c"));
    }
}
