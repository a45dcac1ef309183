//! `cargo xtask faults`: a trainer that is killed, whose disk fills up, whose files are damaged or gone,
//! and whether it ends with the same weights as one that was left alone.

mod checkpoints;
mod random;
mod trainer;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use checkpoints::{Checkpoint, STAGES, all, newest_valid};
use random::Random;
use trainer::{End, Part, Trainer, When, outcome};

use crate::process::{Error, Result};
use crate::{calm, target_dir};

const HELP: &str = "\
Kills the trainer at random instants, fills its disk, removes its text and damages its newest
checkpoint, on a miniature run, and compares what it ends with. Usage: cargo xtask faults [OPTIONS]

  --kills N    how often to kill it [default: 100]
  --seed N     of what is random [default: 1]
  --out DIR    where it works; emptied first [default: target/faults]

Writes DIR/faults.json. Filling the disk needs Linux and the right to mount in a namespace.
";

/// Kills of one run.
const KILLS_A_RUN: usize = 10;
/// Runs with a full disk: what the disk holds, as a part of what the whole run needs.
const DISKS: [f64; 6] = [0.02, 0.15, 0.3, 0.5, 0.7, 0.9];
/// Runs with a damaged checkpoint.
const DAMAGED: usize = 12;

struct Options {
    kills: usize,
    seed: u64,
    out: PathBuf,
}

/// Runs all of it.
pub fn run(root: &Path, args: &[OsString]) -> Result<u8> {
    let mut options = Options {
        kills: 100,
        seed: 1,
        out: target_dir(root, Some("faults")),
    };
    let mut words = args.iter().map(|word| word.to_string_lossy());
    while let Some(word) = words.next() {
        let mut value = || {
            let missing = || Error::Usage(format!("{word} needs a value"));
            words.next().ok_or_else(missing)
        };
        let number = |text: &str| {
            let bad = |_| Error::Usage(format!("'{text}' is no number"));
            text.parse::<u64>().map_err(bad)
        };
        match word.as_ref() {
            "--kills" => options.kills = number(&value()?)? as usize,
            "--seed" => options.seed = number(&value()?)?,
            "--out" => options.out = PathBuf::from(value()?.as_ref()),
            "--help" | "-h" => {
                print!("{HELP}");
                return Ok(0);
            }
            _ => return Err(Error::Usage(format!("no option '{word}'; see --help"))),
        }
    }
    let program = match calm::build(root, None, &[])? {
        Ok(program) => program,
        Err(status) => return Ok(status),
    };
    let begun = Instant::now();
    let mut harness = Harness::new(program, &options)?;
    let scenarios: [fn(&mut Harness, &Options) -> Result<Row>; 5] = [
        Harness::killed,
        Harness::full_disk,
        Harness::without_text,
        Harness::damaged,
        Harness::all_damaged,
    ];
    let mut rows = Vec::new();
    for scenario in scenarios {
        let row = scenario(&mut harness, &options)?;
        println!("{}", row.line());
        rows.push(row);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let good = rows.iter().all(|row| row.wrong.is_empty());
    println!("{seconds:.0} s in all");
    let report = serde_json::json!({
        "seed": options.seed,
        "seconds": seconds,
        "scenarios": rows.iter().map(Row::json).collect::<Vec<_>>(),
    });
    let path = options.out.join("faults.json");
    let text = serde_json::to_string_pretty(&report).expect("numbers and strings") + "\n";
    fs::write(&path, text).map_err(Error::io(&path))?;
    if !good {
        let places = options.out.display();
        eprintln!("error: not all went well; what is left of it lies in {places}");
    }
    Ok(u8::from(!good))
}

/// What a scenario came to.
struct Row {
    name: &'static str,
    /// What was counted, in order.
    counts: Vec<(&'static str, usize)>,
    /// One line for each thing that went wrong.
    wrong: Vec<String>,
    /// Why it could not be run.
    skipped: Option<String>,
}

impl Row {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            counts: Vec::new(),
            wrong: Vec::new(),
            skipped: None,
        }
    }

    fn count(&mut self, what: &'static str, n: usize) {
        match self.counts.iter_mut().find(|(name, _)| *name == what) {
            Some((_, count)) => *count += n,
            None => self.counts.push((what, n)),
        }
    }

    /// Notes what is wrong where something is.
    fn expect(&mut self, right: bool, otherwise: impl FnOnce() -> String) {
        if !right {
            self.wrong.push(otherwise());
        }
    }

    fn line(&self) -> String {
        let counts: Vec<String> = self
            .counts
            .iter()
            .map(|(what, n)| format!("{n} {what}"))
            .collect();
        let mut line = format!("{}: {}", self.name, counts.join(", "));
        if let Some(why) = &self.skipped {
            line.push_str(&format!("skipped: {why}"));
        }
        for wrong in &self.wrong {
            line.push_str(&format!("\n  WRONG: {wrong}"));
        }
        line
    }

    fn json(&self) -> serde_json::Value {
        let counts: serde_json::Map<_, _> = self
            .counts
            .iter()
            .map(|(what, n)| ((*what).to_owned(), (*n).into()))
            .collect();
        serde_json::json!({
            "name": self.name,
            "counts": counts,
            "wrong": self.wrong,
            "skipped": self.skipped,
        })
    }
}

struct Harness {
    trainer: Trainer,
    random: Random,
    outcome: trainer::Outcome,
    /// Seconds of its parts.
    seconds: [f64; 3],
    /// What it holds before the token model.
    calm_bytes: u64,
}

impl Harness {
    /// Trains the run that the others are compared with.
    fn new(program: PathBuf, options: &Options) -> Result<Self> {
        let trainer = Trainer::new(program, &options.out)?;
        let undisturbed = trainer.run("undisturbed");
        let (mut seconds, mut calm_bytes) = ([0.0; 3], 0);
        // The first makes tokenizer and token cache, which later runs find; the second is timed.
        for directory in [trainer.run("first"), undisturbed.clone()] {
            for (part, seconds) in Part::ALL.into_iter().zip(&mut seconds) {
                let begun = Instant::now();
                trainer.complete(&directory, part)?;
                *seconds = begun.elapsed().as_secs_f64();
                if part == Part::Calm {
                    calm_bytes = checkpoints::bytes(&directory)?;
                }
            }
        }
        let [first, outcome] = ["first", "undisturbed"].map(|name| outcome(&trainer, name));
        let outcome = outcome?;
        if first? != outcome {
            let message = "two undisturbed runs differ: what is compared is not exact here";
            return Err(Error::Failed(message.to_owned()));
        }
        println!(
            "undisturbed: {:.1} s, {} steps logged, {} bytes of weights",
            seconds.iter().sum::<f64>(),
            outcome.losses.len(),
            outcome.weights.iter().map(Vec::len).sum::<usize>()
        );
        Ok(Self {
            trainer,
            random: Random::new(options.seed),
            outcome,
            seconds,
            calm_bytes,
        })
    }

    /// Ends a run, and whether it is the undisturbed one.
    fn finish(&self, name: &str, row: &mut Row) -> Result<()> {
        let run = self.trainer.run(name);
        for part in [Part::Calm, Part::Baseline] {
            let end = self.trainer.attempt(&run, part, When::Never)?;
            if end != End::Complete {
                let why = self.trainer.last_line(&run);
                row.expect(false, || format!("{name}: it did not go on: {why}"));
                return Ok(());
            }
        }
        let found = outcome(&self.trainer, name)?;
        row.expect(found.losses == self.outcome.losses, || {
            format!("{name}: losses differ")
        });
        row.expect(found.weights == self.outcome.weights, || {
            format!("{name}: weights differ")
        });
        let same = found == self.outcome;
        row.count("ended with the same bits", usize::from(same));
        match same && !row.wrong.iter().any(|wrong| wrong.contains(name)) {
            true => self.trainer.remove(&run),
            // To be looked at.
            false => Ok(()),
        }
    }

    /// Every checkpoint under its own name is whole, and `latest` names one.
    fn look(&self, run: &Path, row: &mut Row) -> Result<Vec<Checkpoint>> {
        let checkpoints = all(run)?;
        for checkpoint in &checkpoints {
            row.expect(checkpoint.valid, || {
                format!("{} is not whole", checkpoint.path.display())
            });
        }
        row.count("checkpoints found whole", checkpoints.len());
        for stage in STAGES {
            let latest = run.join("checkpoints").join(stage).join("latest");
            if let Ok(name) = fs::read_to_string(&latest) {
                let named = latest.with_file_name(name.trim());
                row.expect(named.is_dir(), || {
                    format!("{} names nothing", latest.display())
                });
            }
        }
        Ok(checkpoints)
    }

    /// Whether an attempt went on where it should, if it came that far.
    fn check_start(&self, run: &Path, part: Part, before: &[Checkpoint], row: &mut Row) {
        let Some(said) = self.trainer.said_start(run) else {
            return;
        };
        let expected = part.expected_start(before);
        row.count("resumed", usize::from(expected.is_some()));
        row.expect(said == expected, || {
            format!(
                "{}: it said {said:?}, its newest checkpoint is {expected:?}",
                run.display()
            )
        });
    }

    /// One attempt that may be killed, and everything that can be seen after it.
    fn attempt(&mut self, run: &Path, part: Part, when: When, row: &mut Row) -> Result<End> {
        let before = all(run)?;
        let end = self.trainer.attempt(run, part, when)?;
        self.check_start(run, part, &before, row);
        self.look(run, row)?;
        Ok(end)
    }

    fn killed(&mut self, options: &Options) -> Result<Row> {
        let mut row = Row::new("killed");
        let mut left = options.kills;
        let mut number = 0;
        while left > 0 {
            number += 1;
            let name = format!("killed-{number}");
            let run = self.trainer.run(&name);
            let kills = left.min(KILLS_A_RUN);
            for (i, part) in Part::ALL.into_iter().enumerate() {
                let of_part = kills / 3 + usize::from(i < kills % 3);
                let mut killed = 0;
                while killed < of_part {
                    let when = match self.random.below(2) {
                        0 => When::After(self.random.unit() * self.seconds[i]),
                        _ => {
                            let writes = 1 + self.random.below(6) as usize;
                            When::Writing(writes, self.random.unit() * 0.01)
                        }
                    };
                    match self.attempt(&run, part, when, &mut row)? {
                        End::Killed { writing } => {
                            killed += 1;
                            left -= 1;
                            row.count("kills", 1);
                            row.count("amid a checkpoint", usize::from(writing));
                            row.count(part.name(), 1);
                        }
                        End::Complete => break,
                        End::Failed => {
                            let why = self.trainer.last_line(&run);
                            row.expect(false, || format!("{name}: {why}"));
                            return Ok(row);
                        }
                    }
                }
                // The next stage begins where this one ended.
                self.attempt(&run, part, When::Never, &mut row)?;
            }
            self.finish(&name, &mut row)?;
            row.count("runs", 1);
        }
        Ok(row)
    }

    fn full_disk(&mut self, _: &Options) -> Result<Row> {
        let mut row = Row::new("full disk");
        let Some(namespace) = trainer::namespace() else {
            row.skipped = Some("no right to mount in a namespace here".to_owned());
            return Ok(row);
        };
        for (i, part) in DISKS.into_iter().enumerate() {
            let name = format!("full-{i}");
            let bytes = (self.calm_bytes as f64 * part) as u64;
            let said = self.trainer.on_disk(&namespace, bytes, &name)?;
            row.count("disks", 1);
            let full = said.contains("No space left on device");
            row.expect(full && said.starts_with("error: "), || {
                format!("{name}: it said {said:?}")
            });
            row.count("said to be full", usize::from(full));
            self.look(&self.trainer.run(&name), &mut row)?;
            self.finish(&name, &mut row)?;
        }
        Ok(row)
    }

    /// Trains until a part has written so many checkpoints.
    fn begin(&mut self, name: &str, part: Part, writes: usize) -> Result<()> {
        let run = self.trainer.run(name);
        if part == Part::Baseline {
            self.trainer.complete(&run, Part::Calm)?;
        }
        // Another begins, so those before are whole.
        match self
            .trainer
            .attempt(&run, part, When::Writing(writes + 1, 0.0))?
        {
            End::Killed { .. } => Ok(()),
            end => {
                let message = format!("{name}: {end:?} before {writes} checkpoints were written");
                Err(Error::Failed(message))
            }
        }
    }

    fn without_text(&mut self, _: &Options) -> Result<Row> {
        let mut row = Row::new("without its text");
        for (name, and_cache) in [("textless", false), ("textless-uncached", true)] {
            self.begin(name, Part::Calm, 3)?;
            let run = self.trainer.run(name);
            let mut gone = vec![self.trainer.text()];
            if and_cache {
                gone.push(self.trainer.cache());
            }
            let aside = |path: &Path| path.with_extension("aside");
            for path in &gone {
                fs::rename(path, aside(path)).map_err(Error::io(path))?;
            }
            let end = self.attempt(&run, Part::Calm, When::Never, &mut row)?;
            row.count("runs", 1);
            row.expect(end == End::Failed || !and_cache, || {
                format!("{name}: it trained without a text")
            });
            if end == End::Failed {
                let said = self.trainer.last_line(&run);
                let text = self.trainer.text().display().to_string();
                row.expect(said.starts_with("error: ") && said.contains(&text), || {
                    format!("{name}: it said {said:?}")
                });
                row.count("named what is missing", 1);
            }
            for path in &gone {
                if path.is_dir() {
                    fs::remove_dir_all(path).map_err(Error::io(path))?;
                }
                fs::rename(aside(path), path).map_err(Error::io(path))?;
            }
            self.finish(name, &mut row)?;
        }
        Ok(row)
    }

    fn damaged(&mut self, _: &Options) -> Result<Row> {
        let mut row = Row::new("damaged checkpoint");
        for i in 0..DAMAGED {
            let name = format!("damaged-{i}");
            // The stages in turn: 20 checkpoints each.
            let (part, writes) = match i % 3 {
                0 => (Part::Calm, 2 + self.random.below(17) as usize),
                1 => (Part::Calm, 22 + self.random.below(17) as usize),
                _ => (Part::Baseline, 2 + self.random.below(17) as usize),
            };
            self.begin(&name, part, writes)?;
            let run = self.trainer.run(&name);
            let before = self.look(&run, &mut row)?;
            let stage = part.stage(&before);
            let Some(newest) = newest_valid(&before, stage) else {
                row.expect(false, || format!("{name}: no checkpoint of {stage}"));
                continue;
            };
            newest.damage(&mut self.random)?;
            row.count("damaged", 1);
            let now = all(&run)?;
            row.expect(newest_valid(&now, stage).is_some(), || {
                format!("{name}: nothing to go back to")
            });
            self.trainer.attempt(&run, part, When::Never)?;
            self.check_start(&run, part, &now, &mut row);
            let named = self.trainer.said(&run, &newest.path.display().to_string());
            row.count("named it", usize::from(named));
            row.expect(named, || {
                format!("{name}: {} not named", newest.path.display())
            });
            self.look(&run, &mut row)?;
            self.finish(&name, &mut row)?;
        }
        Ok(row)
    }

    fn all_damaged(&mut self, _: &Options) -> Result<Row> {
        let mut row = Row::new("all checkpoints damaged");
        let name = "ruined";
        self.begin(name, Part::Calm, 5)?;
        let run = self.trainer.run(name);
        let checkpoints = all(&run)?;
        let copies = run.with_extension("copies");
        trainer::copy(&run.join("checkpoints"), &copies)?;
        for checkpoint in &checkpoints {
            checkpoint.damage(&mut self.random)?;
        }
        let end = self.trainer.attempt(&run, Part::Calm, When::Never)?;
        let said = self.trainer.last_line(&run);
        let clear = end == End::Failed && said.starts_with("error: ");
        row.expect(clear && said.contains("checkpoint"), || {
            format!("it ended as {end:?} and said {said:?}")
        });
        row.count("refused", usize::from(clear));
        row.expect(all(&run)?.len() == checkpoints.len(), || {
            "checkpoints are gone".to_owned()
        });
        // With its files back it goes on.
        self.trainer.remove(&run.join("checkpoints"))?;
        trainer::copy(&copies, &run.join("checkpoints"))?;
        self.finish(name, &mut row)?;
        Ok(row)
    }
}
