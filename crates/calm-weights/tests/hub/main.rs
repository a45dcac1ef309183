//! Fetching from a hub: a small one on the loopback address that breaks off, refuses and lies.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use calm_weights::TensorFiles;
use calm_weights::hub::{Hub, HubModel};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the hub has, and how it behaves.
#[derive(Default)]
struct Behaviour {
    files: BTreeMap<String, Vec<u8>>,
    token: Option<&'static str>,
    /// Connections that end after so many bytes of a file.
    breaks: AtomicUsize,
    /// Whether one bit of each large file is another than its checksum says.
    lies: AtomicBool,
    requests: Mutex<Vec<String>>,
}

struct MockHub {
    address: String,
    behaviour: Arc<Behaviour>,
}

impl MockHub {
    fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let behaviour = Arc::new(behaviour);
        let shared = behaviour.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let behaviour = shared.clone();
                std::thread::spawn(move || answer(stream, &behaviour));
            }
        });
        Self { address, behaviour }
    }

    fn hub(&self, cache: &Path) -> Hub {
        Hub::at(&self.address, cache, self.behaviour.token)
    }

    fn requests(&self, part: &str) -> usize {
        let requests = self.behaviour.requests.lock().unwrap();
        requests
            .iter()
            .filter(|request| request.contains(part))
            .count()
    }
}

/// One request a connection.
fn answer(stream: TcpStream, hub: &Behaviour) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut first, mut range, mut token) = (String::new(), None, None);
    reader.read_line(&mut first).unwrap();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) <= 2 {
            break;
        }
        let line = line.trim().to_ascii_lowercase();
        if let Some(from) = line.strip_prefix("range: bytes=") {
            let (from, to) = from.split_once('-').unwrap();
            range = Some((from.parse::<usize>().unwrap(), to.parse::<usize>().ok()));
        }
        if let Some(given) = line.strip_prefix("authorization: bearer ") {
            token = Some(given.to_owned());
        }
    }
    let from = range.map_or(0, |(from, _)| from);
    let request = format!("{} from {from}", first.trim());
    hub.requests.lock().unwrap().push(request);
    let path = first.split(' ').nth(1).unwrap_or("").to_owned();
    let mut stream = stream;
    let mut say = |status: &str, headers: &str, body: &[u8]| {
        let head = format!(
            "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
            body.len()
        );
        let _ = stream
            .write_all(head.as_bytes())
            .and_then(|()| stream.write_all(body));
        let _ = stream.flush();
    };
    if hub.token.is_some() && token.as_deref() != hub.token {
        return say("401 Unauthorized", "", b"");
    }
    if path.starts_with("/api/models/owner/name/revision/main") {
        let siblings: Vec<_> = hub
            .files
            .keys()
            .map(|f| serde_json::json!({"rfilename": f}))
            .collect();
        let info = serde_json::json!({"sha": COMMIT, "siblings": siblings}).to_string();
        return say(
            "200 OK",
            "content-type: application/json\r\n",
            info.as_bytes(),
        );
    }
    let name = path.strip_prefix(&format!("/owner/name/resolve/{COMMIT}/"));
    let Some(bytes) = name.and_then(|name| hub.files.get(name)) else {
        return say("404 Not Found", "", b"");
    };
    let checksum = checksum(name.unwrap(), bytes);
    let mut bytes = bytes.clone();
    if hub.lies.load(Ordering::SeqCst) && checksum.len() == 64 {
        bytes[7] ^= 1;
    }
    let size = bytes.len();
    let (from, to) = range.unwrap_or((0, None));
    let end = to.map_or(size, |to| size.min(to + 1));
    let mut part = bytes.get(from..end).unwrap_or(&[]).to_vec();
    let headers = format!(
        "etag: \"{checksum}\"\r\nx-repo-commit: {COMMIT}\r\ncontent-range: bytes {from}-{}/{size}\r\n",
        end.saturating_sub(1)
    );
    let is_download = to.is_none() && checksum.len() == 64;
    if is_download && hub.breaks.load(Ordering::SeqCst) > 0 {
        hub.breaks.fetch_sub(1, Ordering::SeqCst);
        let half = part.len() / 2;
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\ncontent-length: {}\r\n{headers}\r\n",
            part.len()
        );
        part.truncate(half);
        let _ = stream
            .write_all(head.as_bytes())
            .and_then(|()| stream.write_all(&part));
        return;
    }
    say("206 Partial Content", &headers, &part);
}

/// As the hub has it: sha256 of weights, git's sha1 of other files.
fn checksum(name: &str, bytes: &[u8]) -> String {
    use sha1::Digest;
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    match name.ends_with(".json") {
        false => hex(&sha2::Sha256::digest(bytes)),
        true => {
            let mut hash = sha1::Sha1::new();
            hash.update(format!("blob {}\0", bytes.len()));
            hash.update(bytes);
            hex(&hash.finalize())
        }
    }
}

fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures/released")
        .join(name)
}

/// The files of a case, but for what is recorded of it.
fn files(name: &str) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(case(name)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_file() && !name.contains("puts") {
            let mut bytes = Vec::new();
            std::fs::File::open(&path)
                .unwrap()
                .read_to_end(&mut bytes)
                .unwrap();
            files.insert(name, bytes);
        }
    }
    files
}

fn model() -> HubModel {
    HubModel::parse("owner/name").unwrap()
}

fn fetch(hub: &MockHub, cache: &Path) -> Result<PathBuf, String> {
    let found = hub.hub(cache).fetch(&model(), &mut |_, _, _| {});
    found.map_err(|e| e.to_string())
}

#[test]
fn a_model_in_shards_comes_whole_and_once() {
    let cache = tempfile::tempdir().unwrap();
    let mut files = files("energy-k2");
    files.insert("README.md".to_owned(), b"not wanted".to_vec());
    files.insert("tokenizer.json".to_owned(), b"{}".to_vec());
    let hub = MockHub::start(Behaviour {
        files: files.clone(),
        ..Behaviour::default()
    });
    let mut shown = BTreeMap::new();
    let found = hub
        .hub(cache.path())
        .fetch(&model(), &mut |name, done, size| {
            assert!(done <= size, "{name}: {done} of {size}");
            shown.insert(name.to_owned(), done == size);
        });
    let directory = found.unwrap();
    for (name, bytes) in files.iter().filter(|(name, _)| *name != "README.md") {
        assert_eq!(
            &std::fs::read(directory.join(name)).unwrap(),
            bytes,
            "{name}"
        );
        assert_eq!(shown.get(name), Some(&true), "{name}");
    }
    assert!(!directory.join("README.md").exists());
    let there = TensorFiles::open(&directory).unwrap();
    let expected = TensorFiles::open(&case("energy-k2")).unwrap();
    assert_eq!(there.iter().count(), expected.iter().count());

    // Again: asked for, not sent.
    let before = hub.behaviour.requests.lock().unwrap().len();
    shown.clear();
    assert_eq!(fetch(&hub, cache.path()).unwrap(), directory);
    let after = hub.behaviour.requests.lock().unwrap().len();
    // The list, and of each file what it is.
    assert_eq!(after - before, files.len());
}

#[test]
fn a_download_that_breaks_off_is_gone_on_with() {
    let cache = tempfile::tempdir().unwrap();
    let files = files("autoencoder-k2");
    let breaks = AtomicUsize::new(2);
    let hub = MockHub::start(Behaviour {
        files: files.clone(),
        breaks,
        ..Behaviour::default()
    });
    let directory = fetch(&hub, cache.path()).unwrap();
    let name = "model.safetensors";
    assert_eq!(std::fs::read(directory.join(name)).unwrap(), files[name]);
    assert_eq!(hub.behaviour.breaks.load(Ordering::SeqCst), 0);
    // From its middle on, not anew.
    let half = files[name].len() / 2;
    assert_eq!(hub.requests(&format!("from {half}")), 1);

    // More often than is tried: said, and kept for the next time.
    let cache = tempfile::tempdir().unwrap();
    hub.behaviour.breaks.store(9, Ordering::SeqCst);
    let message = fetch(&hub, cache.path()).unwrap_err();
    assert!(message.contains("the same command goes on"), "{message}");
    hub.behaviour.breaks.store(0, Ordering::SeqCst);
    let directory = fetch(&hub, cache.path()).unwrap();
    assert_eq!(std::fs::read(directory.join(name)).unwrap(), files[name]);
}

#[test]
fn a_file_that_is_another_is_removed() {
    let cache = tempfile::tempdir().unwrap();
    let files = files("autoencoder-k2");
    let lies = AtomicBool::new(true);
    let hub = MockHub::start(Behaviour {
        files: files.clone(),
        lies,
        ..Behaviour::default()
    });
    let message = fetch(&hub, cache.path()).unwrap_err();
    assert!(
        message.contains("model.safetensors is not what its checksum says"),
        "{message}"
    );
    hub.behaviour.lies.store(false, Ordering::SeqCst);
    let directory = fetch(&hub, cache.path()).unwrap();
    let weights = directory.join("model.safetensors");
    assert_eq!(std::fs::read(&weights).unwrap(), files["model.safetensors"]);
    // Damaged in the cache, it is fetched anew.
    std::fs::write(&weights, b"damaged").unwrap();
    let directory = fetch(&hub, cache.path()).unwrap();
    let weights = directory.join("model.safetensors");
    assert_eq!(std::fs::read(weights).unwrap(), files["model.safetensors"]);
}

#[test]
fn what_is_closed_missing_or_away_is_said() {
    let cache = tempfile::tempdir().unwrap();
    let closed = MockHub::start(Behaviour {
        files: files("token-tied"),
        token: Some("secret"),
        ..Behaviour::default()
    });
    assert!(fetch(&closed, cache.path()).is_ok());
    let without = Hub::at(&closed.address, cache.path(), None);
    let message = without
        .fetch(&model(), &mut |_, _, _| {})
        .unwrap_err()
        .to_string();
    assert!(message.contains("needs a token in HF_TOKEN"), "{message}");
    let wrong = Hub::at(&closed.address, cache.path(), Some("other"));
    let message = wrong
        .fetch(&model(), &mut |_, _, _| {})
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("does not open it") && !message.contains("other"),
        "{message}"
    );

    let other = HubModel::parse("owner/other").unwrap();
    let message = closed
        .hub(cache.path())
        .fetch(&other, &mut |_, _, _| {})
        .unwrap_err()
        .to_string();
    assert!(message.contains("no such model"), "{message}");
    let empty = MockHub::start(Behaviour {
        files: BTreeMap::from([("config.json".to_owned(), b"{}".to_vec())]),
        ..Behaviour::default()
    });
    let message = fetch(&empty, cache.path()).unwrap_err();
    assert!(
        message.contains("looked for model.safetensors"),
        "{message}"
    );

    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let away = Hub::at(&address, cache.path(), None);
    let message = away
        .fetch(&model(), &mut |_, _, _| {})
        .unwrap_err()
        .to_string();
    assert!(message.contains("import from a directory"), "{message}");
    assert!(
        message.starts_with("hf:owner/name: ") && !message.contains('\n'),
        "{message}"
    );
}

#[test]
fn a_shard_elsewhere_is_refused() {
    let mut files = files("energy-k2");
    let index = br#"{"weight_map": {"a": "../../secret"}}"#.to_vec();
    files.insert("model.safetensors.index.json".to_owned(), index);
    let hub = MockHub::start(Behaviour {
        files,
        ..Behaviour::default()
    });
    let message = fetch(&hub, tempfile::tempdir().unwrap().path()).unwrap_err();
    assert!(message.contains("no plain file name"), "{message}");
    assert_eq!(hub.requests("secret"), 0);
}

#[test]
fn names_are_names() {
    assert_eq!(
        HubModel::parse("a-b/C_1.5").unwrap().to_string(),
        "hf:a-b/C_1.5"
    );
    assert_eq!(
        HubModel::parse("a/b@v1.0").unwrap().to_string(),
        "hf:a/b@v1.0"
    );
    for text in [
        "", "a", "a/", "/b", "a/b/c", "../b", "a/..", "a/b@", "a/b@../x", "a b/c", "a/b?x=1",
        "a/b#c",
    ] {
        assert!(HubModel::parse(text).is_err(), "{text}");
    }
}
