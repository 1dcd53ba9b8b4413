//! The keys of an issuer: rotation, and endpoints that are down, slow or hostile. A caller whose key was known passes
//! all the time. The endpoint is a real server on this machine; the time is that of the test.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::join_all;
use serde_json::{Value, json};
use shared::auth::{Authenticator, Clock, Denied, KeyStore, Refused, RequestOrigin, Stored, Timing};
use shared::config::{AuthConfig, AuthMode, IssuerConfig, KeySource};
use shared::domain::TenantId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const ISSUER: &str = "http://127.0.0.1/auth/v1";
const UNKNOWN: Result<(), Denied> = Err(Denied::Invalid(Refused("unknown_key")));
/// No test waits this long. It bounds one that would hang.
const LONG: Duration = Duration::from_secs(20);

/// A key of the issuer.
struct Signer {
    kid: &'static str,
    pair: EcdsaKeyPair,
}

impl Signer {
    fn new(kid: &'static str) -> Self {
        Self { kid, pair: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap() }
    }

    fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.kid, "x": x, "y": y})
    }

    /// A token that counts in every test.
    fn token(&self) -> String {
        let header = json!({"alg": "ES256", "kid": self.kid, "typ": "JWT"});
        let claims = json!({"iss": ISSUER, "aud": "authenticated", "exp": 9_000_000_000_i64, "sub": "ann"});
        let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let signed = format!("{header}.{claims}");
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn document(signers: &[&Signer]) -> String {
    json!({"keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>()}).to_string()
}

/// What the endpoint does with a request.
#[derive(Clone)]
enum Answer {
    /// 200 with this body.
    Body(String),
    /// These bytes.
    Raw(Vec<u8>),
    /// Nothing, and the connection stays open.
    Silence,
    /// A head, and then bytes without an end.
    Endless,
    /// The connection ends at once.
    Close,
}

/// The endpoint of an issuer.
struct Endpoint {
    address: String,
    answer: Arc<Mutex<Answer>>,
    requests: Arc<AtomicUsize>,
    /// Wakes when a request has been read.
    asked: Arc<Notify>,
    server: JoinHandle<()>,
}

impl Endpoint {
    async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/jwks.json", listener.local_addr().unwrap());
        let (answer, requests, asked) = (Arc::new(Mutex::new(answer)), Arc::default(), Arc::new(Notify::new()));
        let (current, count, notify) = (Arc::clone(&answer), Arc::clone(&requests), Arc::clone(&asked));
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let answer = current.lock().unwrap().clone();
                AtomicUsize::fetch_add(&count, 1, Ordering::SeqCst);
                tokio::spawn(respond(stream, answer, Arc::clone(&notify)));
            }
        });
        Self { address, answer, requests, asked, server }
    }

    fn now_answers(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Answers one request. The client may have gone.
async fn respond(mut stream: TcpStream, answer: Answer, asked: Arc<Notify>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await.unwrap_or(0) == 0 {
            return;
        }
        head.push(byte[0]);
    }
    asked.notify_one();
    match answer {
        Answer::Body(body) => {
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(body.as_bytes()).await;
        }
        Answer::Raw(bytes) => drop(stream.write_all(&bytes).await),
        Answer::Silence => drop(stream.read(&mut [0]).await),
        Answer::Endless => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            let chunk = [b"1000\r\n".as_slice(), &[b' '; 4_096], b"\r\n"].concat();
            while stream.write_all(&chunk).await.is_ok() {}
        }
        Answer::Close => {}
    }
}

/// A process that identifies callers. A test sets its clock.
struct Process {
    authenticator: Authenticator,
    now_s: Arc<AtomicU64>,
}

/// The pauses are those of use. A request waits for the end of a read, and a read of silence is short.
const TIMING: Timing = Timing {
    refresh: Duration::from_mins(10),
    interval: Duration::from_secs(10),
    max_interval: Duration::from_mins(5),
    wait: Duration::from_secs(10),
    fetch: Duration::from_secs(2),
    max_stale: Duration::from_hours(24),
};

impl Process {
    fn new(address: &str, key_store: Option<KeyStore>) -> Self {
        Self::with_timing(address, key_store, TIMING)
    }

    fn with_timing(address: &str, key_store: Option<KeyStore>, timing: Timing) -> Self {
        let now_s = Arc::new(AtomicU64::new(1_800_000_000));
        let issuer = IssuerConfig {
            issuer: ISSUER.into(),
            audience: "authenticated".into(),
            keys: KeySource::Url(address.into()),
            hs256_secret: None,
            max_stale: timing.max_stale,
        };
        let config = AuthConfig { mode: Some(AuthMode::On), issuer: Some(issuer), ..AuthConfig::default() };
        let seconds = Arc::clone(&now_s);
        let clock: Clock = Arc::new(move || Duration::from_secs(seconds.load(Ordering::SeqCst)));
        let home = TenantId("home".into());
        let authenticator = Authenticator::with_clock(&config, home, key_store, timing, clock).unwrap();
        Self { authenticator, now_s }
    }

    fn pass(&self, seconds: u64) {
        self.now_s.fetch_add(seconds, Ordering::SeqCst);
    }

    async fn admits(&self, signer: &Signer) -> Result<(), Denied> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, format!("Bearer {}", signer.token()).parse().unwrap());
        let origin = RequestOrigin { request_id: "r-1", ..RequestOrigin::default() };
        let identified = timeout(LONG, self.authenticator.identify(&headers, &origin)).await.expect("an answer");
        identified.map(|caller| assert_eq!(caller.subject, "ann"))
    }

    /// Waits for the end of a read in the background: then the caller gets this answer.
    async fn settles(&self, signer: &Signer, expected: Result<(), Denied>) {
        timeout(LONG, async {
            while self.admits(signer).await != expected {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the read ends");
    }
}

#[tokio::test]
async fn keys_are_read_once_and_known_callers_ask_nobody() {
    let ann = Signer::new("a");
    let endpoint = Endpoint::start(Answer::Body(document(&[&ann]))).await;
    let process = Process::new(&endpoint.address, None);
    assert_eq!(endpoint.requests(), 0, "nothing is read before it is needed");
    let answers = join_all((0..50).map(|_| process.admits(&ann))).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    process.pass(599);
    assert_eq!(process.admits(&ann).await, Ok(()));
    assert_eq!(endpoint.requests(), 1);
}

#[tokio::test]
async fn a_rotated_key_is_found_and_the_old_one_ends_when_the_issuer_drops_it() {
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let endpoint = Endpoint::start(Answer::Body(document(&[&old]))).await;
    let process = Process::new(&endpoint.address, None);
    assert_eq!(process.admits(&old).await, Ok(()));
    // Announced, in use beside the old one, alone.
    endpoint.now_answers(Answer::Body(document(&[&old, &new])));
    assert_eq!(process.admits(&new).await, UNKNOWN, "a read every 10 seconds at most");
    process.pass(10);
    assert_eq!((process.admits(&new).await, process.admits(&old).await), (Ok(()), Ok(())));
    endpoint.now_answers(Answer::Body(document(&[&new])));
    process.pass(600);
    assert_eq!(process.admits(&old).await, Ok(()), "the caller does not wait for the read");
    process.settles(&old, UNKNOWN).await;
    assert_eq!(process.admits(&new).await, Ok(()));
}

#[tokio::test]
async fn a_key_with_the_same_id_and_other_numbers_replaces_the_old_one() {
    let (old, new) = (Signer::new("k"), Signer::new("k"));
    let endpoint = Endpoint::start(Answer::Body(document(&[&old]))).await;
    let process = Process::new(&endpoint.address, None);
    assert_eq!(process.admits(&old).await, Ok(()));
    assert_eq!(process.admits(&new).await, Err(Denied::Invalid(Refused("signature"))));
    endpoint.now_answers(Answer::Body(document(&[&new])));
    process.pass(600);
    process.settles(&new, Ok(())).await;
    assert_eq!(process.admits(&old).await, Err(Denied::Invalid(Refused("signature"))));
}

#[tokio::test]
async fn unknown_keys_read_the_document_once_in_ten_seconds_for_all_requests_together() {
    let (ann, eve) = (Signer::new("a"), Signer::new("evil"));
    let endpoint = Endpoint::start(Answer::Body(document(&[&ann]))).await;
    let process = Process::new(&endpoint.address, None);
    for round in 1..=5 {
        let answers = join_all((0..40).map(|_| process.admits(&eve))).await;
        assert!(answers.iter().all(|answer| *answer == UNKNOWN));
        process.pass(9);
        assert_eq!((process.admits(&eve).await, process.admits(&ann).await), (UNKNOWN, Ok(())));
        assert_eq!(endpoint.requests(), round);
        process.pass(1);
    }
}

/// Endpoints that answer, but not with keys.
fn hostile_answers(ann: &Signer, eve: &Signer) -> Vec<(&'static str, Answer)> {
    let good = document(&[ann, eve]);
    let with = |key: Value| Answer::Body(json!({"keys": [key]}).to_string());
    let raw = |head: &str, body: &str| {
        Answer::Raw(format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes())
    };
    let mut private = eve.jwk();
    private["d"] = json!(URL_SAFE_NO_PAD.encode([7; 32]));
    let secret = json!({"kty": "oct", "alg": "HS256", "kid": "evil", "k": URL_SAFE_NO_PAD.encode([7; 32])});
    let mut other_curve = eve.jwk();
    other_curve["crv"] = json!("P-384");
    let twin = Signer::new("evil");
    vec![
        (
            "a redirect",
            Answer::Raw(
                b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n".to_vec(),
            ),
        ),
        ("a redirect with keys", raw("307 Temporary Redirect\r\nlocation: /jwks.json", &good)),
        ("401", raw("401 Unauthorized", &good)),
        ("404", raw("404 Not Found", "")),
        ("500 with keys", raw("500 Internal Server Error", &good)),
        ("204", Answer::Raw(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec())),
        ("206", raw("206 Partial Content", &good)),
        ("HTML", Answer::Body("<!doctype html><title>Sign in</title>".into())),
        ("nothing", Answer::Body(String::new())),
        ("no HTTP", Answer::Raw(b"SSH-2.0-OpenSSH_9.6\r\n".to_vec())),
        ("half a head", Answer::Raw(b"HTTP/1.1 200 OK\r\nconte".to_vec())),
        ("half a body", Answer::Raw(format!("HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n{good}").into_bytes())),
        (
            "a length that lies",
            Answer::Raw(format!("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{good}").into_bytes()),
        ),
        ("a terabyte", Answer::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 1099511627776\r\n\r\n{".to_vec())),
        ("a huge head", Answer::Raw([b"HTTP/1.1 200 OK\r\nx: ".as_slice(), &vec![b'x'; 2_000_000]].concat())),
        ("too much", Answer::Body(format!("{good}{}", " ".repeat(70_000)))),
        ("a body without an end", Answer::Endless),
        ("a compressed body", raw("200 OK\r\ncontent-encoding: gzip", "\u{1f}\u{8b}\u{8}")),
        ("not UTF-8", Answer::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n\xff\xfe{".to_vec())),
        ("no keys", Answer::Body(json!({"keys": []}).to_string())),
        ("no list", Answer::Body(json!({"keys": {"evil": eve.jwk()}}).to_string())),
        ("another document", Answer::Body(json!({"issuer": ISSUER, "jwks_uri": "http://evil.test"}).to_string())),
        ("a problem", Answer::Body(json!({"code": 500, "msg": "Internal Server Error"}).to_string())),
        ("a repeated member", Answer::Body(format!("{{\"keys\":[],\"keys\":[{}]}}", eve.jwk()))),
        ("two keys with one id", Answer::Body(document(&[ann, eve, &twin]))),
        ("seventeen keys", Answer::Body(document(&[eve; 17]))),
        ("a private key", with(private)),
        ("a shared secret", with(secret)),
        ("another curve", with(other_curve)),
        ("a key without an id", with(json!({"kty": "EC", "crv": "P-256", "x": eve.jwk()["x"], "y": eve.jwk()["y"]}))),
        ("silence", Answer::Silence),
        ("a closed connection", Answer::Close),
    ]
}

#[tokio::test]
async fn no_answer_of_an_endpoint_loses_a_known_key_or_adds_one() {
    let (ann, eve) = (Signer::new("a"), Signer::new("evil"));
    for (name, answer) in hostile_answers(&ann, &eve) {
        let endpoint = Endpoint::start(Answer::Body(document(&[&ann]))).await;
        let process = Process::new(&endpoint.address, None);
        assert_eq!(process.admits(&ann).await, Ok(()), "{name}");
        endpoint.now_answers(answer);
        process.pass(600);
        // The reads start with the known caller and with the unknown one, and both get their answers.
        assert_eq!((process.admits(&ann).await, process.admits(&eve).await), (Ok(()), UNKNOWN), "{name}");
        assert!((1..=2).contains(&endpoint.requests()), "{name}");
        process.pass(600);
        assert_eq!((process.admits(&eve).await, process.admits(&ann).await), (UNKNOWN, Ok(())), "{name}");
        // It recovers. A read that still waits for the old answer ends first.
        endpoint.now_answers(Answer::Body(document(&[&ann, &eve])));
        timeout(LONG, async {
            while process.admits(&eve).await != Ok(()) {
                process.pass(300);
            }
        })
        .await
        .unwrap_or_else(|_| panic!("{name}: it never recovers"));
        assert_eq!(process.admits(&ann).await, Ok(()), "{name}");
    }
}

#[tokio::test]
async fn a_known_caller_does_not_wait_for_a_slow_endpoint_and_an_unknown_one_waits_a_bounded_time() {
    let (ann, eve) = (Signer::new("a"), Signer::new("evil"));
    let endpoint = Endpoint::start(Answer::Body(document(&[&ann]))).await;
    // Only the wait of a request can end before the test does.
    let timing = Timing { fetch: Duration::from_hours(1), wait: Duration::from_millis(100), ..TIMING };
    let process = Process::with_timing(&endpoint.address, None, timing);
    assert_eq!(process.admits(&ann).await, Ok(()));
    endpoint.asked.notified().await;
    endpoint.now_answers(Answer::Silence);
    process.pass(600);
    assert_eq!(process.admits(&eve).await, UNKNOWN);
    endpoint.asked.notified().await;
    for _ in 0..100 {
        assert_eq!(process.admits(&ann).await, Ok(()));
    }
    process.pass(86_400 - 600);
    let answers = join_all((0..20).map(|_| process.admits(&eve))).await;
    assert!(answers.iter().all(|answer| *answer == UNKNOWN));
    assert_eq!((process.admits(&ann).await, endpoint.requests()), (Ok(()), 2), "one read at a time");
}

#[tokio::test]
async fn a_body_without_an_end_is_not_read_for_as_long_as_it_comes() {
    let eve = Signer::new("evil");
    let endpoint = Endpoint::start(Answer::Endless).await;
    // Only the size ends the read.
    let timing = Timing { fetch: Duration::from_hours(1), wait: Duration::from_hours(1), ..TIMING };
    let process = Process::with_timing(&endpoint.address, None, timing);
    assert_eq!(process.admits(&eve).await, UNKNOWN);
    assert_eq!(endpoint.requests(), 1);
}

#[tokio::test]
async fn keys_count_for_a_day_while_the_endpoint_is_down_and_the_reads_become_rare() {
    let ann = Signer::new("a");
    let endpoint = Endpoint::start(Answer::Body(document(&[&ann]))).await;
    let process = Process::new(&endpoint.address, None);
    assert_eq!(process.admits(&ann).await, Ok(()));
    endpoint.now_answers(Answer::Close);
    let eve = Signer::new("evil");
    for second in 1..=3_600 {
        process.pass(1);
        assert_eq!(process.admits(&ann).await, Ok(()), "second {second}");
        if second % 20 == 0 {
            assert_eq!(process.admits(&eve).await, UNKNOWN);
        }
    }
    // The first read, those at 20, 40, 80, 160 and 320 s, and then one every 5 minutes.
    assert_eq!(endpoint.requests(), 16);
    process.pass(86_400 - 3_600);
    assert_eq!(process.admits(&ann).await, Ok(()));
    process.pass(1);
    assert_eq!(process.admits(&ann).await, UNKNOWN);
    endpoint.now_answers(Answer::Body(document(&[&ann])));
    process.pass(300);
    assert_eq!(process.admits(&ann).await, Ok(()), "it comes back by itself");
}

/// A key store in memory.
#[derive(Clone, Default)]
struct Memory {
    stored: Arc<Mutex<Option<Stored>>>,
    loads: Arc<AtomicUsize>,
    stores: Arc<AtomicUsize>,
    changed: Arc<Notify>,
}

impl Memory {
    fn key_store(&self) -> KeyStore {
        let (on_load, on_store) = (self.clone(), self.clone());
        KeyStore {
            load: Arc::new(move || {
                on_load.loads.fetch_add(1, Ordering::SeqCst);
                let stored = on_load.stored.lock().unwrap().clone();
                Box::pin(async move { stored })
            }),
            store: Arc::new(move |stored| {
                on_store.stores.fetch_add(1, Ordering::SeqCst);
                *on_store.stored.lock().unwrap() = Some(stored);
                on_store.changed.notify_one();
                Box::pin(async {})
            }),
        }
    }

    fn counts(&self) -> (usize, usize) {
        (self.loads.load(Ordering::SeqCst), self.stores.load(Ordering::SeqCst))
    }
}

#[tokio::test]
async fn a_new_process_takes_the_stored_keys_if_the_endpoint_gives_none() {
    let (ann, eve) = (Signer::new("a"), Signer::new("evil"));
    for answer in [Answer::Close, Answer::Silence, Answer::Body("<html>".into())] {
        let (endpoint, memory) = (Endpoint::start(Answer::Body(document(&[&ann]))).await, Memory::default());
        let first = Process::new(&endpoint.address, Some(memory.key_store()));
        assert_eq!(first.admits(&ann).await, Ok(()));
        memory.changed.notified().await;
        assert_eq!(memory.counts(), (0, 1), "a process with an answer does not ask the key store");
        endpoint.now_answers(answer);
        let second = Process::new(&endpoint.address, Some(memory.key_store()));
        let answers = join_all((0..20).map(|_| second.admits(&ann))).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        assert_eq!((second.admits(&eve).await, memory.counts()), (UNKNOWN, (1, 1)), "it is asked once");
        // Their age counts from when they were read, whoever read them.
        second.pass(86_400);
        assert_eq!(second.admits(&ann).await, Ok(()));
        second.pass(1);
        assert_eq!(second.admits(&ann).await, UNKNOWN);
    }
}

#[tokio::test]
async fn stored_keys_that_are_old_broken_or_missing_admit_nobody() {
    let ann = Signer::new("a");
    let endpoint = Endpoint::start(Answer::Close).await;
    // The clock of the process: 1,800,000,000 s.
    let now = Duration::from_hours(500_000);
    let stored = |document: String, fetched_at: Duration| Some(Stored { document, fetched_at });
    for stored in [
        None,
        stored(document(&[&ann]), now.saturating_sub(Duration::from_secs(86_401))),
        stored("{".into(), now),
        stored(json!({"keys": []}).to_string(), now),
    ] {
        let memory = Memory { stored: Arc::new(Mutex::new(stored)), ..Memory::default() };
        assert_eq!(Process::new(&endpoint.address, Some(memory.key_store())).admits(&ann).await, UNKNOWN);
    }
    // The key store is asked again, because the database may have been down too.
    let memory = Memory::default();
    let process = Process::new(&endpoint.address, Some(memory.key_store()));
    assert_eq!(process.admits(&ann).await, UNKNOWN);
    *memory.stored.lock().unwrap() = stored(document(&[&ann]), now);
    process.pass(9);
    assert_eq!((process.admits(&ann).await, memory.counts().0), (UNKNOWN, 1));
    process.pass(1);
    assert_eq!((process.admits(&ann).await, memory.counts().0), (Ok(()), 2));
    // A clock that was ahead does not make them count for longer.
    let memory = Memory { stored: Arc::new(Mutex::new(stored(document(&[&ann]), now * 2))), ..Memory::default() };
    let process = Process::new(&endpoint.address, Some(memory.key_store()));
    assert_eq!(process.admits(&ann).await, Ok(()));
    process.pass(86_401);
    assert_eq!(process.admits(&ann).await, UNKNOWN);
}

#[tokio::test]
async fn a_document_is_stored_when_it_changes_and_every_hour() {
    let (ann, ben) = (Signer::new("a"), Signer::new("b"));
    let (endpoint, memory) = (Endpoint::start(Answer::Body(document(&[&ann]))).await, Memory::default());
    let process = Process::new(&endpoint.address, Some(memory.key_store()));
    let eve = Signer::new("evil");
    assert_eq!(process.admits(&ann).await, Ok(()));
    memory.changed.notified().await;
    for _ in 0..5 {
        process.pass(600);
        assert_eq!(process.admits(&eve).await, UNKNOWN);
    }
    assert_eq!((memory.counts(), endpoint.requests()), ((0, 1), 6), "the same document");
    endpoint.now_answers(Answer::Body(document(&[&ann, &ben])));
    process.pass(599);
    assert_eq!(process.admits(&ben).await, Ok(()));
    memory.changed.notified().await;
    assert_eq!(memory.stored.lock().unwrap().as_ref().unwrap().document, document(&[&ann, &ben]));
    process.pass(3_600);
    assert_eq!(process.admits(&eve).await, UNKNOWN);
    memory.changed.notified().await;
    let stored = memory.stored.lock().unwrap().clone().unwrap();
    assert_eq!((stored.fetched_at.as_secs(), memory.counts()), (1_800_000_000 + 3_000 + 599 + 3_600, (0, 3)));
}
