//! Ctrl-C and kill -9 in each stage, then `--resume`: the losses are those of an uninterrupted
//! run, digit for digit.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::{Place, losses, success};

/// Starts training and returns once stderr shows `line`.
fn until(mut command: Command, line: &str) -> Child {
    let mut child = command
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut text = String::new();
    loop {
        text.clear();
        assert!(
            stderr.read_line(&mut text).unwrap() > 0,
            "ended before '{line}'"
        );
        if text.starts_with(line) {
            break;
        }
    }
    // Keep the pipe drained, or the child would stop at a full one.
    std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
    child
}

fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    assert!(
        Command::new("kill")
            .args([name, &id])
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn ctrl_c_and_kill_in_each_stage_then_resume() {
    let place = Place::new();
    success(&place.train("whole").output().unwrap());
    let whole = losses(&place.path("whole"));
    for (name, at) in [
        ("-INT", "autoencoder 10/"),
        ("-KILL", "autoencoder 10/"),
        ("-INT", "lm 10/"),
        ("-KILL", "lm 10/"),
    ] {
        let out = format!("run{name}-{}", &at[..2]);
        let mut child = until(place.train(&out), at);
        signal(&child, name);
        let status = child.wait().unwrap();
        if name == "-INT" {
            assert_eq!(
                status.code(),
                Some(130),
                "a saved interrupt has its own status"
            );
        } else {
            assert!(!status.success());
        }
        let resumed = place
            .calm(&["train", "--resume", "--out", &out])
            .output()
            .unwrap();
        success(&resumed);
        assert_eq!(losses(&place.path(&out)), whole, "{name} at {at}");
    }
}
