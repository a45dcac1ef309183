//! Progress of a run: bars on a terminal, one line per interval otherwise.

use std::io::IsTerminal;
use std::time::Duration;

use calm_data::{FetchState, PrepareEvent};
use calm_records::Stage;
use calm_report::format;
use calm_train::Event;
use indicatif::{ProgressBar, ProgressStyle};

use crate::model::passed_over;
use crate::output::tell;

/// Shows the events of a run on stderr.
pub struct Progress {
    terminal: bool,
    bar: Option<ProgressBar>,
    steps: u64,
    smoothed: Option<f64>,
    announced: Option<(&'static str, FetchState)>,
    /// The pass over the text that is shown.
    pass: Option<String>,
}

impl Progress {
    pub fn new() -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
            bar: None,
            steps: 0,
            smoothed: None,
            announced: None,
            pass: None,
        }
    }

    /// Shows a line of its own.
    pub fn note(&mut self, text: &str) {
        self.finish_bar();
        self.line(text);
    }

    fn bad_lines(&mut self, lines: u64) {
        if lines > 0 {
            self.finish_bar();
            self.line(&format!("skipped {lines} bad lines"));
        }
    }

    /// Shows one event.
    pub fn show(&mut self, event: Event<'_>) {
        match event {
            Event::Fetch(event) => self.fetch(event.corpus, event.state),
            Event::ReadingText {
                bytes_read,
                bytes_total,
            } => self.bytes("reading the text", bytes_read, bytes_total),
            Event::TrainingTokenizer {
                vocab_size,
                sample_bytes,
                text_bytes,
            } => {
                self.finish_bar();
                let of = match text_bytes {
                    None => ", the beginnings of the files".to_owned(),
                    Some(all) if all == sample_bytes => String::new(),
                    Some(all) => format!(", a sample of {}", format::bytes(all)),
                };
                self.line(&format!(
                    "training a tokenizer of {vocab_size} tokens on {}{of}",
                    format::bytes(sample_bytes)
                ));
                self.spin("merging pairs, {elapsed}");
            }
            Event::LittleText(split) => self.line(&format!(
                "little text: {:.1} % of it are for validation and {:.1} % for test{}",
                100.0 * split.validation_fraction,
                100.0 * split.test_fraction,
                match split.whole_below {
                    0 => ", at the end of every document",
                    _ => "",
                }
            )),
            Event::Tokenizing(PrepareEvent::Damaged(error)) => {
                self.line(&format!("{error}: it is made again"));
            }
            Event::Tokenizing(PrepareEvent::Progress(progress)) => {
                let (read, total) = (progress.bytes_read, progress.bytes_total);
                self.bytes("turning the text into tokens", read, total);
            }
            Event::DataReady {
                streamed,
                tokens,
                bad_lines,
            } => {
                self.finish_bar();
                self.pass = None;
                let [train, validation, test] = tokens.map(|n| format::count(n as f64));
                self.line(&match streamed {
                    true => format!(
                        "text: streamed; encoded first {validation} tokens for validation, {test} \
                         for test, {train} to count"
                    ),
                    false => format!(
                        "text: {train} tokens to train on, {validation} for validation, {test} for \
                         test"
                    ),
                });
                self.bad_lines(bad_lines);
            }
            Event::BadLines(lines) => self.bad_lines(lines),
            Event::PassedOver { error, taken } => self.line(&passed_over(error, taken)),
            Event::PrecisionLacking(precision) => self.line(&format!(
                "precision {}: not on this processor, products stay in f32",
                precision.name()
            )),
            Event::StageStarted {
                stage,
                from,
                steps,
                parameters,
            } => {
                self.finish_bar();
                let at = if from > 0 {
                    format!(", going on after step {from}")
                } else {
                    String::new()
                };
                let parameters = format::count(parameters as f64);
                self.line(&format!(
                    "{}: {parameters} parameters, {steps} steps{at}",
                    title(stage)
                ));
                self.steps = steps;
                self.smoothed = None;
                if self.terminal {
                    self.bar = Some(bar(steps, from, "{pos}/{len}  {msg}  {eta_precise} left"));
                }
            }
            Event::Stepped {
                step,
                loss,
                tokens_per_s,
                ..
            } => {
                let smoothed = self.smoothed.map_or(loss, |old| old + 0.05 * (loss - old));
                self.smoothed = Some(smoothed);
                if let Some(bar) = &self.bar {
                    bar.set_position(step);
                    let speed = format::count(tokens_per_s);
                    bar.set_message(format!("loss {smoothed:.4}  {speed} tokens/s"));
                }
            }
            Event::Logged(row) => {
                if !self.terminal {
                    let speed = format::count(row.tokens_per_s);
                    let left = row.seconds / row.step as f64 * (self.steps - row.step) as f64;
                    tell(&format!(
                        "{} {}/{}  loss {:.4}  {speed} tokens/s  {} left",
                        row.stage,
                        row.step,
                        self.steps,
                        row.loss,
                        format::duration(left)
                    ));
                }
            }
            Event::Evaluated(point) => {
                let mut parts = Vec::new();
                if let (Some(exact), Some(noisy)) =
                    (point.token_accuracy, point.noisy_token_accuracy)
                {
                    parts.push(format!(
                        "token accuracy {:.2} %, from a drawn latent {:.2} %",
                        100.0 * exact,
                        100.0 * noisy
                    ));
                }
                if let (Some(brier), Some(se), Some(lm)) =
                    (point.brier, point.brier_se, point.brier_lm)
                {
                    parts.push(format!(
                        "Brier-1 {:.4} ± {:.4}, BrierLM {lm:.2}",
                        brier[0], se[0]
                    ));
                }
                if let (Some(ratio), Some(accuracy)) =
                    (point.permuted_loss_ratio, point.noiseless_token_accuracy)
                {
                    parts.push(format!(
                        "loss {ratio:.3} times as high with permuted states, {:.1} % of tokens \
                         without noise",
                        100.0 * accuracy
                    ));
                }
                if let Some(nats) = point.cross_entropy {
                    parts.push(format!("cross-entropy {nats:.3}"));
                }
                self.line(&format!(
                    "{} step {}: {}",
                    point.stage,
                    point.step,
                    parts.join("; ")
                ));
            }
            Event::Saved(_) => {}
            Event::Scoring { done, of } => self.scoring(done, of),
            Event::Sampled(sample) => {
                let text = sample.text.replace('\n', " / ");
                self.line(&format!(
                    "T = {:.2}: {}{}",
                    sample.temperature,
                    sample.prompt,
                    text.chars().take(100).collect::<String>()
                ));
            }
            Event::Finished(_) => self.finish_bar(),
        }
    }

    /// Removes what is drawn on the terminal.
    pub fn finish_bar(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn fetch(&mut self, corpus: &'static str, state: FetchState) {
        // Each file is fetched, then verified: the corpus is announced once.
        if state == FetchState::Verifying || self.announced == Some((corpus, state)) {
            if let Some(bar) = &self.bar {
                bar.tick();
            }
            return;
        }
        self.announced = Some((corpus, state));
        match state {
            FetchState::Fetching if self.terminal => self.spin(&format!("fetching {corpus}")),
            FetchState::Fetching => tell(&format!("fetching {corpus}")),
            FetchState::Done => {
                self.finish_bar();
                self.line(&format!("fetched {corpus}"));
            }
            FetchState::Verifying | FetchState::Cached => {}
        }
    }

    /// Shows that something goes on whose end is not known.
    fn spin(&mut self, template: &str) {
        if self.terminal {
            let style = ProgressStyle::with_template(&format!("{{spinner}} {template}"))
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
            let bar = ProgressBar::new_spinner().with_style(style);
            bar.enable_steady_tick(Duration::from_millis(100));
            self.bar = Some(bar);
        }
    }

    /// Shows how far into a file, or into the text, a pass over it is; off a terminal, that it has begun.
    pub fn bytes(&mut self, what: &str, read: u64, total: u64) {
        if self.pass.as_deref() != Some(what) {
            self.finish_bar();
            self.pass = Some(what.to_owned());
            if self.terminal {
                let tail = format!("{{bytes}}/{{total_bytes}}  {what}  {{eta_precise}} left");
                self.bar = Some(bar(total, 0, &tail));
            } else {
                tell(&format!("{what}: {}", format::bytes(total)));
            }
        }
        if let Some(bar) = &self.bar {
            bar.set_position(read);
        }
    }

    fn scoring(&mut self, done: usize, of: usize) {
        if done == 1 {
            self.finish_bar();
            if self.terminal {
                self.bar = Some(bar(of as u64, 0, "{pos}/{len}  scoring windows"));
            } else {
                tell(&format!("scoring {of} windows"));
            }
        }
        if let Some(bar) = &self.bar {
            bar.set_position(done as u64);
        }
        if done == of {
            self.finish_bar();
        }
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => tell(text),
        }
    }
}

fn bar(length: u64, from: u64, tail: &str) -> ProgressBar {
    let template = format!("{{bar:30}} {tail}");
    let style = ProgressStyle::with_template(&template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸─");
    let bar = ProgressBar::new(length)
        .with_style(style)
        .with_position(from);
    bar.reset_eta();
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

fn title(stage: Stage) -> &'static str {
    match stage {
        Stage::Autoencoder => "chunk autoencoder",
        Stage::Lm => "language model",
        Stage::Baseline => "token baseline",
    }
}
