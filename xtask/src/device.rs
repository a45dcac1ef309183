//! Device strings: which cargo features a `--device` argument needs.

use std::ffi::OsString;

use crate::process::{Error, Result};
use crate::vulkan;

/// The devices, as `--device` takes them; every one but flex needs the cargo feature of its name.
const KINDS: [&str; 7] = [
    "flex", "vulkan", "webgpu", "metal", "cuda", "rocm", "remote",
];

/// What devices ask of the build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// Features of calm-cli and of the benches, as `--features` takes them.
    pub features: String,
    /// The folder under `target` that builds with these features share.
    pub target: String,
}

/// What to build for some devices; nothing special for `flex`, which is always compiled in.
///
/// Where a machine has no GPU, `vulkan` means Mesa's software driver. It gets kernels in WGSL,
/// because cubecl's SPIR-V needs an extension that older versions of that driver lack, and no
/// autotuning, which there compiles for minutes and finds nothing faster.
pub fn build<S: AsRef<str>>(devices: &[S]) -> Result<Option<Build>> {
    let features: Result<Vec<_>> = devices.iter().map(|name| feature(name.as_ref())).collect();
    let features: Vec<&str> = features?.into_iter().flatten().collect();
    let is_wgpu = |feature: &&str| matches!(*feature, "vulkan" | "webgpu");
    let software = features.iter().any(is_wgpu) && vulkan::software_only();
    if software && features.contains(&"vulkan") {
        eprintln!("note: no GPU found; building for a software driver (kernels in WGSL)");
    }
    Ok(build_of(features, software))
}

fn build_of(mut features: Vec<&'static str>, software: bool) -> Option<Build> {
    for feature in &mut features {
        if software && *feature == "vulkan" {
            *feature = "webgpu";
        }
    }
    features.sort_unstable();
    features.dedup();
    let target = features.join("-");
    let is_gpu = |feature: &&str| *feature != "remote";
    if features.iter().any(is_gpu) && !software {
        features.push("autotune");
    }
    let features = features.join(",");
    (!target.is_empty()).then_some(Build { features, target })
}

/// The cargo feature that a device string needs: none for `flex`, which is always compiled in.
fn feature(device: &str) -> Result<Option<&'static str>> {
    let (name, rest) = device.split_once(':').unwrap_or((device, "0"));
    let kind = KINDS.iter().find(|kind| **kind == name);
    // Digits only: `usize` would also parse "+1".
    let is_index = rest.bytes().all(|b| b.is_ascii_digit()) && rest.parse::<usize>().is_ok();
    match kind {
        Some(&"flex") if name == device => Ok(None),
        // What else it says is for calm to read.
        Some(&"remote") if rest.contains("://") => Ok(Some("remote")),
        Some(&kind) if !matches!(kind, "flex" | "remote") && is_index => Ok(Some(kind)),
        _ => Err(Error::Usage(format!(
            "no device '{device}'; the devices are flex, vulkan[:N], webgpu[:N], metal[:N], \
             cuda[:N], rocm[:N], remote:ws://HOST:PORT[/N], remote:iroh://ID@HOST:PORT[/N]"
        ))),
    }
}

/// The devices that a command line names by `--device` or `--devices`; flex where it names none.
pub fn named(args: &[OsString]) -> Result<Vec<String>> {
    let mut devices = Vec::new();
    let mut words = args.iter().map(|word| word.to_string_lossy());
    while let Some(word) = words.next() {
        let value = match word.split_once('=') {
            _ if word == "--" => break,
            Some(("--device" | "--devices", value)) => value.to_owned(),
            None if word == "--device" || word == "--devices" => {
                let missing = || Error::Usage(format!("{word} needs a value"));
                words.next().ok_or_else(missing)?.into_owned()
            }
            _ => continue,
        };
        devices = value.split(',').map(str::to_owned).collect();
    }
    if devices.is_empty() {
        devices.push("flex".to_owned());
    }
    Ok(devices)
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
        for remote in ["remote:ws://host:3000/1", "remote:iroh://id@1.2.3.4:5"] {
            assert_eq!(feature(remote).unwrap(), Some("remote"));
        }
    }

    #[test]
    fn devices_build_with_their_own_features() {
        assert_eq!(build(&["flex"]).unwrap(), None);
        let of = |features: &[&'static str], software| {
            let build = build_of(features.to_vec(), software).unwrap();
            (build.features, build.target)
        };
        let pair = |features: &str, target: &str| (features.to_owned(), target.to_owned());
        for feature in ["vulkan", "webgpu", "metal", "cuda", "rocm"] {
            let expected = pair(&format!("{feature},autotune"), feature);
            assert_eq!(of(&[feature], false), expected);
        }
        for feature in ["vulkan", "webgpu"] {
            assert_eq!(of(&[feature], true), pair("webgpu", "webgpu"));
        }
        assert_eq!(of(&["remote", "remote"], false), pair("remote", "remote"));
        let both = pair("cuda,remote,autotune", "cuda-remote");
        assert_eq!(of(&["remote", "cuda", "cuda"], false), both);
    }

    #[test]
    fn devices_are_found_in_a_command_line() {
        let of = |line: &str| named(&words(line)).unwrap();
        assert_eq!(of("train"), ["flex"]);
        assert_eq!(of("a --device cuda:1 b"), ["cuda:1"]);
        assert_eq!(
            of("--devices=cuda:0,cuda:1 -- --device x"),
            ["cuda:0", "cuda:1"]
        );
        assert_eq!(
            of("--devices flex,remote:ws://a:1/0"),
            ["flex", "remote:ws://a:1/0"]
        );
        assert!(named(&words("--devices")).is_err());
    }

    #[test]
    fn a_bad_device_string_is_answered_with_the_list() {
        for bad in [
            "", "cpu", "Vulkan", "flex:0", "cuda:", "cuda:x", "cuda:-1", "cuda:+1", "remote",
            "remote:0",
        ] {
            let message = feature(bad).unwrap_err().to_string();
            assert!(
                message.starts_with(&format!("no device '{bad}'; ")),
                "{message}"
            );
            assert!(message.contains("rocm[:N]"), "{message}");
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
