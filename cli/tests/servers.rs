//! The command against servers that are no control plane, or a broken one: what is wrong, what to do, and the exit code.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output};
use std::thread;

use tempfile::TempDir;

/// A server that answers each request with these bytes, and closes the connection.
fn serve(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut length = 0;
            let mut lines = BufReader::new(stream.try_clone().unwrap());
            loop {
                let mut line = String::new();
                lines.read_line(&mut line).unwrap();
                if let Some(bytes) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = bytes.trim().parse().unwrap();
                }
                if line.trim().is_empty() {
                    break;
                }
            }
            lines.take(length).read_to_end(&mut Vec::new()).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    url
}

/// A folder with a plan, in which commands run.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let plan = r#"{"plan": {"goal": "g", "steps": [{"name": "a", "tool": "echo", "depends_on": []}]}}"#;
    std::fs::write(folder.path().join("plan.json"), plan).unwrap();
    folder
}

fn nofx(folder: &TempDir, url: &str, arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nofx"));
    command.args(arguments.split(' ')).current_dir(folder.path()).env("NOFX_API_URL", url);
    command.env("NOFX_CONFIG", folder.path().join("config.toml")).output().unwrap()
}

/// The exit code, and what is said.
fn told(folder: &TempDir, url: &str, arguments: &str) -> (Option<i32>, String) {
    let done = nofx(folder, url, arguments);
    assert_eq!(String::from_utf8_lossy(&done.stdout), "", "{arguments}");
    (done.status.code(), String::from_utf8(done.stderr).unwrap())
}

#[test]
fn a_broken_server_is_named_with_what_to_do() {
    let folder = folder();
    for (answer, code, error, hint) in [
        ("", 6, "GET /runs?limit=30: the connection broke before the answer was complete", "try again in a moment"),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"runs\"",
            6,
            "GET /runs?limit=30: the connection broke before the answer was complete",
            "try again in a moment",
        ),
        (
            "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 4\r\n\r\nboom",
            1,
            "GET /runs?limit=30: 500 Internal Server Error: boom",
            "try again in a moment; if it stays so, see the logs of the deployment",
        ),
        (
            "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 4\r\n\r\nslow",
            1,
            "GET /runs?limit=30: 429 Too Many Requests: slow",
            "try again in a moment",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>",
            1,
            "GET /runs?limit=30: 200 OK: <html>: this is no answer of a control plane",
            "check the address of the API: nofx profile list says where calls go and why",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            1,
            "GET /runs?limit=30: 200 OK: an empty answer: this is no answer of a control plane",
            "check the address of the API: nofx profile list says where calls go and why",
        ),
    ] {
        assert_eq!(
            told(&folder, &serve(answer), "runs"),
            (Some(code), format!("error: {error}\nhint: {hint}\n")),
            "{answer}"
        );
    }
}

#[test]
fn what_may_have_happened_is_looked_up_before_it_is_repeated() {
    let (code, text) = told(&folder(), &serve(""), "run plan.json");
    assert_eq!(code, Some(6), "{text}");
    assert!(text.contains("POST /runs: the connection broke") && text.contains("look whether it happened"), "{text}");
}

#[test]
fn where_nothing_answers_is_named_with_its_cause() {
    let folder = folder();
    let (code, text) = told(&folder, "http://127.0.0.1:1", "runs");
    assert!(code == Some(6) && text.starts_with("error: nothing answers at http://127.0.0.1:1\nhint: "), "{text}");
    let plain = serve("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").replace("http://", "https://");
    let (code, text) = told(&folder, &plain, "runs");
    assert!(code == Some(6) && text.starts_with(&format!("error: nothing answers at {plain}: ")), "{text}");
}

#[test]
fn a_file_that_is_not_there_is_another_one_or_none() {
    let folder = folder();
    let url = "http://127.0.0.1:1";
    for (arguments, error, hint) in [
        ("run plan.jsn", "cannot read plan.jsn: No such file", "did you mean plan.json?"),
        ("run .", ". is a folder", "name a file in it"),
        ("run plan.json --workspace plan.json", "plan.json is no folder", "name the folder that has the files"),
    ] {
        let (code, text) = told(&folder, url, arguments);
        assert!(code == Some(1) && text.starts_with(&format!("error: {error}")), "{arguments}: {text}");
        assert!(text.ends_with(&format!("hint: {hint}\n")), "{arguments}: {text}");
    }
    let (_, text) = told(&folder, url, "verify gate-unit.intoto.json");
    assert!(text.starts_with("error: cannot read gate-unit.intoto.json: No such file"), "{text}");
}

#[test]
fn profiles_are_named_plainly_and_found_or_not() {
    let folder = folder();
    let call = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nofx"));
        command.args(arguments).current_dir(folder.path()).env("NOFX_CONFIG", folder.path().join("config.toml"));
        let done = command.env_remove("NOFX_API_URL").env_remove("NOFX_PROFILE").output().unwrap();
        (done.status.code(), String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap())
    };
    for name in ["", "a b", "a\u{1b}"] {
        assert_eq!(call(&["profile", "add", name, "http://x.example.com"]).0, Some(2), "{name:?}");
    }
    assert_eq!(call(&["profile", "add", "prod", "http://x.example.com"]).0, Some(0));
    let (code, _, why) = call(&["profile", "use", "prd"]);
    assert!(code == Some(5) && why.ends_with("hint: did you mean prod?\n"), "{why}");
    // A wrong name in the environment does not hide the right ones.
    let (code, listed, why) = call(&["profile", "list", "--profile", "nix"]);
    assert!(code == Some(5) && listed.contains("prod") && why.contains("has no profile nix"), "{listed}{why}");
}

#[test]
fn output_that_cannot_be_written_is_an_error_with_its_place() {
    let folder = folder();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_nofx"));
    let done = command.args(["plan", "schema"]).current_dir(folder.path()).stdout(full).output().unwrap();
    let text = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(1));
    assert!(text.starts_with("error: cannot write to standard output: "), "{text}");
}
