//! Device strings: which cargo features a `--device` argument needs.

use std::ffi::OsString;

use crate::process::{Error, Result};
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
    let (name, index) = device.split_once(':').unwrap_or((device, "0"));
    let kind = KINDS.iter().find(|kind| **kind == name);
    // Digits only: `usize` would also parse "+1".
    let is_index = index.bytes().all(|b| b.is_ascii_digit()) && index.parse::<usize>().is_ok();
    match kind {
        Some(&"flex") if name == device => Ok(None),
        Some(&kind) if kind != "flex" && is_index => Ok(Some(kind)),
        _ => Err(Error::Usage(format!(
            "no device '{device}'; the devices are flex, vulkan[:N], webgpu[:N], metal[:N], \
             cuda[:N], rocm[:N]"
        ))),
    }
}

/// The value of `--device X` or `--device=X`, the last where there are several, and the arguments
/// without it. Arguments after `--` are not options and are not looked at.
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
            device = Some(value.to_string_lossy().into_owned());
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
        for feature in ["vulkan", "webgpu", "metal", "cuda", "rocm"] {
            let build = build_of(feature, false);
            assert_eq!(build.features, format!("{feature},autotune"));
            assert_eq!(build.target, feature);
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
    fn the_last_device_counts_and_the_other_arguments_keep_their_order() {
        let line = words("a --device cuda b --device=vulkan:1 -- --device c");
        let (device, others) = split(&line).unwrap();
        assert_eq!(device.as_deref(), Some("vulkan:1"));
        assert_eq!(others, words("a b -- --device c"));
        let message = split(&words("--resume --device")).unwrap_err().to_string();
        assert_eq!(message, "--device needs a value, such as --device vulkan");
    }
}
