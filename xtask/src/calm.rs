//! Builds `calm` with the features that the device needs, then becomes it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::device::Build;
use crate::error::{Error, Result};
use crate::{device, process, target_dir, vulkan};

/// The commands of `calm` that are passed through as they are.
pub const COMMANDS: [&str; 12] = [
    "train",
    "eval",
    "generate",
    "data",
    "report",
    "compare",
    "cost",
    "plan",
    "import",
    "export",
    "trace",
    "serve-device",
];

/// Builds calm, then runs `calm NAME ARGS` where the user is, so that relative paths mean what they
/// say; the exit status is calm's.
pub fn run(root: &Path, name: &str, args: &[OsString]) -> Result<u8> {
    let device = device::find(args)?;
    let wanted = device::build(device.as_deref().unwrap_or("flex"))?;
    if wanted.is_some_and(|wanted| matches!(wanted.target, "vulkan" | "webgpu"))
        && let Some(hint) = vulkan::hint()
    {
        eprintln!("hint: {hint}");
    }
    let mut build = build_command(root, wanted);
    let output = build
        .output()
        .map_err(|source| process::spawn_error(&build, source))?;
    if !output.status.success() {
        // cargo has said what is wrong on stderr.
        return Ok(process::exit_code(output.status));
    }
    let binary = executable(&String::from_utf8_lossy(&output.stdout), "calm")
        .ok_or(Error::NoBinary { name: "calm" })?;
    // Not `cargo run`: a process between the terminal and calm would get Ctrl-C as well.
    process::become_program(Command::new(binary).arg(name).args(args))
}

/// `cargo build` of calm; what it builds is told as JSON on stdout, progress and errors on stderr.
fn build_command(root: &Path, wanted: Option<Build>) -> Command {
    let mut build = process::cargo(root);
    build.args([
        "build",
        "--release",
        "--package",
        "calm-cli",
        "--bin",
        "calm",
    ]);
    if let Some(wanted) = wanted {
        build.args(["--features", wanted.features]);
    }
    let target = wanted.map(|wanted| wanted.target);
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
    let target = format!("\"name\":\"{name}\"");
    messages
        .lines()
        .filter(|line| line.contains("\"reason\":\"compiler-artifact\"") && line.contains(&target))
        .find_map(|line| string_value(line, "executable"))
        .map(PathBuf::from)
}

/// The string under `key` in one line of compact JSON; `None` where it is absent or not a string.
fn string_value(line: &str, key: &str) -> Option<String> {
    let marker = format!("\"{key}\":\"");
    let start = line.find(&marker)? + marker.len();
    let mut value = String::new();
    let mut chars = line[start..].chars();
    loop {
        match chars.next()? {
            '"' => return Some(value),
            '\\' => match chars.next()? {
                'u' => {
                    let digits: String = chars.by_ref().take(4).collect();
                    value.push(char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?);
                }
                'n' => value.push('\n'),
                't' => value.push('\t'),
                'r' => value.push('\r'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_has_the_features_own_target_directory() {
        let root = Path::new("repository");
        let flex = process::line(&build_command(root, None));
        assert!(
            flex.starts_with("cargo build --release --package calm-cli --bin calm --target-dir")
        );
        assert!(!flex.contains("--features"));
        let (features, target) = ("cuda,autotune", "cuda");
        let command = build_command(root, Some(Build { features, target }));
        let args: Vec<_> = command
            .get_args()
            .map(|arg| arg.to_string_lossy())
            .collect();
        let after = |option: &str| args.iter().skip_while(|arg| *arg != option).nth(1).cloned();
        assert_eq!(after("--features").as_deref(), Some(features));
        assert!(after("--target-dir").unwrap().ends_with("cuda"));
    }

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
        assert_eq!(string_value(r#"{"executable":"torn"#, "executable"), None);
    }
}
