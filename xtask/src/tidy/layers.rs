//! The layers: a crate depends only on crates of lower layers.

use super::Report;
use super::manifest::{Section, dependencies};

/// The crates and their layers, as in ARCHITECTURE.md.
const LAYERS: [(&str, u8); 14] = [
    ("calm-alloc", 0),
    ("calm-data", 0),
    ("calm-report", 0),
    ("calm-kernels", 0),
    ("calm-nn", 1),
    ("calm-autoencoder", 2),
    ("calm-backbone", 2),
    ("calm-likelihood-free", 2),
    ("calm-baseline", 2),
    ("calm-lm", 3),
    ("calm-eval", 4),
    ("calm-train", 5),
    ("calm-compare", 6),
    ("calm-cli", 7),
];

/// The crates that touch files although their layer is low, and that link no tensor library.
pub const DATA_CRATES: [&str; 2] = ["calm-data", "calm-report"];

/// What only calm-kernels may name: Burn's executors and their kernel language.
pub const KERNEL_LIBRARIES: [&str; 3] = ["burn-flex", "burn-cubecl", "cubecl"];

/// A crate's layer; `None` for what is not in the table.
pub fn layer(name: &str) -> Option<u8> {
    LAYERS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, layer)| *layer)
}

/// The name of the crate that a path under crates/ belongs to.
pub fn crate_of(path: &str) -> Option<&str> {
    path.strip_prefix("crates/")?
        .split_once('/')
        .map(|(name, _)| name)
}

/// Checks the dependencies that a Cargo.toml names.
pub fn check(manifest: &str, report: &mut Report<'_>) {
    let name = crate_of(report.path);
    let own = name.and_then(layer);
    if let (Some(name), None) = (name, own) {
        report.add(
            1,
            "layers",
            format!("{name} is not in the table of layers (xtask, ARCHITECTURE.md)"),
        );
    }
    for dependency in dependencies(manifest) {
        let line = dependency.line;
        let other = dependency.name.as_str();
        // Tests may look down on anything; only what is built into a crate has a layer.
        if dependency.section != Section::Dev
            && let (Some(name), Some(own), Some(below)) = (name, own, layer(other))
            && below >= own
        {
            report.add(
                line,
                "layers",
                format!("{name} (layer {own}) may not depend on {other} (layer {below})"),
            );
        }
        if name.is_some_and(|name| DATA_CRATES.contains(&name)) && is_tensor_library(other) {
            let name = name.unwrap_or_default();
            report.add(
                line,
                "layers",
                format!("{name} links no tensor library, but names {other}"),
            );
        } else if name != Some("calm-kernels") && KERNEL_LIBRARIES.contains(&other) {
            report.add(
                line,
                "layers",
                format!("only calm-kernels may name {other}"),
            );
        }
        if report.path == "xtask/Cargo.toml" && (is_tensor_library(other) || layer(other).is_some())
        {
            report.add(
                line,
                "layers",
                format!("xtask builds in seconds: it may not link {other}"),
            );
        }
    }
}

fn is_tensor_library(name: &str) -> bool {
    ["burn", "cubecl"].iter().any(|library| {
        name == *library
            || name
                .strip_prefix(library)
                .is_some_and(|rest| rest.starts_with('-'))
    })
}

#[cfg(test)]
mod tests {
    use super::super::found;
    use super::*;

    fn in_crate(name: &str, manifest: &str) -> Vec<String> {
        found(check, &format!("crates/{name}/Cargo.toml"), manifest)
    }

    #[test]
    fn a_crate_depends_on_lower_layers_only() {
        let lines = |names: &[&str]| {
            let names: String = names
                .iter()
                .map(|n| format!("{n}.workspace = true\n"))
                .collect();
            format!("[dependencies]\n{names}")
        };
        assert_eq!(
            in_crate("calm-lm", &lines(&["burn", "calm-nn", "calm-backbone"])),
            [""; 0]
        );
        // Upwards, sideways, and itself.
        assert_eq!(in_crate("calm-nn", &lines(&["calm-lm"])), ["2: layers"]);
        assert_eq!(
            in_crate("calm-backbone", &lines(&["calm-nn", "calm-autoencoder"])),
            ["3: layers"]
        );
        assert_eq!(in_crate("calm-nn", &lines(&["calm-nn"])), ["2: layers"]);
        let build = "[build-dependencies]\ncalm-cli = { path = \"../calm-cli\" }\n";
        assert_eq!(in_crate("calm-nn", build), ["2: layers"]);
        let dev = "[dev-dependencies]\ncalm-likelihood-free.workspace = true\n";
        assert_eq!(in_crate("calm-backbone", dev), [""; 0]);
    }

    #[test]
    fn a_crate_without_a_layer_is_found() {
        assert_eq!(in_crate("calm-new", "[package]\n"), ["1: layers"]);
        assert_eq!(
            found(
                check,
                "benches/Cargo.toml",
                "[dependencies]\ncalm-lm = \"1\"\n"
            ),
            [""; 0]
        );
    }

    #[test]
    fn data_and_report_link_no_tensor_library() {
        for library in ["burn", "burn-store", "cubecl"] {
            let manifest = format!("[dev-dependencies]\n{library} = \"1\"\n");
            assert_eq!(in_crate("calm-data", &manifest), ["2: layers"], "{library}");
            assert_eq!(
                in_crate("calm-report", &manifest),
                ["2: layers"],
                "{library}"
            );
        }
        assert_eq!(
            in_crate("calm-data", "[dependencies]\nburner = \"1\"\n"),
            [""; 0]
        );
    }

    #[test]
    fn kernel_libraries_belong_to_calm_kernels() {
        for library in KERNEL_LIBRARIES {
            let manifest = format!("[dependencies]\n{library} = {{ version = \"1\" }}\n");
            assert_eq!(in_crate("calm-kernels", &manifest), [""; 0]);
            assert_eq!(in_crate("calm-nn", &manifest), ["2: layers"]);
            assert_eq!(found(check, "benches/Cargo.toml", &manifest), ["2: layers"]);
        }
    }

    #[test]
    fn xtask_stays_thin() {
        let manifest = "[dependencies]\ncalm-report.workspace = true\nserde = \"1\"\n";
        assert_eq!(found(check, "xtask/Cargo.toml", manifest), ["2: layers"]);
    }
}
