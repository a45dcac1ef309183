//! Tensor files that are whole, broken or malicious: errors in one line, never a panic, and no memory
//! beyond what the file has.

use std::fs;
use std::path::{Path, PathBuf};

use calm_weights::{
    Dtype, Error, TensorFile, TensorFiles, TensorToWrite, parse_index, write_safetensors,
};
use proptest::prelude::*;

fn released(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures/released")
        .join(case)
}

/// The message of opening a file of these bytes, and of reading all that it has.
fn message(name: &str, bytes: &[u8]) -> Result<usize, String> {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join(name);
    fs::write(&path, bytes).unwrap();
    let read = || -> calm_weights::Result<usize> {
        let file = TensorFile::open(&path)?;
        for tensor in file.tensors().values() {
            tensor.bytes()?;
        }
        Ok(file.tensors().len())
    };
    let message = read().map_err(|e| e.to_string());
    if let Err(message) = &message {
        assert!(!message.contains('\n') && message.len() < 1000, "{message}");
    }
    message
}

fn safetensors(header: &str, numbers: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + numbers, 0);
    bytes
}

#[test]
fn what_is_written_is_read_in_any_kind_of_numbers() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("some.safetensors");
    let of = |name: &str, dtype: Dtype, bytes: Vec<u8>| {
        let count = bytes.len() / dtype.size();
        TensorToWrite::new(name, dtype, [count], move || bytes.clone())
    };
    let tensors = vec![
        of(
            "f16",
            Dtype::F16,
            [0x3c00u16, 0xc000].map(u16::to_le_bytes).concat(),
        ),
        of(
            "bf16",
            Dtype::Bf16,
            [0x3f80u16, 0xc000].map(u16::to_le_bytes).concat(),
        ),
        of(
            "f64",
            Dtype::F64,
            [1.0f64, -2.0].map(f64::to_le_bytes).concat(),
        ),
        TensorToWrite::floats("f32", [2], vec![1.0, -2.0]),
        of("i32", Dtype::I32, [1i32, -2].map(i32::to_le_bytes).concat()),
        of("i64", Dtype::I64, [1i64, -2].map(i64::to_le_bytes).concat()),
        of("bool", Dtype::Bool, vec![1, 0]),
        of("u64", Dtype::U64, u64::MAX.to_le_bytes().to_vec()),
        TensorToWrite::floats("none", [0, 3], vec![]),
        TensorToWrite::floats("number", [], vec![0.5]),
    ];
    write_safetensors(&path, &[("format", "pt")], tensors).unwrap();
    let file = TensorFile::open(&path).unwrap();
    assert_eq!(file.metadata()["format"], "pt");
    let get = |name: &str| &file.tensors()[name];
    for name in ["f16", "bf16", "f64", "f32"] {
        assert_eq!(get(name).floats().unwrap(), [1.0, -2.0], "{name}");
        let error = get(name).integers().unwrap_err();
        assert!(matches!(error, Error::WrongDtype { .. }), "{error}");
    }
    for name in ["i32", "i64"] {
        assert_eq!(get(name).integers().unwrap(), [1, -2], "{name}");
        assert!(get(name).floats().is_err());
    }
    assert_eq!(get("bool").integers().unwrap(), [1, 0]);
    assert!(
        get("u64").integers().is_err(),
        "it holds more than i64 does"
    );
    assert_eq!(
        (get("none").shape(), get("none").floats().unwrap().len()),
        (&[0, 3][..], 0)
    );
    assert_eq!(
        (get("number").shape(), get("number").floats().unwrap()),
        (&[][..], vec![0.5])
    );
    // The header ends where numbers of any size can begin.
    let bytes = fs::read(&path).unwrap();
    assert_eq!(u64::from_le_bytes(bytes[..8].try_into().unwrap()) % 8, 0);
}

#[test]
fn names_are_unique_in_a_file() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("some.safetensors");
    let one = || TensorToWrite::floats("a", [1], vec![0.0]);
    assert!(write_safetensors(&path, &[], vec![one(), one()]).is_err());
    assert!(!path.exists());
}

/// Every file of the released form, cut at every length: an error each time, or as many tensors.
#[test]
fn files_that_are_cut_short_are_errors() {
    for (case, name) in [
        ("autoencoder-k2", "model.safetensors"),
        ("autoencoder-k1", "pytorch_model.bin"),
    ] {
        let bytes = fs::read(released(case).join(name)).unwrap();
        let whole = message(name, &bytes).unwrap();
        assert!(whole > 10);
        for end in (0..bytes.len()).step_by(bytes.len() / 199) {
            assert!(
                message(name, &bytes[..end]).is_err(),
                "{name} of {end} bytes"
            );
        }
    }
}

#[test]
fn headers_that_mislead_are_errors() {
    let f32 = |shape: &str, from: u64, to: u64| {
        format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":[{from},{to}]}}}}"#)
    };
    let read = message("a.safetensors", &safetensors(&f32("[2]", 0, 8), 8));
    assert_eq!(read, Ok(1), "what these are changes of");
    for (what, bytes) in [
        ("nothing", vec![]),
        ("seven bytes", vec![0; 7]),
        ("no JSON", safetensors("hello", 0)),
        (
            "a header longer than the file",
            u64::MAX.to_le_bytes().to_vec(),
        ),
        ("the same by one", 1u64.to_le_bytes().to_vec()),
        ("numbers cut short", safetensors(&f32("[2]", 0, 8), 7)),
        ("numbers left over", safetensors(&f32("[2]", 0, 8), 9)),
        ("a gap", safetensors(&f32("[1]", 4, 8), 8)),
        ("another size", safetensors(&f32("[3]", 0, 8), 8)),
        (
            "an end before its beginning",
            safetensors(&f32("[1]", 8, 4), 8),
        ),
        (
            "an overflow",
            safetensors(&f32("[4294967296, 4294967296, 4]", 0, 8), 8),
        ),
        ("a negative size", safetensors(&f32("[-1]", 0, 4), 4)),
        (
            "two of one place",
            safetensors(
                r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},
                "b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#,
                1,
            ),
        ),
        (
            "a kind of half bytes",
            safetensors(
                r#"{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}"#,
                1,
            ),
        ),
        (
            "a kind that there is not",
            safetensors(r#"{"a":{"dtype":"X","shape":[1],"data_offsets":[0,1]}}"#, 1),
        ),
        (
            "no UTF-8",
            safetensors("{\"\u{fffd}", 0)
                .into_iter()
                .map(|b| b | 0x80)
                .collect(),
        ),
        ("depth", safetensors(&"[".repeat(1 << 16), 0)),
    ] {
        assert!(message("a.safetensors", &bytes).is_err(), "{what}");
    }
}

/// A pickle in a .bin that is nothing else, as old tools wrote it.
fn pickle(ops: &[u8]) -> Vec<u8> {
    [b"\x80\x02", ops, b"."].concat()
}

/// PyTorch's archive around a pickle, with one storage of four numbers.
fn archive(pickle: &[u8]) -> Vec<u8> {
    archive_by(zip::CompressionMethod::Stored, 4, pickle)
}

/// The same with another way of keeping its parts, and another number of numbers.
fn archive_by(method: zip::CompressionMethod, numbers: usize, pickle: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(method);
    for (name, bytes) in [
        ("archive/data.pkl", pickle),
        ("archive/byteorder", b"little"),
        ("archive/data/0", &vec![0; 4 * numbers]),
        ("archive/version", b"3\n"),
    ] {
        zip.start_file(name, stored).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// The dictionary `{"a": _rebuild_tensor_v2(storage of `count`, 0, shape, strides, ..)}`.
fn tensor_of(count: u8, shape: &[u8], strides: &[u8]) -> Vec<u8> {
    let tuple = |numbers: &[u8]| {
        let numbers: Vec<u8> = numbers.iter().flat_map(|&n| [b'K', n]).collect();
        [b"(", &numbers[..], b"t"].concat()
    };
    let ops = [
        b"}U\x01actorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK".to_vec(),
        vec![count],
        b"tQK\x00".to_vec(),
        tuple(shape),
        tuple(strides),
        b"\x89ccollections\nOrderedDict\n)RtRs".to_vec(),
    ];
    pickle(&ops.concat())
}

/// The same tensor under many names.
fn many_views(count: usize, numbers: u8) -> Vec<u8> {
    let one = tensor_of(numbers, &[numbers], &[1]);
    // Between the empty dictionary, which is kept, and the end.
    let item = &one[3..one.len() - 1];
    let items = (0..count).flat_map(|i| {
        let name = format!("{i:04}");
        // Name of one letter, in the form of the others.
        [&[b'U', 4], name.as_bytes(), &item[3..]].concat()
    });
    pickle(&[b"}".to_vec(), items.collect()].concat())
}

#[test]
fn pickles_run_nothing() {
    // The same archive with an honest tensor is read.
    assert_eq!(
        message("a.bin", &archive(&tensor_of(4, &[2, 2], &[2, 1]))),
        Ok(1)
    );
    assert_eq!(message("a.bin", &archive(&many_views(9, 4))), Ok(9));
    let marker = std::env::temp_dir().join("calm-weights-was-here");
    let command = format!("touch {}", marker.display());
    let short = |text: &str| [&[b'U', text.len() as u8], text.as_bytes()].concat();
    for (what, ops) in [
        (
            "os.system",
            [
                b"cposix\nsystem\n(".to_vec(),
                short(&command),
                b"tR".to_vec(),
            ]
            .concat(),
        ),
        (
            "the same in a dictionary",
            [
                b"}U\x01acposix\nsystem\n(".to_vec(),
                short(&command),
                b"tRs".to_vec(),
            ]
            .concat(),
        ),
        (
            "eval",
            [b"cbuiltins\neval\n(".to_vec(), short("1"), b"tR".to_vec()].concat(),
        ),
        ("an instance", b"(iposix\nsystem\n".to_vec()),
        ("an object", b"(cposix\nsystem\no".to_vec()),
        ("a class by new", b"cposix\nsystem\n)\x81".to_vec()),
        ("state", b"cposix\nsystem\n)R}b".to_vec()),
    ] {
        // Whatever is said of it: nothing was run, and there is no tensor.
        for bytes in [pickle(&ops), archive(&pickle(&ops))] {
            let found = message("a.bin", &bytes);
            assert!(found.is_err() || found == Ok(0), "{what}");
        }
        assert!(!marker.exists(), "{what} was run");
    }
}

#[test]
fn pickles_and_archives_that_mislead_are_errors() {
    let nested = |n: usize| pickle(&[b"]".repeat(n), b"a".repeat(n.saturating_sub(1))].concat());
    // Every list holds the one before it twice.
    let mut bomb = b"]q\x00".to_vec();
    for i in 1..60u8 {
        bomb.extend_from_slice(&[b']', b'q', i, b'(', b'h', i - 1, b'h', i - 1, b'e']);
    }
    for (what, bytes) in [
        ("nothing", vec![]),
        ("an empty stack", pickle(b"")),
        ("a mark that is not there", pickle(b"t")),
        ("an unknown operation", pickle(b"\xff")),
        (
            "a string longer than the file",
            pickle(b"X\xff\xff\xff\x7fabc"),
        ),
        ("a memory that is not there", pickle(b"h\x07")),
        ("depth", nested(1 << 20)),
        ("a bomb of references", pickle(&bomb)),
        (
            "a view larger than its storage",
            archive(&tensor_of(4, &[2, 3], &[3, 1])),
        ),
        (
            "strides beyond it",
            archive(&tensor_of(4, &[2, 2], &[3, 1])),
        ),
        (
            "a storage longer than its file",
            archive(&tensor_of(200, &[200], &[1])),
        ),
        (
            "a tensor larger than the file",
            archive(&tensor_of(4, &[255, 255], &[0, 0])),
        ),
        (
            "another number of strides",
            archive(&tensor_of(4, &[2, 2], &[1])),
        ),
        ("a zip of nothing", archive(b"")),
        (
            "a compressed part",
            archive_by(
                zip::CompressionMethod::Deflated,
                4,
                &tensor_of(4, &[4], &[1]),
            ),
        ),
        (
            "a pickle of 20 MB",
            archive(&pickle(&b"N0".repeat(10 << 20))),
        ),
        (
            "many views of one storage",
            archive_by(zip::CompressionMethod::Stored, 255, &many_views(2000, 255)),
        ),
    ] {
        assert!(message("a.bin", &bytes).is_err(), "{what}");
    }
}

#[test]
fn shards_are_those_of_the_index() {
    let refused = |json: &str| parse_index(json.as_bytes()).unwrap_err();
    for shard in [
        "../a.safetensors",
        "/etc/passwd",
        "",
        ".",
        "a\\b",
        "C:x",
        "a\\u0000",
    ] {
        let json = format!(
            r#"{{"weight_map": {{"t": "{}"}}}}"#,
            shard.replace('\\', "\\\\").replace("\\\\u", "\\u")
        );
        assert!(refused(&json).contains("no plain file name"), "{json}");
    }
    for json in [
        "",
        "{}",
        "[]",
        r#"{"weight_map": {}}"#,
        r#"{"weight_map": {"a": 1}}"#,
        &"[".repeat(9999),
    ] {
        assert!(!refused(json).is_empty());
    }

    let source = released("energy-k2");
    let place = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(source).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, place.path().join(path.file_name().unwrap())).unwrap();
    }
    let whole = TensorFiles::open(place.path()).unwrap();
    let index = place.path().join("model.safetensors.index.json");
    assert_eq!(whole.path(), index);
    let json = fs::read_to_string(&index).unwrap();
    let message = || TensorFiles::open(place.path()).unwrap_err().to_string();
    // A tensor in another shard, one that is in none, and one that the index passes over.
    let name = "transformer.norm.weight";
    assert!(json.contains(name));
    for (changed, part) in [
        (
            json.replace(name, "transformer.more.weight"),
            "transformer.more.weight",
        ),
        (
            json.replace(
                &format!("\"{name}\""),
                "\"x\": \"model-00001-of-00003.safetensors\", \"y\"",
            ),
            "promises",
        ),
        (
            json.replace("model-00002-of-00003", "model-00009-of-00003"),
            "model-00009",
        ),
    ] {
        fs::write(&index, changed).unwrap();
        assert!(message().contains(part), "{}", message());
    }
    let mut parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
    parsed["weight_map"]
        .as_object_mut()
        .unwrap()
        .remove(name)
        .unwrap();
    fs::write(&index, parsed.to_string()).unwrap();
    assert!(message().contains("doesn't place here"), "{}", message());
    fs::remove_file(&index).unwrap();
    assert!(
        message().contains("no weights here; looked for model.safetensors"),
        "{}",
        message()
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// One byte changed, or a stretch of them, anywhere in a file.
    #[test]
    fn damaged_files_never_panic(at in 0.0..1.0f64, byte: u8, more in 0usize..9, kind in 0usize..2) {
        let (case, name) = [
            ("autoencoder-k2", "model.safetensors"),
            ("autoencoder-k1", "pytorch_model.bin"),
        ][kind];
        let mut bytes = fs::read(released(case).join(name)).unwrap();
        // Most of a file is numbers: half of the damage goes into its directory of tensors.
        let span = if more % 2 == 0 { bytes.len() } else { 3000 };
        let start = (at * span as f64) as usize;
        let end = bytes.len().min(start + more + 1);
        bytes[start..end].fill(byte);
        let _ = message(name, &bytes);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0usize..3) {
        let _ = match kind {
            0 => message("a.safetensors", &bytes),
            1 => message("a.bin", &bytes),
            _ => message("a.bin", &pickle(&bytes)),
        };
        let _ = parse_index(&bytes);
    }
}
