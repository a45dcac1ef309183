//! Builds `calm` with the features that the device needs, then becomes it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::device::Build;
use crate::process::{Error, Result};
use crate::{device, process, target_dir, vulkan};

/// The commands of `calm` that are passed through as they are.
pub const COMMANDS: [&str; 13] = [
    "train",
    "eval",
    "generate",
    "compare",
    "cost",
    "plan",
    "data",
    "report",
    "import",
    "export",
    "trace",
    "conform",
    "serve-device",
];

/// Builds calm, then runs `calm NAME ARGS` where the user is, so that relative paths mean what they
/// say; the exit status is calm's.
pub fn run(root: &Path, name: &str, args: &[OsString]) -> Result<u8> {
    let mut devices = device::named(args)?;
    if name == "serve-device" {
        devices.push("remote:://".to_owned());
    }
    let wanted = device::build(&devices)?;
    let is_wgpu = |wanted: &Build| {
        let mut kinds = wanted.target.split('-');
        kinds.any(|kind| matches!(kind, "vulkan" | "webgpu"))
    };
    if wanted.as_ref().is_some_and(is_wgpu)
        && let Some(hint) = vulkan::hint()
    {
        eprintln!("hint: {hint}");
    }
    let from_hub = |word: &OsString| word.to_string_lossy().contains("hf:");
    let hub = name == "import" && args.iter().any(from_hub);
    match build(root, wanted, hub)? {
        // Not `cargo run`: a process between the terminal and calm would get Ctrl-C as well.
        Ok(binary) => process::become_program(Command::new(binary).arg(name).args(args)),
        Err(status) => Ok(status),
    }
}

/// Builds calm and returns its path, or cargo's exit status: what is wrong it has said on stderr.
pub fn build(
    root: &Path,
    wanted: Option<Build>,
    hub: bool,
) -> Result<std::result::Result<PathBuf, u8>> {
    let mut build = build_command(root, wanted, hub);
    let output = build
        .output()
        .map_err(|source| process::spawn_error(&build, source))?;
    if !output.status.success() {
        return Ok(Err(process::exit_code(output.status)));
    }
    executable(&String::from_utf8_lossy(&output.stdout), "calm")
        .map(Ok)
        .ok_or_else(|| Error::Failed("cargo built no binary 'calm'".to_owned()))
}

/// `cargo build` of calm; what it builds is told as JSON on stdout, progress and errors on stderr.
///
/// With `hub` it can fetch models by name.
fn build_command(root: &Path, wanted: Option<Build>, hub: bool) -> Command {
    let mut build = process::cargo(root);
    build.args([
        "build",
        "--release",
        "--package",
        "calm-cli",
        "--bin",
        "calm",
    ]);
    if let Some(wanted) = &wanted {
        build.args(["--features", &wanted.features]);
    }
    if hub {
        build.args(["--features", "hub"]);
    }
    let target = wanted.as_ref().map(|wanted| wanted.target.as_str());
    build.arg("--target-dir").arg(target_dir(root, target));
    build.args(["--message-format", "json-render-diagnostics"]);
    build
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    build
}

/// The path of the binary `name` in cargo's messages (one JSON object a line).
///
/// Asking cargo is the only way that is right under every `build.target` and target directory.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|m| m["reason"] == "compiler-artifact" && m["target"]["name"] == name)
        .find_map(|m| m["executable"].as_str().map(PathBuf::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_is_read_from_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"calm_cli"},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"calm"},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"calm"},"#,
            r#""executable":"C:\\a \"b\"\\\u00e9"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(
            executable(messages, "calm"),
            Some(PathBuf::from("C:\\a \"b\"\\é"))
        );
        assert_eq!(executable(messages, "other"), None);
    }
}
