//! `docs/evidence.schema.json` matches the structs of evidence. `UPDATE=1` writes it.

use std::path::{Path, PathBuf};
use std::{env, fs};

use nofx_gates::evidence::{Evidence, Reason, schema};
use serde_json::{Value, json};

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/evidence.schema.json")
}

#[test]
fn the_published_schema_of_evidence_matches_the_code() {
    let text = format!("{}\n", serde_json::to_string_pretty(&schema()).expect("JSON"));
    if env::var_os("UPDATE").is_some() {
        fs::write(path(), &text).expect("write the schema");
    }
    let published = fs::read_to_string(path()).unwrap_or_default();
    assert!(published == text, "docs/evidence.schema.json differs; run `make openapi`");
}

#[test]
fn evidence_fits_its_schema_and_wrong_evidence_does_not() {
    let schema = schema();
    jsonschema::draft202012::meta::validate(&schema).expect("the schema is one of 2020-12");
    let validator = jsonschema::draft202012::new(&schema).expect("the schema compiles");
    let reason = Reason { code: "no_workspace".into(), message: "there is no workspace".into() };
    let evidence: Value =
        serde_json::from_slice(&Evidence::new("lint", reason, 1).encode().expect("JSON").bytes).expect("JSON");
    assert!(validator.is_valid(&evidence));
    let read: Evidence = serde_json::from_value(evidence.clone()).expect("evidence can be read again");
    assert_eq!(serde_json::to_value(&read).expect("JSON"), evidence);
    for (field, wrong) in [
        ("schema", json!("nofx.gate_evidence.v1")),
        ("verdict", json!("maybe")),
        ("reason", json!({"code": "x"})),
        ("findings", json!({"total": 0})),
        ("subject", json!({"archive": null})),
        ("base", Value::Null),
    ] {
        let mut changed = evidence.clone();
        changed[field] = wrong;
        assert!(!validator.is_valid(&changed), "{field}");
    }
}
