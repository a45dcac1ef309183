//! Fetching without a network: made-up registries, and shell scripts in the place of cargo and pip.

use super::*;
use crate::files::hex;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const CONTENT: &[u8] = b"All happy families are alike.\n";

/// A home, a cache and a pinned crate file, none of which exist yet.
struct Scene {
    directory: TempDir,
    cache: CacheDir,
    fetcher: Fetcher,
    pinned: Pinned,
}

fn scene(origin: Origin) -> Scene {
    let directory = tempfile::tempdir().unwrap();
    let sha256: &'static str = hex(&Sha256::digest(CONTENT)).leak();
    Scene {
        cache: CacheDir::at(directory.path().join("cache")),
        fetcher: Fetcher {
            cargo: directory.path().join("no-cargo").into(),
            cargo_home: Some(directory.path().join("home")),
            pythons: vec![directory.path().join("no-python").into()],
        },
        pinned: Pinned {
            corpus: "tolstoy",
            origin,
            sha256,
            extension: "txt",
        },
        directory,
    }
}

fn crate_scene() -> Scene {
    scene(Origin::Crate {
        name: "anna",
        version: "1.0.0",
        member: "text/a b.txt",
    })
}

impl Scene {
    /// Puts a file where cargo would have unpacked it.
    fn unpack(&self, registry: &str, content: &[u8]) -> PathBuf {
        let home = self.fetcher.cargo_home.clone().unwrap();
        let path = home
            .join("registry/src")
            .join(registry)
            .join("anna-1.0.0")
            .join("text/a b.txt");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    fn fetch(&self) -> (Result<()>, Vec<FetchState>) {
        let mut states = Vec::new();
        let pins = std::slice::from_ref(&self.pinned);
        let outcome = self
            .fetcher
            .fetch(pins, &self.cache, &mut |event| states.push(event.state));
        states.dedup();
        (outcome, states)
    }

    fn cached(&self) -> PathBuf {
        self.pinned.path_in(&self.cache)
    }

    #[cfg(unix)]
    fn script(&self, name: &str, body: &str) -> OsString {
        use std::os::unix::fs::PermissionsExt;
        let path = self.directory.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.into()
    }
}

#[test]
fn an_unpacked_crate_is_copied_and_then_cached() {
    let scene = crate_scene();
    scene.unpack("index-1", CONTENT);
    let (outcome, states) = scene.fetch();
    outcome.unwrap();
    assert_eq!(
        states,
        [
            FetchState::Fetching,
            FetchState::Verifying,
            FetchState::Done
        ]
    );
    assert_eq!(fs::read(scene.cached()).unwrap(), CONTENT);
    let (outcome, states) = scene.fetch();
    outcome.unwrap();
    assert_eq!(states, [FetchState::Verifying, FetchState::Cached]);
}

#[test]
fn a_wrong_file_is_refused_and_nothing_is_kept() {
    let scene = crate_scene();
    let source = scene.unpack("index-1", b"All unhappy families differ.\n");
    let error = scene.fetch().0.unwrap_err();
    let message = error.to_string();
    assert!(
        matches!(&error, Error::ChecksumMismatch { path, .. } if *path == source),
        "{message}"
    );
    assert!(
        message.contains(scene.pinned.sha256) && message.contains("got "),
        "{message}"
    );
    assert_eq!(fs::read_dir(scene.cache.corpora()).unwrap().count(), 0);
}

#[test]
fn a_right_copy_in_another_registry_is_found() {
    let scene = crate_scene();
    scene.unpack("index-1", b"wrong");
    scene.unpack("index-2", CONTENT);
    scene.fetch().0.unwrap();
    assert_eq!(fs::read(scene.cached()).unwrap(), CONTENT);
}

#[test]
fn a_cached_file_that_fails_is_deleted() {
    let scene = crate_scene();
    fs::create_dir_all(scene.cache.corpora()).unwrap();
    fs::write(scene.cached(), b"tampered").unwrap();
    let error = scene.fetch().0.unwrap_err();
    assert!(matches!(&error, Error::ChecksumMismatch { path, .. } if *path == scene.cached()));
    assert!(error.to_string().contains("was deleted"), "{error}");
    assert!(!scene.cached().exists());
}

#[test]
fn missing_programs_are_named() {
    let scene_of_crate = crate_scene();
    let error = scene_of_crate.fetch().0.unwrap_err();
    assert!(
        matches!(error, Error::MissingTool { tool: "cargo", .. }),
        "{error}"
    );
    let wheel = scene(Origin::Wheel {
        name: "anna",
        version: "1.0.0",
    });
    let error = wheel.fetch().0.unwrap_err();
    assert!(
        matches!(error, Error::MissingTool { tool: "pip", .. }),
        "{error}"
    );
    assert_eq!(fs::read_dir(wheel.cache.corpora()).unwrap().count(), 0);
}

#[cfg(unix)]
#[test]
fn cargo_is_run_outside_the_workspace_with_its_home() {
    let mut scene = crate_scene();
    scene.fetcher.cargo = scene.script(
        "cargo",
        r#"[ "$1 $4" = "info anna@1.0.0" ] && [ -z "$(ls -A .)" ] || exit 3
           mkdir -p "$CARGO_HOME/registry/src/i/anna-1.0.0/text"
           echo 'All happy families are alike.' > "$CARGO_HOME/registry/src/i/anna-1.0.0/text/a b.txt""#,
    );
    scene.fetch().0.unwrap();
    assert_eq!(fs::read(scene.cached()).unwrap(), CONTENT);
}

#[cfg(unix)]
#[test]
fn the_words_of_a_failing_cargo_are_passed_on() {
    let mut scene = crate_scene();
    scene.fetcher.cargo = scene.script(
        "cargo",
        "echo '    Updating index' >&2; echo 'error: no network' >&2; exit 101",
    );
    let message = scene.fetch().0.unwrap_err().to_string();
    assert!(message.contains("cargo info anna@1.0.0"), "{message}");
    assert!(
        message.contains("error: no network") && !message.contains('\n'),
        "{message}"
    );
    scene.fetcher.cargo = scene.script("cargo", "exit 0");
    let message = scene.fetch().0.unwrap_err().to_string();
    assert!(
        message.contains("it left no anna-1.0.0/text/a b.txt"),
        "{message}"
    );
}

#[cfg(unix)]
#[test]
fn a_wheel_comes_through_pip_and_its_directory_goes() {
    let mut scene = scene(Origin::Wheel {
        name: "anna",
        version: "1.0.0",
    });
    let python = scene.script(
        "python",
        r#"case "$*" in
             "-m pip --version") exit 0 ;;
             "-m pip download "*" anna==1.0.0") echo 'All happy families are alike.' > anna-1.0.0.whl ;;
             *) exit 4 ;;
           esac"#,
    );
    // The first program has no pip: the second is used.
    scene.fetcher.pythons = vec![scene.script("bare", "exit 1"), python];
    scene.fetch().0.unwrap();
    assert_eq!(fs::read(scene.cached()).unwrap(), CONTENT);
    assert_eq!(fs::read_dir(scene.cache.corpora()).unwrap().count(), 1);
}

/// A corpus of two archives: anna-1.0.0 as pinned by `scene`, and vronsky-2.0.0 of other content.
fn archives() -> (Scene, [Pinned; 2]) {
    let scene = scene(Origin::CrateArchive {
        name: "anna",
        version: "1.0.0",
    });
    let second = Pinned {
        origin: Origin::CrateArchive {
            name: "vronsky",
            version: "2.0.0",
        },
        sha256: hex(&Sha256::digest(b"second\n")).leak(),
        ..scene.pinned
    };
    let pins = [scene.pinned, second];
    (scene, pins)
}

#[cfg(unix)]
#[test]
fn archives_come_through_cargo_and_those_that_came_stay() {
    let (mut scene, pins) = archives();
    // The network ends after the first crate.
    scene.fetcher.cargo = scene.script(
        "cargo",
        r#"[ "$4" = anna@1.0.0 ] || { echo 'error: no network' >&2; exit 101; }
           mkdir -p "$CARGO_HOME/registry/cache/i"
           echo 'All happy families are alike.' > "$CARGO_HOME/registry/cache/i/anna-1.0.0.crate""#,
    );
    let mut states = Vec::new();
    let mut fetch = |scene: &Scene| {
        states.clear();
        let outcome = scene
            .fetcher
            .fetch(&pins, &scene.cache, &mut |event| states.push(event.state));
        states.dedup();
        outcome.map(|()| states.clone())
    };
    let message = fetch(&scene).unwrap_err().to_string();
    assert!(
        message.contains("cargo info vronsky@2.0.0") && message.contains("no network"),
        "{message}"
    );
    assert_eq!(fs::read(pins[0].path_in(&scene.cache)).unwrap(), CONTENT);
    scene.fetcher.cargo = scene.script("cargo", "exit 0");
    let message = fetch(&scene).unwrap_err().to_string();
    assert!(
        message.contains("it left no vronsky-2.0.0.crate under registry/cache"),
        "{message}"
    );
    // The other way for the second to come: cargo has it already.
    let home = scene.fetcher.cargo_home.clone().unwrap();
    fs::write(
        home.join("registry/cache/i/vronsky-2.0.0.crate"),
        "second\n",
    )
    .unwrap();
    assert_eq!(fetch(&scene).unwrap().last(), Some(&FetchState::Done));
    assert_eq!(
        fetch(&scene).unwrap(),
        [FetchState::Verifying, FetchState::Cached]
    );
}

#[test]
fn a_half_fetched_archive_is_refused_by_its_name() {
    let (scene, pins) = archives();
    let folder = scene.fetcher.cargo_home.clone().unwrap();
    let folder = folder.join("registry/cache/i");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("anna-1.0.0.crate"), CONTENT).unwrap();
    fs::write(folder.join("vronsky-2.0.0.crate"), "sec").unwrap();
    let fetch = || scene.fetcher.fetch(&pins, &scene.cache, &mut |_| {});
    let message = fetch().unwrap_err().to_string();
    assert!(
        message.contains("vronsky-2.0.0.crate: checksum mismatch"),
        "{message}"
    );
    assert!(pins[0].path_in(&scene.cache).is_file());
    // In our cache the name of the crate stands in the file's.
    let second = pins[1].path_in(&scene.cache);
    fs::write(&second, "sec").unwrap();
    let message = fetch().unwrap_err().to_string();
    assert!(
        message.contains("tolstoy-vronsky-2.0.0-") && message.contains("was deleted"),
        "{message}"
    );
    assert!(!second.exists());
}
