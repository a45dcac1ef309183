//! Starting programs, what their end means, and what can go wrong.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

/// Shorthand for this crate's results.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong in a repository task; `Display` is one line that says what, where and what to
/// do.
#[derive(Debug)]
pub enum Error {
    /// The command line asks for something that does not exist.
    Usage(String),
    /// Anything else.
    Failed(String),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Usage(message) | Self::Failed(message)) = self;
        f.write_str(message)
    }
}

impl Error {
    /// A file or folder that can't be read or made.
    pub fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::Failed(format!("{path}: {source}"))
    }
}

/// The cargo that started xtask (`CARGO`), in `root`.
pub fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

/// The exit status to pass on: the program's own, or 128 + signal where a signal ended it.
pub fn exit_code(status: ExitStatus) -> u8 {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return u8::try_from(128 + signal).unwrap_or(255);
    }
    // Windows statuses can be any 32-bit number: a failure must not become 0 by truncation.
    status
        .code()
        .map_or(1, |code| u8::try_from(code).unwrap_or(1))
}

/// Runs a command to its end and returns its exit status.
pub fn status(command: &mut Command) -> Result<u8> {
    let status = command
        .status()
        .map_err(|source| spawn_error(command, source))?;
    Ok(exit_code(status))
}

/// Runs a command to its end; an exit status other than 0 is an error.
pub fn check(command: &mut Command) -> Result<()> {
    match status(command)? {
        0 => Ok(()),
        status => Err(failed(command, status)),
    }
}

fn failed(command: &Command, status: u8) -> Error {
    Error::Failed(format!("`{}` ended with status {status}", line(command)))
}

/// Runs a command with its stdout shown as it comes and each line also given to `on_line`.
pub fn check_lines(command: &mut Command, mut on_line: impl FnMut(&str)) -> Result<()> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|source| spawn_error(command, source))?;
    if let Some(stdout) = child.stdout.take() {
        let mut reader = BufReader::new(stdout);
        let mut bytes = Vec::new();
        while reader.read_until(b'\n', &mut bytes).unwrap_or(0) > 0 {
            // A closed stdout of our own must not end the child: its status still counts.
            let _ = io::stdout()
                .write_all(&bytes)
                .and_then(|()| io::stdout().flush());
            on_line(&String::from_utf8_lossy(&bytes));
            bytes.clear();
        }
    }
    let status = child
        .wait()
        .map_err(|source| spawn_error(command, source))?;
    match exit_code(status) {
        0 => Ok(()),
        status => Err(failed(command, status)),
    }
}

/// Runs a command to its end and returns what it wrote to stdout; an exit status other than 0 is an
/// error with the first line that it wrote to stderr.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .map_err(|source| spawn_error(command, source))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let why = stderr.lines().next().unwrap_or("no reason given");
    Err(Error::Failed(format!("`{}` failed: {why}", line(command))))
}

/// Whether a program answers `--version`: how an optional tool is found.
pub fn answers(command: &mut Command) -> bool {
    command
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Becomes the program, so that signals reach it alone and its exit status is ours.
///
/// Where processes can't be replaced (Windows), waits for it and returns its status.
pub fn become_program(command: &mut Command) -> Result<u8> {
    #[cfg(unix)]
    {
        let source = std::os::unix::process::CommandExt::exec(command);
        Err(spawn_error(command, source))
    }
    #[cfg(not(unix))]
    status(command)
}

/// An error that names the program that would not start.
pub fn spawn_error(command: &Command, source: io::Error) -> Error {
    let program = command.get_program().to_string_lossy();
    Error::Failed(format!(
        "cannot start {program}: {source}; is it installed and on PATH?"
    ))
}

/// The command line for messages; cargo's full path is shortened to its name.
pub fn line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(command.get_program());
    let words: Vec<_> = std::iter::once(name).chain(command.get_args()).collect();
    words
        .iter()
        .map(|word: &&OsStr| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn status_is_passed_on_and_a_signal_is_128_plus_its_number() {
        assert_eq!(status(&mut shell("exit 0")).unwrap(), 0);
        assert_eq!(status(&mut shell("exit 42")).unwrap(), 42);
        assert_eq!(status(&mut shell("kill -15 $$")).unwrap(), 143);
    }

    #[test]
    fn lines_are_seen_and_the_failure_names_the_command() {
        let mut seen = Vec::new();
        let error = check_lines(&mut shell("echo one; echo two; exit 3"), |line| {
            seen.push(line.trim_end().to_owned());
        })
        .unwrap_err();
        assert_eq!(seen, ["one", "two"]);
        assert_eq!(
            error.to_string(),
            "`sh -c echo one; echo two; exit 3` ended with status 3"
        );
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = status(&mut Command::new("no-such-program-here")).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("cannot start no-such-program-here: "),
            "{error}"
        );
        assert!(!answers(&mut Command::new("no-such-program-here")));
    }
}
