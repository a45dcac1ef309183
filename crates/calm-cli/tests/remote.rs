//! Training on compute servers of this machine: the losses of one device, a dead server, a wrong token.
//! Compiled with feature `remote`.
#![cfg(feature = "remote")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

const TOKEN: &str = "a token of the test";

/// A server, which ends with the test.
struct Server {
    child: Child,
    /// Its device string.
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_calm"))
            .arg("serve-device")
            .args(args)
            .env("CALM_DEVICE_TOKEN", TOKEN)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut lines = stderr.lines().map_while(Result::ok);
        let line = lines.find(|line| line.contains("serving flex as "));
        let line = line.expect("an address");
        // What it says later is read too, so that it never waits for us.
        std::thread::spawn(move || lines.for_each(drop));
        let address = line.rsplit(' ').next().unwrap().to_owned();
        Self { child, address }
    }
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        let words = ["river", "stone", "house", "morning", "song"];
        let text: String = (0..600u32)
            .map(|i| format!("The {} of day {i} sings. ", words[(i * i % 5) as usize]))
            .collect();
        std::fs::write(place.0.path().join("text.txt"), text).unwrap();
        place
    }

    fn run(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn calm(&self, args: &[&str], token: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_calm"))
            .args(args)
            .current_dir(self.0.path())
            .env("CALM_CACHE", self.run("cache"))
            .env("CALM_DEVICE_TOKEN", token)
            .output()
            .unwrap()
    }

    /// A short run of all stages.
    fn train(&self, out: &str, steps: u32, devices: &[&str]) -> Output {
        let steps = steps.to_string();
        let set = [
            "data.validation_fraction=0.15".to_owned(),
            "data.test_fraction=0.15".to_owned(),
            "model.vocab_size=300".to_owned(),
            "model.window=16".to_owned(),
            "autoencoder.steps=4".to_owned(),
            "autoencoder.log_every=1".to_owned(),
            "autoencoder.accumulate=2".to_owned(),
            format!("lm.steps={steps}"),
            "lm.log_every=1".to_owned(),
            "lm.accumulate=2".to_owned(),
            "lm.checkpoint_every=2".to_owned(),
            "samples.tokens=4".to_owned(),
        ];
        let mut args = vec!["train", "--preset", "debug", "--corpus", "text.txt"];
        args.extend(["--out", out, "--set"]);
        args.extend(set.iter().map(String::as_str));
        args.extend(devices);
        self.calm(&args, TOKEN)
    }
}

/// Stage, step and loss of every step.
fn losses(run: &Path) -> Vec<(String, u64, f64)> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let row = |line: &str| {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let stage = row["stage"].as_str().unwrap().to_owned();
        (
            stage,
            row["step"].as_u64().unwrap(),
            row["loss"].as_f64().unwrap(),
        )
    };
    text.lines().map(row).collect()
}

fn assert_alike(one: &[(String, u64, f64)], other: &[(String, u64, f64)]) {
    assert_eq!(one.len(), other.len());
    for ((stage, step, a), (other_stage, other_step, b)) in one.iter().zip(other) {
        assert_eq!((stage, step), (other_stage, other_step));
        assert!((a / b - 1.0).abs() < 1e-4, "{stage} {step}: {a} and {b}");
    }
}

#[track_caller]
fn success(output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

/// The one line of a failure.
#[track_caller]
fn failure(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    said.lines().last().unwrap_or_default().to_owned()
}

#[test]
fn two_servers_train_as_one_device() {
    let place = Place::new();
    success(&place.train("one", 6, &[]));
    let servers = [0, 1].map(|_| Server::start(&["--listen", "127.0.0.1:0"]));
    let [first, second] = servers.each_ref().map(|server| server.address.as_str());
    // Both of them, and this process with one of them.
    let both = format!("{first},{second}");
    let mixed = format!("flex,{second}/0");
    for (name, devices) in [("two", both.as_str()), ("mixed", mixed.as_str())] {
        success(&place.train(name, 6, &["--devices", devices]));
        assert_alike(&losses(&place.run("one")), &losses(&place.run(name)));
    }
}

/// Every kernel's plain version, every model, decoding, training and checkpoints on a server.
#[test]
fn a_server_conforms() {
    let place = Place::new();
    let server = Server::start(&["--listen", "127.0.0.1:0"]);
    let output = place.calm(&["conform", "--device", &server.address], TOKEN);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}");
}

#[test]
fn an_encrypted_server_serves_too() {
    let place = Place::new();
    success(&place.train("one", 2, &[]));
    // A port that was free a moment ago.
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port().to_string();
    drop(socket);
    let key = place.run("server.key").display().to_string();
    let server = Server::start(&["--iroh", &port, "--key", &key]);
    let address = server.address.replace("THIS_HOST", "localhost");
    success(&place.train("far", 2, &["--device", &address]));
    assert_alike(&losses(&place.run("one")), &losses(&place.run("far")));
}

/// Sends a signal to a server once a run has logged so many rows; gives up after a minute.
fn signal_after(rows: usize, metrics: PathBuf, signal: &'static str, server: &Server) {
    let pid = server.child.id().to_string();
    std::thread::spawn(move || {
        for _ in 0..3000 {
            let text = std::fs::read_to_string(&metrics).unwrap_or_default();
            if text.lines().count() >= rows {
                let sent = Command::new("kill").args([signal, &pid]).status();
                assert!(sent.unwrap().success());
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    });
}

/// The autoencoder has 4 steps in these runs: so many rows, and the language model is under way.
const ROWS: usize = 12;

#[test]
fn a_server_that_dies_ends_the_run_with_its_name_and_a_resume_goes_on() {
    let place = Place::new();
    let steps = 400;
    let first = Server::start(&["--listen", "127.0.0.1:0"]);
    let second = Server::start(&["--listen", "127.0.0.1:0"]);
    let (a, b) = (&first.address, &second.address);
    signal_after(ROWS, place.run("run/metrics.jsonl"), "-KILL", &second);
    let devices = format!("{a},{b}");
    let said = failure(&place.train("run", steps, &["--devices", &devices]));
    assert!(
        said.contains(b.as_str()) && said.contains("--resume"),
        "{said}"
    );
    let logged = losses(&place.run("run"));
    let reached = logged.last().unwrap().1;
    assert!(reached > 2 && reached < u64::from(steps), "{reached}");

    // On the device that is left, with the same parts; the losses go on as they were.
    let again = ["train", "--resume", "--out", "run", "--devices", a];
    success(&place.calm(&again, TOKEN));
    let whole = losses(&place.run("run"));
    assert_eq!(whole.len(), 4 + steps as usize);
    let before: Vec<_> = logged.iter().filter(|row| row.0 == "lm").collect();
    let kept: Vec<_> = whole.iter().filter(|row| row.0 == "lm").collect();
    for (a, b) in before.iter().zip(&kept) {
        assert!((a.2 / b.2 - 1.0).abs() < 1e-3, "{a:?} and {b:?}");
    }
}

/// One that neither answers nor goes away, on either side of what moves.
#[test]
fn a_server_that_hangs_ends_the_run_in_time() {
    let place = Place::new();
    for (name, first) in [("second", false), ("first", true)] {
        let server = Server::start(&["--listen", "127.0.0.1:0"]);
        let metrics = place.run(name).join("metrics.jsonl");
        signal_after(ROWS, metrics, "-STOP", &server);
        let devices = match first {
            true => format!("{},flex", server.address),
            false => format!("flex,{}", server.address),
        };
        let args = ["--devices", &devices, "--device-timeout", "10"];
        let said = failure(&place.train(name, 4000, &args));
        assert!(said.contains(&server.address), "{said}");
        assert!(
            said.contains("no answer within 10 s") || said.contains("nothing happened for"),
            "{said}"
        );
        assert!(losses(&place.run(name)).len() >= ROWS, "{said}");
    }
}

#[test]
fn tokens_and_addresses_that_are_wrong_are_said() {
    let place = Place::new();
    let server = Server::start(&["--listen", "127.0.0.1:0"]);
    let address = server.address.as_str();
    let train = [
        "train", "--preset", "debug", "--corpus", "text.txt", "--device",
    ];
    let with =
        |device: &str, token: &str| failure(&place.calm(&[&train[..], &[device]].concat(), token));
    for token in ["", "another"] {
        let said = with(address, token);
        assert!(
            said.contains(address) && said.contains("CALM_DEVICE_TOKEN"),
            "{said}"
        );
    }
    let said = with(&format!("{address}/7"), TOKEN);
    assert!(said.contains("only 1 device"), "{said}");
    let said = with("remote:ws://127.0.0.1:1", TOKEN);
    assert!(said.contains("remote:ws://127.0.0.1:1"), "{said}");
    for form in [
        "remote:",
        "remote:ws://",
        "remote:tcp://x:1",
        "remote:iroh://nobody",
    ] {
        let said = with(form, TOKEN);
        assert!(said.contains("unknown device"), "{form}: {said}");
    }
    // Tensors don't go from one transport to the other.
    let iroh = format!("remote:iroh://{}", "k".repeat(52));
    let both = format!("flex,{address}/0,{iroh}");
    let said = failure(&place.calm(&[&train[..5], &["--devices", &both]].concat(), TOKEN));
    assert!(said.contains("error"), "{said}");
    // A server without a token is refused, unless it is meant.
    let serve = ["serve-device", "--listen", "127.0.0.1:0"];
    let said = failure(&place.calm(&serve, ""));
    assert!(said.contains("--insecure"), "{said}");
    let taken = address.rsplit('/').next().unwrap();
    let said = failure(&place.calm(&["serve-device", "--listen", taken], TOKEN));
    assert!(said.contains(taken), "{said}");
}
