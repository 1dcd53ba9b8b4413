//! `nofx verify`: checks the proof of a run, the attestation of a gate, or the signed decisions about it, with public keys, also
//! without a control plane.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nofx_gates::attestation::{Envelope, MAX_ENVELOPE_BYTES, Statement, TestResult, TestVerdict};
use nofx_local::report::{hinted, printable};
use serde::Serialize;
use shared::domain::digest::sha256_hex;
use shared::domain::gate::ON_EVIDENCE;
use shared::domain::{GateId, GateStatus};
use shared::signing::PublicKey;
use shared::view::{Artifact, ArtifactSummary, Gate, KeyPurpose, SigningKeys};

use crate::client::api::Api;
use crate::client::keyring::Keyring;
use crate::client::{download, resolve, workspace};
use crate::commands::verify_decision::{self, Covered, Decided};
use crate::commands::verify_proof;
use crate::output::color::{BAD, BOLD, DIM, GOOD, WAIT, paint};
use crate::output::error::NOT_PASSED;
use crate::output::{self, Format};

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  nofx keys --pem > keys.pem                        keep the keys that you trust
  nofx verify GATE --key keys.pem                   what the API has, with your keys
  nofx keys --pem --decisions > people.pem          the keys of decisions of people
  nofx verify gate-unit.intoto.json --key keys.pem --evidence gate-unit.json    without an API
  nofx keys --pem --all > all.pem                   every key, with its purpose
  nofx verify proof.json --key all.pem --repo .     the proof of a run, and that its gates judged this checkout

A file may have several decisions about a gate: a JSON array, or JSON lines.

Exit status:
  0  the attestation holds, and the gate is PASSED; the proof holds, the run succeeded, and every gate is PASSED
  1  the attestation or the proof does not hold, or something that it names is missing
  7  it holds, and a gate is WARNED, or the gate or the run did not pass, or needs more decisions than the file has")]
pub struct Args {
    /// Id of a gate, or a file with a proof of a run, with an attestation (gate-NAME.intoto.json) or with signed decisions
    what: String,
    /// File with the public keys that you trust, in PEM; required for a file [default: the keys of the API]
    #[arg(long = "key", value_name = "FILE")]
    keys: Option<PathBuf>,
    /// Check that this file is the evidence that was signed
    #[arg(long, value_name = "FILE")]
    evidence: Option<PathBuf>,
    /// Check that this archive was judged
    #[arg(long, value_name = "FILE")]
    archive: Option<PathBuf>,
    /// Check that this folder was judged, packed as nofx run --workspace packs it
    #[arg(long, value_name = "DIR")]
    workspace: Option<PathBuf>,
    /// Of a proof: check that its gates judged the files of this checkout
    #[arg(long, value_name = "DIR")]
    repo: Option<PathBuf>,
    /// Of a proof: accept only artifacts of this builder, with or without its version; may be repeated
    #[arg(long = "builder", value_name = "ID")]
    builders: Vec<String>,
    /// Of a proof: a gate about which something is not proved has not passed
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    format: Format,
}

/// An attestation, and what it is compared with.
struct Given {
    envelope: Vec<u8>,
    keys: Vec<PublicKey>,
    /// Whether somebody kept the keys, instead of getting them together with the attestation.
    keys_are_kept: bool,
    /// sha256 of the evidence at hand.
    evidence_sha256: Option<String>,
    /// The gate of the API that it must be about.
    gate: Option<(String, GateStatus)>,
}

/// The document of `--json`.
#[derive(Debug, Serialize)]
struct Verified {
    result: TestVerdict,
    /// The keys that signed.
    keyids: Vec<String>,
    keys_are_kept: bool,
    /// What was compared and is right, such as `evidence`.
    matches: Vec<&'static str>,
    statement: Statement,
}

/// Prints what the attestation proves. An error if something is wrong. Only a verdict that passed is a success.
pub async fn run(profile: Option<&str>, args: &Args) -> Result<ExitCode> {
    // No id has these characters: it is a file, also if there is none.
    let mut given = if Path::new(&args.what).is_file() || args.what.contains(['.', '/']) {
        if let Some(code) = of_proof(args)? {
            return Ok(code);
        }
        let keys = Keyring::read(args.keys.as_ref().ok_or_else(missing_keys)?)?;
        let (envelope, of_people) = (read_text(Path::new(&args.what))?, keys.keys(KeyPurpose::Decisions));
        if let Some(envelopes) = verify_decision::envelopes(&envelope, &of_people) {
            return decided(&verify_decision::of_file(&envelopes, &of_people)?, args);
        }
        Given {
            envelope,
            keys: keys.keys(KeyPurpose::Evidence),
            keys_are_kept: true,
            evidence_sha256: None,
            gate: None,
        }
    } else {
        let api = Api::connect(profile).await?;
        let gate = fetch(&api, resolve::gate(&api, &args.what).await?).await?;
        if !gate.attestations.is_empty() {
            let keys = keys_of(&api, args.keys.as_deref(), KeyPurpose::Decisions).await?;
            return decided(&verify_decision::of_gate(&gate, &keys, args.keys.is_some())?, args);
        }
        of_gate(&api, &gate, args).await?
    };
    if let Some(file) = &args.evidence {
        given.evidence_sha256 = Some(sha256_hex(&read(file)?));
    }
    let verified = verify(&given, args)?;
    let code = exit_code(verified.result);
    if args.format.json {
        output::json(&verified)?;
    } else {
        output::text(text(&verified))?;
    }
    Ok(ExitCode::from(code))
}

/// The gate of this id. An error if the API answers with another one: then nothing that it says is about what was asked for.
pub async fn fetch(api: &Api, id: GateId) -> Result<Gate> {
    let gate: Gate = api.get(&format!("/gates/{id}")).await?;
    ensure!(gate.id == id, "not verified: asked for the gate {id}, the API answers with the gate {}", gate.id);
    Ok(gate)
}

fn exit_code(verdict: TestVerdict) -> u8 {
    match verdict {
        TestVerdict::Passed => 0,
        TestVerdict::Warned | TestVerdict::Failed => NOT_PASSED,
    }
}

/// Verifies a file that is the proof of a run. None if it is something else.
fn of_proof(args: &Args) -> Result<Option<ExitCode>> {
    let bytes = read_text(Path::new(&args.what))?;
    if !verify_proof::is_proof(&bytes) {
        for (option, is_given) in
            [("--repo", args.repo.is_some()), ("--builder", !args.builders.is_empty()), ("--strict", args.strict)]
        {
            if is_given {
                return Err(hinted(format!("{} is no proof of a run", args.what), format!("leave out {option}")));
            }
        }
        return Ok(None);
    }
    for (option, is_given) in [
        ("--evidence", args.evidence.is_some()),
        ("--archive", args.archive.is_some()),
        ("--workspace", args.workspace.is_some()),
    ] {
        if is_given {
            return Err(hinted(
                format!("{option} is for attestations of gates"),
                "--repo compares a proof with a checkout",
            ));
        }
    }
    let file = args.keys.as_ref().ok_or_else(missing_keys)?;
    let (keys, repo, builders) = (Keyring::read(file)?, args.repo.clone(), args.builders.clone());
    let options = verify_proof::Options { keys, repo, builders, is_strict: args.strict };
    verify_proof::run(&bytes, &options, args.format.json).map(Some)
}

fn missing_keys() -> anyhow::Error {
    hinted("the public keys are missing", "name them with --key; nofx keys --pem --all prints those of an API")
}

/// Prints decisions that hold. Only a gate that passes by them is a success.
fn decided(decided: &Decided, args: &Args) -> Result<ExitCode> {
    let mut matches = Vec::new();
    if let Some(file) = &args.evidence {
        decided.compare(Covered::Evidence, "--evidence", || Ok(sha256_hex(&read(file)?)))?;
        matches.push("evidence");
    }
    if let Some(file) = &args.archive {
        decided.compare(Covered::Archive, "--archive", || Ok(sha256_hex(&read(file)?)))?;
        matches.push("archive");
    }
    if let Some(dir) = &args.workspace {
        decided.compare(Covered::Archive, "--workspace", || Ok(sha256_hex(&workspace::pack(dir, None)?)))?;
        matches.push("workspace");
    }
    if args.format.json {
        output::json(decided)?;
    } else {
        output::text(decided.text(&matches))?;
        output::text(note(decided.keys_are_kept, "nofx keys --pem --decisions"))?;
    }
    Ok(ExitCode::from(if decided.passes { 0 } else { NOT_PASSED }))
}

/// The keys that somebody kept in a file, else those of the API.
pub async fn keys_of(api: &Api, file: Option<&Path>, purpose: KeyPurpose) -> Result<Vec<PublicKey>> {
    if let Some(file) = file {
        return Ok(Keyring::read(file)?.keys(purpose));
    }
    let keys: SigningKeys = api.get("/keys").await?;
    Ok(keys.of(purpose).map(|key| PublicKey::from_pem(&key.pem)).collect::<Result<_, _>>()?)
}

/// A line about keys that nobody kept, with the command that prints them.
pub fn note(keys_are_kept: bool, command: &str) -> String {
    let note = format!("the keys came from the same API; keep them with {command}, and name them with --key");
    if keys_are_kept { String::new() } else { format!("{}\n", paint(DIM, note)) }
}

/// What the control plane has of a gate.
async fn of_gate(api: &Api, gate: &Gate, args: &Args) -> Result<Given> {
    let id = gate.id;
    let is_judged =
        gate.gate_type.starts_with(ON_EVIDENCE) && matches!(gate.status, GateStatus::Passed | GateStatus::Failed);
    ensure!(
        is_judged,
        "not verified: the gate {id} ({}) is {}, and no evidence decided it",
        printable(&gate.gate_type),
        gate.status
    );
    let evidence = gate.evidence_id.ok_or_else(|| {
        hinted(format!("the gate {id} has no evidence"), "only gates that judge code have some, and decisions are signed once somebody has decided: nofx timeline RUN")
    })?;
    let evidence: Artifact = api.get(&format!("/artifacts/{evidence}")).await?;
    let stored = api.whole_run(&gate.run_id.to_string()).await?.artifacts;
    let is_its = |artifact: &&ArtifactSummary| {
        artifact.kind == "gate_attestation"
            && artifact.step_id == evidence.step_id
            && artifact.attempt == evidence.attempt
    };
    let attestation = stored.iter().find(is_its).ok_or_else(|| anyhow!("the gate {id} has no attestation"))?;
    let (_, envelope) = download::bytes(api, attestation.id, MAX_ENVELOPE_BYTES as u64).await?;
    let mut content = Vec::new();
    // The digest of what is stored now, not the recorded one.
    download::artifact(api, &evidence, &mut content, |_| {}).await?;
    let keys = keys_of(api, args.keys.as_deref(), KeyPurpose::Evidence).await?;
    let about = Some((gate.gate_type.clone(), gate.status));
    let evidence_sha256 = Some(sha256_hex(&content));
    Ok(Given { envelope, keys, keys_are_kept: args.keys.is_some(), evidence_sha256, gate: about })
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

/// Reads a file that must be a text. Says which other kind of file it is.
fn read_text(file: &Path) -> Result<Vec<u8>> {
    let bytes = read(file)?;
    let what = match bytes.as_slice() {
        [] => "is empty",
        [0x1f, 0x8b, ..] => "is compressed with gzip: decompress it first",
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "is UTF-16: it must be the file as it was saved, which is UTF-8",
        [0xef, 0xbb, 0xbf, ..] => "starts with a byte order mark: it must be the file as it was saved",
        _ => return Ok(bytes),
    };
    bail!("not verified: {} {what}", file.display())
}

fn verify(given: &Given, args: &Args) -> Result<Verified> {
    let not_verified = |error| anyhow!("not verified: {error}");
    let envelope = Envelope::read(&given.envelope).map_err(not_verified)?;
    let verified = envelope.verify(&given.keys, 1).map_err(not_verified)?;
    let statement = verified.statement().map_err(not_verified)?;
    let result: TestResult = statement.test_result().map_err(not_verified)?;
    if let Some((gate_type, status)) = &given.gate {
        is_about(&result, gate_type, *status)?;
    }
    let mut matches = Vec::new();
    if let Some(sha256) = &given.evidence_sha256 {
        if result.evidence_sha256() != Some(sha256.as_str()) {
            bail!("not verified: the evidence has the sha256 {sha256}, and the attestation names another one");
        }
        matches.push("evidence");
    }
    if let Some(file) = &args.archive {
        if !statement.names_archive(&sha256_hex(&read(file)?)) {
            bail!("not verified: the attestation is not about {}", file.display());
        }
        matches.push("archive");
    }
    if let Some(dir) = &args.workspace {
        if !statement.names_archive(&sha256_hex(&workspace::pack(dir, None)?)) {
            bail!("not verified: the attestation is not about the files of {}", dir.display());
        }
        matches.push("workspace");
    }
    let keyids = verified.keyids.into_iter().collect();
    Ok(Verified { result: result.result, keyids, keys_are_kept: given.keys_are_kept, matches, statement })
}

/// Whether this is the result of that gate. The API only says which evidence a gate has.
pub fn is_about(result: &TestResult, gate_type: &str, status: GateStatus) -> Result<()> {
    let tests = match result.result {
        TestVerdict::Passed => &result.passed_tests,
        TestVerdict::Warned => &result.warned_tests,
        TestVerdict::Failed => &result.failed_tests,
    };
    let signed = tests.first().map_or("nothing", String::as_str);
    ensure!(
        signed == gate_type,
        "not verified: the gate is {gate_type}, and the attestation is about {}",
        printable(signed)
    );
    let (expected, said) = match result.result {
        TestVerdict::Passed | TestVerdict::Warned => (GateStatus::Passed, "passed"),
        TestVerdict::Failed => (GateStatus::Failed, "failed"),
    };
    ensure!(status == expected, "not verified: the gate is {status}, and the attestation says that it {said}");
    Ok(())
}

fn text(verified: &Verified) -> String {
    let mut text = String::new();
    let mut row = |mark: String, name: &str, what: String| {
        let _ = writeln!(text, "{mark} {name:<10} {what}");
    };
    let good = || paint(GOOD, "✓");
    for keyid in &verified.keyids {
        let whose = if verified.keys_are_kept { "a key that you trust" } else { "a key of the API" };
        row(good(), "signature", format!("{whose}, {keyid}"));
    }
    for name in &verified.matches {
        row(good(), name, "is what was signed".to_owned());
    }
    for subject in &verified.statement.subject {
        for (algorithm, digest) in &subject.digest {
            row(paint(DIM, "·"), &printable(&subject.name), format!("{} {}", printable(algorithm), printable(digest)));
        }
    }
    let (style, word) = match verified.result {
        TestVerdict::Passed => (GOOD, "PASSED"),
        TestVerdict::Warned => (WAIT, "WARNED"),
        TestVerdict::Failed => (BAD, "FAILED"),
    };
    let _ = writeln!(text, "{} {}", paint(BOLD, "verified: the gate says"), paint(style.bold(), word));
    text.push_str(&note(verified.keys_are_kept, "nofx keys --pem"));
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_gate_holds_by_its_own_attestation_alone() {
        let result = |verdict: &str, list: &str, tool: &str| -> TestResult {
            serde_json::from_value(json!({ "result": verdict, "configuration": [], list: [tool, "a test"] })).unwrap()
        };
        let passed = result("PASSED", "passedTests", "gate:secrets");
        assert!(is_about(&passed, "gate:secrets", GateStatus::Passed).is_ok());
        assert!(is_about(&result("FAILED", "failedTests", "gate:lint"), "gate:lint", GateStatus::Failed).is_ok());
        for (gate_type, status) in [
            ("gate:lint", GateStatus::Passed),
            ("production release", GateStatus::Passed),
            ("gate:secrets", GateStatus::Failed),
            ("gate:secrets", GateStatus::Waived),
        ] {
            assert!(is_about(&passed, gate_type, status).is_err(), "{gate_type} {status}");
        }
        let failed = result("FAILED", "failedTests", "gate:lint");
        for status in [GateStatus::Passed, GateStatus::Waived] {
            assert!(is_about(&failed, "gate:lint", status).is_err(), "a failed gate is not {status}");
        }
        let nothing = serde_json::from_value(json!({ "result": "PASSED", "configuration": [] })).unwrap();
        assert!(is_about(&nothing, "gate:lint", GateStatus::Passed).is_err());
    }

    #[test]
    fn only_a_verdict_that_passed_is_a_success() {
        assert_eq!([TestVerdict::Passed, TestVerdict::Warned, TestVerdict::Failed].map(exit_code), [0, 7, 7]);
    }
}
