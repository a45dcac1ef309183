//! The trainer as a process: started, watched, killed, and what it left.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::checkpoints::{Checkpoint, STAGES, newest_valid};
use crate::process::{self, Error, Result};

/// Steps of every stage.
const STEPS: u64 = 60;

/// What one call of the trainer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The autoencoder alone.
    Autoencoder,
    /// The language model, after the autoencoder where that is not there.
    Calm,
    /// The token model beside them.
    Baseline,
}

impl Part {
    pub const ALL: [Self; 3] = [Self::Autoencoder, Self::Calm, Self::Baseline];

    /// Of kills, in a count.
    pub fn name(self) -> &'static str {
        match self {
            Self::Autoencoder => "in the autoencoder",
            Self::Calm => "in the language model",
            Self::Baseline => "in the token model",
        }
    }

    /// The stage that is under way.
    pub fn stage(self, checkpoints: &[Checkpoint]) -> &'static str {
        match self {
            Self::Autoencoder => "autoencoder",
            Self::Baseline => "baseline",
            Self::Calm if newest_valid(checkpoints, "lm").is_some() => "lm",
            Self::Calm => "autoencoder",
        }
    }

    /// The step after which it must say that it goes on; none where a stage begins.
    pub fn expected_start(self, checkpoints: &[Checkpoint]) -> Option<u64> {
        let newest = newest_valid(checkpoints, self.stage(checkpoints))?;
        // A stage that is complete is not begun.
        (newest.step < STEPS).then_some(newest.step)
    }
}

/// When a trainer is killed.
#[derive(Clone, Copy, Debug)]
pub enum When {
    Never,
    /// Seconds after its start.
    After(f64),
    /// Seconds after it began to write so many checkpoints.
    Writing(usize, f64),
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Complete,
    /// With status other than 0.
    Failed,
    Killed {
        /// A checkpoint was half written.
        writing: bool,
    },
}

pub struct Trainer {
    program: PathBuf,
    place: PathBuf,
}

impl Trainer {
    /// Empties `place` and writes a text there.
    pub fn new(program: PathBuf, place: &Path) -> Result<Self> {
        let place = std::path::absolute(place).map_err(Error::io(place))?;
        let mark = place.join(".calm-faults");
        let is_ours = mark.is_file();
        if place.is_dir() && fs::read_dir(&place).is_ok_and(|mut e| e.next().is_some()) && !is_ours
        {
            let message = format!("{} holds something else", place.display());
            return Err(Error::Usage(message));
        }
        if place.is_dir() {
            fs::remove_dir_all(&place).map_err(Error::io(&place))?;
        }
        fs::create_dir_all(&place).map_err(Error::io(&place))?;
        fs::write(&mark, "").map_err(Error::io(&mark))?;
        let trainer = Self { program, place };
        let text = trainer.text();
        fs::write(&text, sentences()).map_err(Error::io(&text))?;
        Ok(trainer)
    }

    pub fn text(&self) -> PathBuf {
        self.place.join("text.txt")
    }

    pub fn cache(&self) -> PathBuf {
        self.place.join("cache")
    }

    pub fn run(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }

    fn log(&self, run: &Path) -> PathBuf {
        run.with_extension("log")
    }

    /// What it is told: to begin, or to go on where there is something to go on with.
    fn arguments(&self, run: &Path, part: Part) -> Vec<String> {
        let run_name = run.display().to_string();
        let mut words = vec!["train".to_owned(), "--out".to_owned(), run_name];
        if run.join("config.toml").is_file() {
            words.push("--resume".to_owned());
        } else {
            let text = self.text().display().to_string();
            words.extend(["--preset", "debug", "--corpus", &text, "--set"].map(str::to_owned));
            for stage in ["autoencoder", "lm", "baseline.training"] {
                let every = [("steps", STEPS), ("checkpoint_every", 3), ("log_every", 1)];
                words.extend(every.map(|(key, n)| format!("{stage}.{key}={n}")));
            }
        }
        let stage = match part {
            Part::Autoencoder => Some("autoencoder"),
            Part::Calm => None,
            Part::Baseline => Some("baseline"),
        };
        words.extend(
            stage
                .into_iter()
                .flat_map(|stage| ["--stage".to_owned(), stage.to_owned()]),
        );
        words
    }

    fn command(&self, run: &Path) -> Result<Command> {
        let log = self.log(run);
        let stderr = File::create(&log).map_err(Error::io(&log))?;
        let mut command = Command::new(&self.program);
        command
            .env("CALM_CACHE", self.cache())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr);
        Ok(command)
    }

    /// Trains to the end.
    pub fn complete(&self, run: &Path, part: Part) -> Result<()> {
        match self.attempt(run, part, When::Never)? {
            End::Complete => Ok(()),
            _ => Err(Error::Failed(self.last_line(run))),
        }
    }

    /// One call, which may be killed.
    pub fn attempt(&self, run: &Path, part: Part, when: When) -> Result<End> {
        let mut command = self.command(run)?;
        command.args(self.arguments(run, part));
        let mut child = command
            .spawn()
            .map_err(|source| process::spawn_error(&command, source))?;
        let cannot = |source| process::spawn_error(&command, source);
        if let Some(status) = wait(&mut child, run, when).map_err(cannot)? {
            return Ok(match status.success() {
                true => End::Complete,
                false => End::Failed,
            });
        }
        child.kill().map_err(cannot)?;
        child.wait().map_err(cannot)?;
        let writing = !half_written(run).is_empty();
        Ok(End::Killed { writing })
    }

    /// Trains on a disk of its own that holds `bytes`, keeps what is left under `name`, and returns the
    /// last line that was said.
    pub fn on_disk(&self, namespace: &[&str], bytes: u64, name: &str) -> Result<String> {
        let disk = self.place.join("disk");
        fs::create_dir_all(&disk).map_err(Error::io(&disk))?;
        let (on_disk, run) = (disk.join("run"), self.run(name));
        const SCRIPT: &str = "mount -t tmpfs -o size=$1 none \"$2\" || exit 99; from=$2/run; to=$3; \
                              shift 3; \"$@\"; status=$?; cp -a \"$from\" \"$to\"; exit $status";
        let mut command = self.command(&run)?;
        let mut inner = Command::new(namespace[0]);
        inner.args(&namespace[1..]).args(["sh", "-c", SCRIPT, "sh"]);
        inner.arg(bytes.to_string()).arg(&disk).arg(&run);
        inner.arg(command.get_program());
        inner.args(self.arguments(&on_disk, Part::Calm));
        let log = self.log(&run);
        let stderr = File::create(&log).map_err(Error::io(&log))?;
        inner
            .env("CALM_CACHE", self.cache())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr);
        command = inner;
        let status = process::status(&mut command)?;
        match status {
            0 => Ok("it was complete".to_owned()),
            99 => Err(Error::Failed(self.last_line(&run))),
            _ => Ok(self.last_line(&run)),
        }
    }

    /// Whether the last attempt said something.
    pub fn said(&self, run: &Path, what: &str) -> bool {
        fs::read_to_string(self.log(run)).is_ok_and(|log| log.contains(what))
    }

    /// The step after which the last attempt said that it goes on, if it came that far.
    pub fn said_start(&self, run: &Path) -> Option<Option<u64>> {
        let log = fs::read_to_string(self.log(run)).ok()?;
        let line = log.lines().find(|line| line.contains(" parameters, "))?;
        let step = line.rsplit_once("going on after step ");
        Some(step.and_then(|(_, step)| step.trim().parse().ok()))
    }

    pub fn last_line(&self, run: &Path) -> String {
        let log = fs::read_to_string(self.log(run)).unwrap_or_default();
        let line = log.lines().rfind(|line| !line.trim().is_empty());
        line.unwrap_or("nothing was said").to_owned()
    }

    /// Removes a folder and its log.
    pub fn remove(&self, directory: &Path) -> Result<()> {
        let _ = fs::remove_file(self.log(directory));
        fs::remove_dir_all(directory).map_err(Error::io(directory))
    }
}

/// Waits until it is time to kill, or for the end.
fn wait(
    child: &mut Child,
    run: &Path,
    when: When,
) -> std::io::Result<Option<std::process::ExitStatus>> {
    let begun = Instant::now();
    let (mut writes, mut was_writing) = (0, half_written(run));
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        match when {
            When::Never => return child.wait().map(Some),
            When::After(seconds) if begun.elapsed().as_secs_f64() >= seconds => return Ok(None),
            When::After(_) => std::thread::sleep(Duration::from_millis(1)),
            When::Writing(wanted, later) => {
                let now = half_written(run);
                writes += now
                    .iter()
                    .filter(|name| !was_writing.contains(name))
                    .count();
                was_writing = now;
                if writes >= wanted {
                    std::thread::sleep(Duration::from_secs_f64(later));
                    return Ok(None);
                }
                std::thread::sleep(Duration::from_micros(100));
            }
        }
    }
}

/// Checkpoints under way, or left half written.
fn half_written(run: &Path) -> Vec<PathBuf> {
    let of_stage = |stage: &&str| fs::read_dir(run.join("checkpoints").join(stage)).ok();
    let entries = STAGES.iter().filter_map(of_stage).flatten().flatten();
    let is_half = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // Not where an older one is put aside or removed, nor a small file that is replaced.
        let aside = [".writing-old-", ".writing-removed-"];
        path.is_dir()
            && name.starts_with(".writing-")
            && !aside.iter().any(|aside| name.starts_with(aside))
    };
    entries.map(|entry| entry.path()).filter(is_half).collect()
}

/// What a run came to.
#[derive(PartialEq)]
pub struct Outcome {
    /// Stage, step and the bits of the loss of every step.
    pub losses: Vec<(String, u64, u64)>,
    /// The exported files of CALM, autoencoder and token model.
    pub weights: Vec<Vec<u8>>,
}

/// The weights at the end of a run, without what changes from run to run (burnpack numbers its
/// tensors at random), and all losses.
pub fn outcome(trainer: &Trainer, name: &str) -> Result<Outcome> {
    let run = trainer.run(name);
    let path = run.join("metrics.jsonl");
    let text = fs::read_to_string(&path).map_err(Error::io(&path))?;
    let losses = text.lines().map(|line| {
        let row: serde_json::Value = serde_json::from_str(line).ok()?;
        let loss = row["loss"].as_f64()?.to_bits();
        Some((
            row["stage"].as_str()?.to_owned(),
            row["step"].as_u64()?,
            loss,
        ))
    });
    let losses: Option<Vec<_>> = losses.collect();
    let broken = || Error::Failed(format!("{}: a line that is no row", path.display()));
    let mut losses = losses.ok_or_else(broken)?;
    // A run that was killed may have begun its baseline before its language model ended.
    losses.sort();
    let mut weights = Vec::new();
    for words in [&["--run"][..], &["--baseline", "--run"]] {
        let out = run.with_extension("exported");
        let mut export = trainer.command(&out)?;
        export
            .arg("export")
            .args(words)
            .arg(&run)
            .arg("--out")
            .arg(&out);
        process::check(&mut export)
            .map_err(|e| Error::Failed(format!("{e}: {}", trainer.last_line(&out))))?;
        let mut files = vec![out.clone()];
        while let Some(path) = files.pop() {
            if path.is_dir() {
                let entries = fs::read_dir(&path).map_err(Error::io(&path))?;
                let mut inside: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
                inside.sort();
                files.extend(inside);
            } else if path
                .extension()
                .is_some_and(|ending| ending == "safetensors")
            {
                weights.push(fs::read(&path).map_err(Error::io(&path))?);
            }
        }
        trainer.remove(&out)?;
    }
    Ok(Outcome { losses, weights })
}

/// How to start a program that may mount: none where there is no way.
pub fn namespace() -> Option<Vec<&'static str>> {
    let ways = [
        vec!["unshare", "--user", "--map-root-user", "--mount"],
        vec!["unshare", "--mount"],
    ];
    ways.into_iter().find(|way| {
        let script = "d=$(mktemp -d) && mount -t tmpfs -o size=1m none $d && umount $d && rmdir $d";
        let mut try_it = Command::new(way[0]);
        try_it.args(&way[1..]).args(["sh", "-c", script]);
        try_it.stdin(Stdio::null()).stdout(Stdio::null());
        try_it.stderr(Stdio::null());
        try_it.status().is_ok_and(|status| status.success())
    })
}

/// Copies a folder.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).map_err(Error::io(to))?;
    for entry in fs::read_dir(from).map_err(Error::io(from))? {
        let path = entry.map_err(Error::io(from))?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        match path.is_dir() {
            true => copy(&path, &target)?,
            false => {
                fs::copy(&path, &target).map_err(Error::io(&path))?;
            }
        }
    }
    Ok(())
}

/// 130 KiB of sentences, always the same.
fn sentences() -> String {
    const WORDS: &str = "river stone house morning song walks under the and a of sings day night \
                         grass wind old new red blue king";
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    let mut random = super::random::Random::new(3);
    let mut text = String::new();
    for i in 0..3000 {
        let word =
            |random: &mut super::random::Random| words[random.below(words.len() as u64) as usize];
        let sentence: Vec<&str> = (0..9).map(|_| word(&mut random)).collect();
        text.push_str(&sentence.join(" "));
        text.push_str(if i % 10 == 9 { ".\n\n" } else { ". " });
    }
    text
}
