//! Golden step directories: `golden/<case>/NN-input.jsonl` are fed one file after the other, each
//! followed by a flush that must say exactly `NN-output.jsonl`. `UPDATE_GOLDEN=1` rewrites the
//! outputs.
//!
//! Every step is also applied to a model of a data plane (law 5), and the last state must be that
//! of a cold start (law 1).

mod common;
mod text;

use std::fs;
use std::path::{Path, PathBuf};

use calc::Calc;
use common::Downstream;
use model::Update;

#[test]
fn golden_cases() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut cases: Vec<PathBuf> =
        fs::read_dir(&root).expect("is there").map(|e| e.expect("is readable").path()).collect();
    cases.sort();
    assert!(cases.len() >= 8, "cases are missing from {}", root.display());
    let failures: Vec<String> = cases.iter().flat_map(|case| run(case)).collect();
    assert!(failures.is_empty(), "\n{}\nUPDATE_GOLDEN=1 accepts this", failures.join("\n"));
}

/// Runs one case; returns what differs.
fn run(case: &Path) -> Vec<String> {
    let mut inputs: Vec<PathBuf> = fs::read_dir(case)
        .expect("is a folder")
        .map(|e| e.expect("is readable").path())
        .filter(|p| p.to_string_lossy().ends_with("-input.jsonl"))
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{} has no steps", case.display());
    let mut calc = Calc::new("here".into());
    let mut down = Downstream::default();
    let mut all: Vec<Update> = Vec::new();
    let mut failures = Vec::new();
    for input in inputs {
        let body = fs::read_to_string(&input).expect("is readable");
        for line in body.lines().filter(|l| !l.trim().is_empty()) {
            let update = text::update(line).unwrap_or_else(|e| panic!("{}: {e}", input.display()));
            all.push(update.clone());
            calc.update(update);
        }
        let batch = calc.flush();
        down.apply(&batch);
        let said: String = batch.iter().map(|o| text::output(o).to_string() + "\n").collect();
        let expected = PathBuf::from(input.to_string_lossy().replace("-input.", "-output."));
        failures.extend(compare(&expected, &said));
    }
    let mut fresh = Calc::new("here".into());
    let mut again = Downstream::default();
    for update in all {
        fresh.update(update); // one flush for all steps
    }
    again.apply(&fresh.flush());
    assert_eq!(down, again, "{}: history shows", case.display());
    failures
}

fn compare(expected: &Path, said: &str) -> Option<String> {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(expected, said).expect("is writable");
        return None;
    }
    let wanted = fs::read_to_string(expected).unwrap_or_default();
    (wanted != said).then(|| {
        let lines = |a: &str, b: &str, sign: &str| -> String {
            let missing = a.lines().filter(|l| !b.lines().any(|m| m == *l));
            missing.flat_map(|l| [sign, " ", l, "\n"]).collect()
        };
        let (lost, new) = (lines(&wanted, said, "-"), lines(said, &wanted, "+"));
        format!("{}:\n{lost}{new}(or another order)", expected.display())
    })
}
