//! Presets, files and `--set`: preset < file < set; unknown keys are errors.

use std::path::Path;

use toml::{Table, Value};

use crate::{Error, Experiment, Result, initial};

/// The presets in the program, each a complete TOML file under `presets/`.
///
/// A `transformer` preset is the file of the CALM that it is the counterpart of, in windows of
/// 2,048 tokens; its model is the baseline.
pub const PRESETS: [(&str, &str); 11] = [
    ("debug", include_str!("../../../presets/debug.toml")),
    ("nano", include_str!("../../../presets/nano.toml")),
    (
        "nano-local",
        include_str!("../../../presets/nano-local.toml"),
    ),
    ("tiny", include_str!("../../../presets/tiny.toml")),
    ("small", include_str!("../../../presets/small.toml")),
    ("calm-m", CALM_M),
    ("calm-l", CALM_L),
    ("calm-xl", CALM_XL),
    ("transformer-s", CALM_M),
    ("transformer-m", CALM_L),
    ("transformer-l", CALM_XL),
];
/// The published token models see 2,048 tokens, as many positions as the CALMs have steps, in as
/// large batches.
const TRANSFORMER: [&str; 2] = ["model.window=2048", "baseline.training.accumulate=1024"];
const CALM_M: &str = include_str!("../../../presets/calm-m.toml");
const CALM_L: &str = include_str!("../../../presets/calm-l.toml");
const CALM_XL: &str = include_str!("../../../presets/calm-xl.toml");

/// The experiment of a preset (or of a complete .toml file), with `key=value` overrides.
///
/// # Errors
/// Unknown preset or key (with a suggestion), bad TOML, a value of the wrong type, sizes that
/// don't fit together.
pub fn resolve(preset: &str, overrides: &[String]) -> Result<Experiment> {
    resolve_from(preset, None, overrides)
}

/// The same for training the model of a run or a checkpoint further: `[model]`, or of a token model
/// `[baseline]`, is that model's, and overrides may change what only training needs.
///
/// # Errors
/// As [`resolve`], and where there is no such model.
pub fn resolve_from(preset: &str, init: Option<&str>, overrides: &[String]) -> Result<Experiment> {
    let (origin, text) = match PRESETS.iter().find(|(name, _)| *name == preset) {
        Some((_, text)) => (format!("preset {preset}"), (*text).to_owned()),
        None if preset.ends_with(".toml") => {
            let text = std::fs::read_to_string(preset).map_err(Error::io(preset))?;
            (preset.to_owned(), text)
        }
        None => return Err(unknown_preset(preset)),
    };
    if !is_token_model(preset) {
        return parse(&origin, &text, init, overrides);
    }
    let mut all = TRANSFORMER.map(str::to_owned).to_vec();
    all.extend_from_slice(overrides);
    let mut experiment = parse(&origin, &text, init, &all)?;
    experiment.preset = preset.to_owned();
    Ok(experiment)
}

/// Whether a preset is that of a token model: what it trains is its baseline.
pub fn is_token_model(preset: &str) -> bool {
    preset.starts_with("transformer-") && PRESETS.iter().any(|(name, _)| *name == preset)
}

/// Reads the resolved configuration of a run.
///
/// # Errors
/// As [`resolve`].
pub fn load(path: &Path) -> Result<Experiment> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    parse(&path.display().to_string(), &text, None, &[])
}

/// Refuses a preset or overrides, given to go on with a run, that say another thing than its
/// resolved configuration `config`.
///
/// A preset of the program is compared by its name, because the run may have been started with
/// overrides; a file is compared key by key. Of a small text the vocabulary may have come out
/// smaller than asked for, and the held-out parts larger and cut from every document.
///
/// # Errors
/// [`Error::ResumeDiffers`] with the first key that differs; else as [`resolve`].
pub fn check_resume(config: &Path, preset: Option<&str>, overrides: &[String]) -> Result<()> {
    let run = load(config)?;
    let known = |name: &str| PRESETS.iter().any(|(known, _)| *known == name);
    let differs = |key: &str, run: String, given: String| {
        let key = key.to_owned();
        Err(Error::ResumeDiffers { key, run, given })
    };
    let base = match preset {
        None => run.clone(),
        Some(name) if known(name) && run.preset == name => run.clone(),
        Some(name) if known(name) => return differs("preset", run.preset, name.to_owned()),
        Some(file) => resolve(file, &[])?,
    };
    let table = |experiment: &Experiment| -> Result<Table> {
        Ok(to_toml(experiment)?
            .parse()
            .expect("what was written is TOML"))
    };
    let took_an_autoencoder = !run.autoencoder_from.is_empty();
    let (run, mut given) = (table(&run)?, table(&base)?);
    assign(&mut given, overrides)?;
    let mut keys = Vec::new();
    flatten("", &run, &mut keys);
    for key in keys {
        let both = (value_at(&run, &key), value_at(&given, &key));
        let (Some(run), Some(given)) = both else {
            unreachable!("both have all keys that there are");
        };
        let resolved = match key.as_str() {
            "model.vocab_size" => run.as_integer() < given.as_integer(),
            "data.whole_below" => run.as_integer() == Some(0),
            "data.validation_fraction" | "data.test_fraction" => run.as_float() > given.as_float(),
            // Those of its own training.
            "autoencoder.steps" => took_an_autoencoder,
            _ => false,
        };
        if run != given && !resolved {
            return differs(&key, run.to_string(), given.to_string());
        }
    }
    Ok(())
}

/// The value of a dotted key.
pub(crate) fn value_at<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    let mut parts = key.split('.');
    let first = table.get(parts.next()?)?;
    parts.try_fold(first, |value, part| value.get(part))
}

/// The configuration as TOML, loadable by [`load`].
///
/// # Errors
/// Never in practice: every field has a TOML form.
pub fn to_toml(experiment: &Experiment) -> Result<String> {
    toml::to_string(experiment).map_err(|e| Error::BadConfig {
        origin: "configuration".into(),
        detail: e.to_string(),
    })
}

/// Whether two configurations as TOML say the same: a key that one of them is too old to have counts
/// as what it reads as.
pub fn same(a: &str, b: &str) -> bool {
    let read = |text| parse("configuration", text, None, &[]);
    a == b || matches!((read(a), read(b)), (Ok(a), Ok(b)) if a == b)
}

fn parse(origin: &str, text: &str, init: Option<&str>, overrides: &[String]) -> Result<Experiment> {
    let bad = |detail: String| Error::BadConfig {
        origin: origin.to_owned(),
        detail: detail.split_whitespace().collect::<Vec<_>>().join(" "),
    };
    let mut table: Table = text
        .parse()
        .map_err(|e: toml::de::Error| bad(e.to_string()))?;
    check_keys(origin, "", &table, &reference())?;
    if let Some(init) = init {
        initial::into_table(init, &mut table)?;
    }
    assign(&mut table, overrides)?;
    let experiment: Experiment = Value::Table(table)
        .try_into()
        .map_err(|e: toml::de::Error| bad(e.message().to_owned()))?;
    experiment.validate()?;
    Ok(experiment)
}

/// All keys there are: those of the first preset, which is complete.
fn reference() -> Table {
    PRESETS[0].1.parse().expect("the debug preset is TOML")
}

/// Refuses keys that the reference doesn't have, and values of another type than it has there.
fn check_keys(origin: &str, prefix: &str, table: &Table, reference: &Table) -> Result<()> {
    for (key, value) in table {
        let path = format!("{prefix}{key}");
        match (value, reference.get(key)) {
            (_, None) => return Err(unknown_key(origin, &path)),
            (Value::Table(inner), Some(Value::Table(known))) => {
                check_keys(origin, &format!("{path}."), inner, known)?;
            }
            (value, Some(known)) => check_type(origin, &path, value, known)?,
        }
    }
    Ok(())
}

fn check_type(origin: &str, key: &str, value: &Value, known: &Value) -> Result<()> {
    let whole_for_float = value.is_integer() && known.is_float();
    if value.same_type(known) || whole_for_float {
        return Ok(());
    }
    let (expected, got) = (known.type_str(), value.type_str());
    Err(Error::BadConfig {
        origin: origin.to_owned(),
        detail: format!("{key} is a {got} where a {expected} is expected"),
    })
}

/// Sets every `key=value`.
fn assign(table: &mut Table, overrides: &[String]) -> Result<()> {
    let reference = reference();
    for assignment in overrides {
        let origin = format!("--set {assignment}");
        let Some((key, value)) = assignment.split_once('=') else {
            let detail = "expected key=value".to_owned();
            return Err(Error::BadConfig { origin, detail });
        };
        set(&origin, table, &reference, key.trim(), value.trim())?;
    }
    Ok(())
}

fn set(origin: &str, table: &mut Table, reference: &Table, key: &str, value: &str) -> Result<()> {
    let path: Vec<&str> = key.split('.').collect();
    let (last, sections) = path.split_last().expect("split gives one part at least");
    let (mut table, mut known) = (table, reference);
    for section in sections {
        let inner = table.get_mut(*section).and_then(Value::as_table_mut);
        let inner_known = known.get(*section).and_then(Value::as_table);
        let (Some(inner), Some(inner_known)) = (inner, inner_known) else {
            return Err(unknown_key(origin, key));
        };
        (table, known) = (inner, inner_known);
    }
    let old = known.get(*last).filter(|old| !old.is_table());
    let Some(old) = old else {
        return Err(unknown_key(origin, key));
    };
    let value = read_value(value, old);
    check_type(origin, key, &value, old)?;
    table.insert((*last).to_owned(), value);
    Ok(())
}

/// A TOML value where it is one, else a string; whole numbers become floats, and single values
/// lists, where the key holds such.
fn read_value(text: &str, old: &Value) -> Value {
    let parsed = format!("v = {text}")
        .parse::<Table>()
        .ok()
        .and_then(|mut t| t.remove("v"));
    match (
        parsed.unwrap_or_else(|| Value::String(text.to_owned())),
        old,
    ) {
        (Value::Integer(i), Value::Float(_)) => Value::Float(i as f64),
        (value @ Value::Array(_), Value::Array(_)) => value,
        (value, Value::Array(_)) => Value::Array(vec![value]),
        (value, _) => value,
    }
}

fn unknown_preset(given: &str) -> Error {
    let names: Vec<&str> = PRESETS.iter().map(|(name, _)| *name).collect();
    Error::UnknownPreset {
        given: given.to_owned(),
        suggestion: nearest(given, names.iter().map(|s| (*s).to_owned())),
        known: names.join(", "),
    }
}

fn unknown_key(origin: &str, key: &str) -> Error {
    let mut known = Vec::new();
    flatten("", &reference(), &mut known);
    let suggestion = nearest(key, known.into_iter());
    Error::UnknownKey {
        origin: origin.to_owned(),
        key: key.to_owned(),
        suggestion,
    }
}

/// The dotted keys of all values of a table.
pub(crate) fn flatten(prefix: &str, table: &Table, keys: &mut Vec<String>) {
    for (key, value) in table {
        let path = format!("{prefix}{key}");
        match value {
            Value::Table(inner) => flatten(&format!("{path}."), inner, keys),
            _ => keys.push(path),
        }
    }
}

/// The candidate most like `given`, if any is like it at all; the last part of a dotted key
/// alone is tried too, so that `learning_rte` and `steps` find their section.
fn nearest(given: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    let last = |s: &str| s.rsplit('.').next().unwrap_or(s).to_owned();
    candidates
        .map(|c| {
            let whole = strsim::jaro_winkler(given, &c);
            let part = strsim::jaro_winkler(&last(given), &last(&c)) - 0.02;
            (whole.max(part), c)
        })
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, c)| c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_complete_and_valid_and_survives_its_own_toml() {
        for (name, _) in PRESETS {
            let experiment = resolve(name, &[]).unwrap();
            assert_eq!(experiment.preset, name);
            let again = parse("again", &to_toml(&experiment).unwrap(), None, &[]).unwrap();
            assert_eq!(again, experiment);
        }
    }

    #[test]
    fn what_is_older_than_a_key_is_the_same_as_its_default() {
        let toml = |set: &[&str]| {
            let set: Vec<String> = set.iter().map(|&set| set.to_owned()).collect();
            to_toml(&resolve("debug", &set).unwrap()).unwrap()
        };
        let now = toml(&[]);
        let older = now.replace("near_tokens = 0\n", "");
        assert_ne!(older, now);
        assert!(same(&older, &now) && same(&now, &older));
        assert!(!same(&older, &toml(&["baseline.near_tokens=1"])));
        assert!(!same(&older, &toml(&["seed=9"])));
        assert!(!same("no configuration", &now));
    }

    #[test]
    fn overrides_take_numbers_lists_and_words() {
        let set = [
            "optim.lr=1",
            "data.corpus=alice",
            "seed=9",
            "samples.temperatures=[1.0,0.5]",
        ];
        let set = set.map(str::to_owned);
        let e = resolve("debug", &set).unwrap();
        assert_eq!((e.optim.lr, e.seed), (1.0, 9));
        assert_eq!(e.data.corpus, ["alice"]);
        assert_eq!(e.samples.temperatures, [1.0, 0.5]);
    }

    #[test]
    fn unknown_names_come_with_a_suggestion() {
        let message = |preset: &str, set: &str| {
            let set: Vec<String> = (!set.is_empty())
                .then(|| set.to_owned())
                .into_iter()
                .collect();
            resolve(preset, &set).unwrap_err().to_string()
        };
        assert!(message("nanno", "").contains("did you mean 'nano'"));
        assert!(message("debug", "optim.learning_rate=1").contains("unknown key"));
        assert!(message("debug", "optim.wieght_decay=1").contains("'optim.weight_decay'"));
        assert!(message("debug", "model.chunksize=1").contains("'model.chunk_size'"));
        assert!(message("debug", "optim=1").contains("unknown key 'optim'"));
        assert!(message("debug", "seed").contains("key=value"));
    }

    #[test]
    fn wrong_types_and_sizes_are_refused_in_one_line() {
        for set in [
            "seed=x",
            "model.chunk_size=0",
            "model.window=7",
            "optim.beta1=1.5",
        ] {
            let message = resolve("debug", &[set.to_owned()]).unwrap_err().to_string();
            assert!(!message.contains('\n'), "{message}");
        }
        let message = resolve("debug", &["model.window=63".to_owned()])
            .unwrap_err()
            .to_string();
        assert!(message.contains("window = 63 is no multiple"), "{message}");
    }

    #[test]
    fn a_key_missing_from_a_file_is_named() {
        let text = PRESETS[0].1.replace("seed", "# seed");
        let message = parse("x.toml", &text, None, &[]).unwrap_err().to_string();
        assert!(message.contains("seed"), "{message}");
    }
}
