//! The token of the caller: the API gets it, and nobody else.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

const TOKEN: &str = "nofx_service_abc_secret";
const ARTIFACT: &str = "0190163d-8694-739b-aea5-966c26f8ad91";
/// Of the three bytes `abc`.
const SHA256: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/// A server that keeps the head of each request, with what it answers to a path.
struct Server {
    url: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(answer: impl Fn(&str) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let heads = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&heads);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                let path = head.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
                kept.lock().unwrap().push(head.join("\n").to_ascii_lowercase());
                stream.write_all(answer(&path).as_bytes()).unwrap();
            }
        });
        Self { url, heads }
    }

    /// How many requests came, and how many of them had the token.
    fn counts(&self) -> (usize, usize) {
        let heads = self.heads.lock().unwrap();
        let line = format!("\nnofx-authorization: bearer {TOKEN}");
        assert!(heads.iter().all(|head| head.matches("bearer").count() == usize::from(head.contains(&line))));
        (heads.len(), heads.iter().filter(|head| head.contains(&line)).count())
    }
}

fn answer(head: &str, body: &str) -> String {
    format!("HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn nofx(url: &str, token: &str, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_nofx"));
    command.args(arguments).current_dir(folder.path()).env("NOFX_API_URL", url).env("NOFX_TOKEN", token);
    command.env("NOFX_CONFIG", folder.path().join("config.toml")).output().unwrap()
}

#[test]
fn the_storage_to_which_the_api_redirects_gets_no_token() {
    let storage = Server::start(|_| answer("200 OK", "abc"));
    let signed_url = format!("{}/bucket/abc?signature=x", storage.url);
    let api = Server::start(move |path| {
        if path.ends_with("/download") {
            return answer(&format!("307 Temporary Redirect\r\nlocation: {signed_url}"), "");
        }
        let row = format!(
            r#"{{"id":"{ARTIFACT}","tenant_id":"acme","metadata":null,"run_id":null,"step_id":null,"attempt":null,"name":"a","type":"text","uri":"s3://b/a",
                "hash":"{SHA256}","size_bytes":3,"media_type":"text/plain","created_at":"2026-11-29T00:00:00Z",
                "storage":{{"state":"hot","since":"2026-11-29T00:00:00Z","restored_until":null,"restore":null,"actor":null,"reason":null,"problem":null}}}}"#
        );
        answer("200 OK\r\ncontent-type: application/json", &row)
    });
    let done = nofx(&api.url, TOKEN, &["get", ARTIFACT, "-o", "-"]);
    assert_eq!(String::from_utf8_lossy(&done.stdout), "abc", "{}", String::from_utf8_lossy(&done.stderr));
    let (asked, identified) = api.counts();
    assert!(asked >= 2 && asked == identified, "{identified} of {asked} requests had the token");
    assert_eq!(storage.counts(), (1, 0));
}

#[test]
fn an_api_that_moves_elsewhere_takes_no_token_along() {
    let elsewhere = Server::start(|_| answer("200 OK", "{}"));
    let target = elsewhere.url.clone();
    let api = Server::start(move |path| answer(&format!("307 Temporary Redirect\r\nlocation: {target}{path}"), ""));
    let done = nofx(&api.url, TOKEN, &["keys"]);
    let told = String::from_utf8_lossy(&done.stderr);
    assert!(!done.status.success());
    assert!(told.contains("GET /keys: 307 Temporary Redirect"), "{told}");
    assert_eq!((api.counts(), elsewhere.counts()), ((1, 1), (0, 0)));
}

#[test]
fn a_token_that_is_none_is_refused_without_being_shown() {
    let api = Server::start(|_| answer("200 OK", "{}"));
    let done = nofx(&api.url, "two secret-words", &["keys"]);
    let told = String::from_utf8_lossy(&done.stderr);
    assert!(told.contains("error: NOFX_TOKEN is not a token") && !told.contains("secret"), "{told}");
    assert_eq!(api.counts(), (0, 0));
}

#[test]
fn a_token_is_sent_only_encrypted_or_to_this_machine() {
    // Nobody can be asked about this name, so an answer about it means that something was sent.
    let url = "http://example.invalid";
    for arguments in [&["keys"][..], &["whoami"], &["runs", "--json"], &["get", ARTIFACT]] {
        let done = nofx(url, TOKEN, arguments);
        let told = String::from_utf8_lossy(&done.stderr);
        assert_eq!((done.status.code(), done.stdout.len()), (Some(1), 0), "{told}");
        assert!(told.contains("http://example.invalid is not encrypted") && told.contains("use https"), "{told}");
        assert!(!told.contains("nothing answers") && !told.contains("secret"), "{told}");
    }
    // Without a token there is nothing to keep secret.
    let done = nofx(url, "", &["keys"]);
    let told = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.code() == Some(6) && told.contains("nothing answers at"), "{told}");
    // Who logs in would send a password after that.
    let done = nofx(url, "", &["login", "--email", "ann@acme.test"]);
    let told = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.code() == Some(1) && told.contains("is not encrypted"), "{told}");
}
