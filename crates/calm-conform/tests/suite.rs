//! All cases on the CPU, and bad files of cases.

use std::path::Path;

use calm_conform::{Error, Status, Suite};
use calm_lm::NamedDevice;

#[test]
fn every_case_passes_on_the_cpu() {
    let suite = Suite::built_in().unwrap();
    let flex = NamedDevice::open("flex").unwrap();
    let results = suite.run(&flex, &mut |_| ());
    let failed: Vec<_> = results
        .iter()
        .filter(|result| result.status == Status::Failed)
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(results.len() > 50, "{}", results.len());
    // Each has a name of its own.
    let mut names: Vec<&str> = results.iter().map(|result| result.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), results.len());
}

fn of(text: &str) -> Result<Suite, Error> {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("cases.toml");
    std::fs::write(&path, text).unwrap();
    Suite::from_file(&path)
}

#[test]
fn bad_files_of_cases_are_said() {
    let missing = Suite::from_file(Path::new("no such file")).unwrap_err();
    assert!(missing.to_string().starts_with("no such file: "));
    for text in [
        "",
        "case = 3",
        "[[case]]\nname = \"x\"",
        "[[case]]\nnom = \"x\"",
        "[[case]]\nname = \"x\"\ntolerance = 1.0\nmodel = { part = \"calm\", check = \"text\", sett = [] }",
    ] {
        let error = of(text).unwrap_err().to_string();
        assert!(
            error.contains("cases.toml") && !error.contains('\n'),
            "{error}"
        );
    }
}

/// A case that can't be run is one that fails, with the reason, and the others go on.
#[test]
fn a_case_that_can_not_be_run_fails_by_itself() {
    let case =
        |name: &str, work: &str| format!("[[case]]\nname = \"{name}\"\ntolerance = 1e-4\n{work}\n");
    let text = [
        case("unknown", "kernel = { operation = \"fft\", sizes = {} }"),
        case(
            "sizeless",
            "kernel = { operation = \"silu\", sizes = { rows = 1 } }",
        ),
        case(
            "oversized",
            "kernel = { operation = \"silu\", sizes = { rows = 1, width = 2, depth = 3 } }",
        ),
        case(
            "unmoved",
            "training = { moves_after = 99, set = [\"autoencoder.steps=1\", \"lm.steps=1\"] }",
        ),
        case(
            "unset",
            "model = { part = \"calm\", check = \"forward\", set = [\"no=1\"] }",
        ),
        case(
            "unrecorded",
            "model = { part = \"calm\", check = \"forward\" }",
        ),
        case(
            "checkless",
            "model = { part = \"autoencoder\", check = \"text\" }",
        ),
        case(
            "good",
            "kernel = { operation = \"silu\", sizes = { rows = 1, width = 3 } }",
        ),
    ];
    let flex = NamedDevice::open("flex").unwrap();
    let mut seen = Vec::new();
    let results = of(&text.concat()).unwrap().run(&flex, &mut |result| {
        seen.push(result.name.clone());
    });
    assert_eq!(seen.len(), 8);
    let reasons = [
        "no operation 'fft'",
        "needs a size 'width'",
        "has no size 'depth'",
        "it never moves",
        "unknown key",
        "nothing is on record",
        "has no check",
    ];
    for (result, reason) in results.iter().zip(reasons) {
        assert_eq!(result.status, Status::Failed, "{}", result.name);
        assert!(
            result.detail.contains(reason),
            "{}: {}",
            result.name,
            result.detail
        );
        assert_eq!(result.apart, None);
    }
    assert_eq!(results[7].status, Status::Passed, "{}", results[7].detail);
}
