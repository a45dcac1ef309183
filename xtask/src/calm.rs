//! Builds `calm` with the features that the device needs, then becomes it.

use std::ffi::{OsStr, OsString};
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
    let mut extras = Vec::new();
    if name == "import" && args.iter().any(from_hub) {
        extras.push("hub");
    }
    if args.iter().any(|word| names_parquet(word)) {
        extras.push("parquet");
    }
    match build(root, wanted, &extras)? {
        // Not `cargo run`: a process between the terminal and calm would get Ctrl-C as well.
        Ok(binary) => process::become_program(Command::new(binary).arg(name).args(args)),
        Err(status) => Ok(status),
    }
}

/// Whether an argument is a Parquet file, a folder of them, or the folder of a run on such a file.
fn names_parquet(word: &OsStr) -> bool {
    let is_parquet = |name: &OsStr| {
        let name = name.to_string_lossy().to_lowercase();
        name.ends_with(".parquet")
    };
    // `--set data.corpus=a.parquet`, `--out=runs/mine`.
    let text = word.to_string_lossy();
    let path = text.rsplit_once('=').map_or(&*text, |(_, path)| path);
    let corpus = path.trim_matches(['[', ']', '"']);
    if is_parquet(OsStr::new(corpus)) {
        return true;
    }
    let config = std::fs::read_to_string(Path::new(path).join("config.toml"));
    let of_run = config.is_ok_and(|config| {
        let mut words = config.split('"').skip(1).step_by(2);
        words.any(|corpus| is_parquet(OsStr::new(corpus)) || holds_parquet(corpus, is_parquet))
    });
    of_run || holds_parquet(corpus, is_parquet)
}

fn holds_parquet(folder: &str, is_parquet: impl Fn(&OsStr) -> bool) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name())
        .any(|name| is_parquet(&name))
}

/// Builds calm and returns its path, or cargo's exit status: what is wrong it has said on stderr.
pub fn build(
    root: &Path,
    wanted: Option<Build>,
    extras: &[&str],
) -> Result<std::result::Result<PathBuf, u8>> {
    let mut build = build_command(root, wanted, extras);
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
/// `extras` are features beside those of the device: `hub` fetches models by name, `parquet` reads
/// such files.
fn build_command(root: &Path, wanted: Option<Build>, extras: &[&str]) -> Command {
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
    if !extras.is_empty() {
        build.args(["--features", &extras.join(",")]);
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
    fn parquet_files_are_seen_in_arguments_folders_and_runs() {
        let names = |word: &str| names_parquet(OsStr::new(word));
        assert!(names("shards/a.Parquet"));
        assert!(names("data.corpus=[\"a.parquet\"]"));
        assert!(!names("a.txt") && !names("data.corpus=a.jsonl") && !names("--resume"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        let shards = folder.path().join("shards");
        std::fs::create_dir(&shards).unwrap();
        assert!(!names(path) && !names(shards.to_str().unwrap()));
        std::fs::write(shards.join("a.parquet"), "").unwrap();
        assert!(!names(path) && names(shards.to_str().unwrap()));
        let config = format!("corpus = [{:?}]\n", shards.to_str().unwrap());
        std::fs::write(folder.path().join("config.toml"), config).unwrap();
        assert!(names(path) && names(&format!("--out={path}")));
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
    }
}
