//! Bad input ends with one clear line and a non-zero status, and leaves no run behind.

use crate::{Place, failure};

/// Arguments after `train --out run`, and what the message must contain.
#[test]
fn bad_arguments_of_train() {
    let place = Place::new();
    std::fs::write(place.path("empty.txt"), "").unwrap();
    std::fs::write(place.path("latin1.txt"), b"caf\xe9 au lait").unwrap();
    std::fs::write(
        place.path("bad.jsonl"),
        "{\"text\": \"fine\"}\n{\"txt\": 1}\n",
    )
    .unwrap();
    std::fs::write(place.path("bad.toml"), "seed = [").unwrap();
    let cases: &[(&[&str], &[&str])] = &[
        (&["--preset", "nanno"], &["nanno", "did you mean 'nano'"]),
        (&["--preset", "bad.toml"], &["bad.toml"]),
        (&["--preset", "absent.toml"], &["absent.toml"]),
        (
            &["--set", "optim.lrr=1"],
            &["optim.lrr", "did you mean 'optim.lr'"],
        ),
        (&["--set", "optim.lr=fast"], &["optim.lr"]),
        (&["--set", "samples.temperatures=[0.7]"], &["0.7", "1/n"]),
        (&["--set", "samples.pool=1"], &["pool of 1"]),
        (
            &["--set", "model.window=255", "--preset", "nano"],
            &["window = 255", "chunk_size = 2"],
        ),
        (
            &["--set", "model.autoencoder.encoder_layers=3"],
            &["encoder_layers = 3"],
        ),
        (&["--device", "gpu"], &["gpu", "vulkan[:N]"]),
        (&["--corpus", "absent.txt"], &["absent.txt"]),
        (&["--corpus", "alise"], &["alise", "alice"]),
        (&["--corpus", "empty.txt"], &["empty.txt"]),
        (&["--corpus", "latin1.txt"], &["latin1.txt", "UTF-8"]),
        (&["--corpus", "bad.jsonl"], &["bad.jsonl", "2"]),
        (&["--resume"], &["run"]),
    ];
    for (args, expected) in cases {
        let mut command = place.calm(&["train", "--out", "run"]);
        if !args.contains(&"--preset") && !args.contains(&"--resume") {
            command.args(["--preset", "debug"]);
        }
        let message = failure(&command.args(*args).output().unwrap());
        for part in *expected {
            assert!(message.contains(part), "{args:?}: {message}");
        }
        assert!(!place.path("run").exists(), "{args:?} left a run behind");
    }
}

#[test]
fn a_corpus_that_is_not_the_pinned_one_is_refused_and_one_that_is_absent_is_said() {
    let place = Place::new();
    let corpora = place.path("cache").join("corpora");
    std::fs::create_dir_all(&corpora).unwrap();
    let tampered = corpora.join("alice-6c7ec382c9c3.md");
    std::fs::write(&tampered, "Alice was beginning to get very tired.").unwrap();
    // No cargo that could fetch it anew.
    let train = || {
        let mut command = place.calm(&["train", "--preset", "debug", "--out", "run"]);
        command.env("CARGO", "/nonexistent/cargo");
        command.env("CARGO_HOME", place.path("no-home"));
        failure(&command.output().unwrap())
    };
    let message = train();
    assert!(message.contains("checksum mismatch"), "{message}");
    assert!(!tampered.exists(), "the wrong file is gone");
    let message = train();
    assert!(message.contains("`alice` needs cargo"), "{message}");
    assert!(!place.path("run").exists());
}
