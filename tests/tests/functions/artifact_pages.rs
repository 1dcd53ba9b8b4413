//! The page of an artifact: what it shows of bytes that nobody trusts, what it has checked, and how little it reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_sdk_s3::primitives::ByteStream;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::Response;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::stream;
use nofx_gates::attestation::{PREDICATE_TYPE, STATEMENT_TYPE, sign};
use nofx_tests::lab::session;
use nofx_tests::lab::{s3, sdk, sdk_at};
use nofx_tests::script::succeeded;
use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::json;
use shared::db::console::artifact_detail_fetch;
use shared::domain::{ArtifactId, NewArtifact};
use shared::signing::{PrivateKey, Signer};
use shared::storage::{ArtifactMeta, StepStore, Storage};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::gateway::{Answer, Gateway, Shape};

const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; form-action 'self'; \
                   base-uri 'none'; frame-ancestors 'none'; img-src 'self'";
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x02\x80\0\0\0\xf0";

/// A stored artifact of a step: its name, its type, its media type and its bytes.
type Made = (&'static str, &'static str, &'static str, Vec<u8>);

async fn put(store: &StepStore, made: &Made, made_from: Vec<ArtifactId>) -> NewArtifact {
    let (name, kind, media_type, bytes) = made.clone();
    let meta = ArtifactMeta { kind, media_type, made_from, ..ArtifactMeta::default() };
    store.put(name, meta, bytes).await.expect("stored")
}

/// A lab whose run has stored these artifacts. Each is made from the one before it.
async fn lab_with(made: Vec<Made>) -> Lab {
    let lab = Lab::with_bucket().await;
    store(&lab, made).await;
    lab
}

async fn store(lab: &Lab, made: Vec<Made>) {
    lab.submit(&json!({"goal": "g", "steps": [plans::step("make", "echo", json!({}))]})).await;
    let script = Script::new(move |_, store| {
        let made = made.clone();
        async move {
            let mut outcome = succeeded(json!({}));
            for one in &made {
                let before = outcome.artifacts.last().map(|before: &NewArtifact| before.id);
                outcome.artifacts.push(put(&store, one, before.into_iter().collect()).await);
            }
            outcome
        }
    });
    lab.settle(&script, Deliver::Once).await;
}

async fn id(lab: &Lab, name: &str) -> Uuid {
    lab.admin.query_one("select id from nofx.artifact where name = $1", &[&name]).await.expect("a row").get(0)
}

/// The page of the artifact with this name: one round trip, and no script, style or image but those of the console.
async fn open(lab: &Lab, name: &str) -> (Answer, String) {
    let (id, before) = (id(lab, name).await, lab.ctx.db.round_trips());
    let answer = Gateway::console(lab, Shape::Rest).get(&format!("/ui/artifacts/{id}")).await;
    assert_eq!(answer.status, 200, "{name}: {answer:?}");
    assert_eq!(lab.ctx.db.round_trips() - before, 1, "{name}");
    let page = answer.body.as_str().expect("a page").to_owned();
    assert_eq!(page.matches("<script").count(), 1, "{name}");
    assert!(
        !["<style", "<iframe", "<object", "<embed", " onerror=\"", " onload=\""].iter().any(|tag| page.contains(tag))
    );
    assert!(page.len() < 600 << 10, "{name}: {} bytes", page.len());
    (answer, page)
}

fn tar_gz(files: &[(&str, &[u8])], zeros: usize) -> Vec<u8> {
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::best()));
    let header = |size: usize| {
        let mut header = tar::Header::new_gnu();
        header.set_size(size as u64);
        header
    };
    for (path, bytes) in files {
        builder.append_data(&mut header(bytes.len()), path, *bytes).expect("packed");
    }
    if zeros > 0 {
        builder.append_data(&mut header(zeros), "zeros", vec![0; zeros].as_slice()).expect("packed");
    }
    builder.into_inner().and_then(GzEncoder::finish).expect("packed")
}

fn hostile() -> Vec<Made> {
    let text = |text: &str| text.as_bytes().to_vec();
    vec![
        ("page.html", "text", "text/html", text("<script>fetch('//evil.test')</script><h1 onload=\"x\">hi</h1>")),
        (
            "evil.md",
            "text",
            "text/markdown",
            text("# Notes\n\n<script>alert(1)</script>\n\n[a](javascript:alert(1))\n"),
        ),
        ("drawing.svg", "image", "image/svg+xml", text("<svg xmlns='http://www.w3.org/2000/svg' onload='x'/>")),
        ("liar.png", "image", "image/png", text("<html><script>alert(1)</script>")),
        ("bidi.txt", "text", "text/plain", text("if admin \u{202e}} //\u{2066} only\u{200b}")),
        ("broken.txt", "text", "text/plain", b"caf\xe9 \xff\xfe".to_vec()),
        ("real.bin", "text", "text/html", PNG.to_vec()),
        ("order.json", "json", "application/json", text("{\"b\":12345678901234567890.10,\"a\":[]}")),
        ("src.tar.gz", "workspace", "application/gzip", tar_gz(&[("src/a.ts", b"abc"), ("<b>.ts", b"")], 0)),
        ("bomb.tar.gz", "workspace", "application/gzip", tar_gz(&[("first.ts", b"abc")], 80 << 20)),
        ("nothing.txt", "text", "text/plain", Vec::new()),
        ("deep.json", "json", "application/json", "[".repeat(60_000).into_bytes()),
        ("long.txt", "text", "text/plain", "x".repeat(200_000).into_bytes()),
    ]
}

#[tokio::test]
async fn nothing_of_a_hostile_artifact_runs_and_its_bytes_say_what_it_is() {
    let lab = lab_with(hostile()).await;
    for (name, words) in [
        ("page.html", &["&lt;script&gt;fetch", "can run scripts, so this is its source", "class=\"line "][..]),
        ("evil.md", &["<h3>Notes</h3>", "rendered without 1 piece of HTML", "<code>javascript:alert(1)</code>"]),
        ("drawing.svg", &["An SVG can run scripts", "&lt;svg xmlns"]),
        ("liar.png", &["its bytes are text", "&lt;html&gt;&lt;script&gt;"]),
        ("bidi.txt", &["⟨U+202E⟩} //⟨U+2066⟩ only⟨U+200B⟩"]),
        ("broken.txt", &["neither text nor a picture", "7 bytes, recorded as"]),
        ("order.json", &["&quot;b&quot;</span>: <span class=\"l\">12345678901234567890.10", "indented"]),
        ("src.tar.gz", &["2 files, 3 B unpacked", "<bdi>src/a.ts</bdi>", "&lt;b&gt;.ts"]),
        ("bomb.tar.gz", &["the first 2 files", "first.ts", "only the beginning of a large archive"]),
        ("nothing.txt", &["It is empty"]),
        ("deep.json", &["class=\"line ", "[[[["]),
        ("long.txt", &["This is the beginning of 195.3", "The sha256 was not compared"]),
    ] {
        let (answer, page) = open(&lab, name).await;
        for words in words {
            assert!(page.contains(words), "{name}: {words}: {page}");
        }
        assert!(!page.contains("<img") && !page.contains("href=\"javascript"), "{name}");
        assert!(!page.contains(['\u{202e}', '\u{2066}', '\u{200b}']), "{name}");
        assert_eq!(answer.header("content-security-policy"), Some(CSP), "{name}");
        let is_compared = page.contains("The bytes match the recorded sha256");
        assert_eq!(is_compared, name != "long.txt", "{name}");
    }
}

#[tokio::test]
async fn a_picture_comes_from_the_storage_with_a_fixed_type_and_only_its_page_allows_that() {
    let lab = lab_with(hostile()).await;
    let (answer, page) = open(&lab, "real.bin").await;
    let url = page.split("<img src=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a picture");
    let url = url.replace("&amp;", "&");
    let origin = url.split('/').take(3).collect::<Vec<_>>().join("/");
    assert_eq!(answer.header("content-security-policy"), Some(format!("{CSP} {origin}").as_str()));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    // Its step said that it is HTML.
    let picture = reqwest::get(&url).await.unwrap();
    assert_eq!((picture.status().as_u16(), picture.headers()["content-type"].as_bytes()), (200, &b"image/png"[..]));
    assert_eq!(picture.bytes().await.unwrap(), PNG);
}

#[tokio::test]
async fn a_download_is_saved_and_never_opened() {
    let lab = lab_with(hostile()).await;
    let id = id(&lab, "page.html").await;
    let answer = Gateway::console(&lab, Shape::Http).get(&format!("/ui/artifacts/signed?id={id}")).await;
    assert_eq!(answer.status, 302);
    let download = reqwest::get(answer.header("location").expect("an address")).await.unwrap();
    assert_eq!(download.headers()["content-disposition"], "attachment; filename=\"page.html\"");
    assert!(download.text().await.unwrap().starts_with("<script>"));
}

#[tokio::test]
async fn an_object_that_is_gone_or_changed_leaves_the_row_and_says_so() {
    let lab = lab_with(hostile()).await;
    let client = s3(&sdk().await);
    let bucket = lab.ctx.config.artifacts.bucket.clone();
    let key = async |name: &str| {
        let uri = lab.text("select uri from nofx.artifact where id = $1", id(&lab, name).await).await;
        uri.strip_prefix(&format!("s3://{bucket}/")).expect("in the bucket").to_owned()
    };
    for (name, words) in [("evil.md", "The bytes are gone"), ("long.txt", "The bytes are gone")] {
        client.delete_object().bucket(&bucket).key(key(name).await).send().await.unwrap();
        let (_, page) = open(&lab, name).await;
        assert!(page.contains(words) && page.contains("There are no bytes to compare"), "{page}");
        assert!(!page.contains("artifacts/signed?id=") && page.contains("id=\"lineage\""), "{page}");
    }
    // One of the same size, and one that is larger than the part that a page reads, but not as large as it was.
    for (name, bytes) in
        [("order.json", b"{\"b\":12345678901234567890.11,\"a\":[]}".to_vec()), ("src.tar.gz", vec![b'x'; 100_000])]
    {
        client.put_object().bucket(&bucket).key(key(name).await).body(ByteStream::from(bytes)).send().await.unwrap();
        let (_, page) = open(&lab, name).await;
        assert!(page.contains("not those that were recorded") && !page.contains("890.11"), "{page}");
    }
    lab.admin
        .execute("update nofx.artifact set uri = 's3://elsewhere/key' where name = 'bidi.txt'", &[])
        .await
        .unwrap();
    let (_, page) = open(&lab, "bidi.txt").await;
    assert!(page.contains("refuses to return the bytes") && page.contains("is not in the artifact bucket"), "{page}");
    lab.admin.execute("update nofx.artifact set tenant_id = 'other'", &[]).await.unwrap();
    let other = format!("/ui/artifacts/{}", id(&lab, "evil.md").await);
    assert_eq!(Gateway::console(&lab, Shape::Http).get(&other).await.status, 404);
}

/// A storage that gives this answer to each request, and counts the chunks of 64 KiB that it has sent.
async fn storage(answer: fn(Arc<AtomicUsize>) -> Response) -> (Storage, Arc<AtomicUsize>) {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let router = Router::new().fallback(move |_: Request| {
        let counter = Arc::clone(&counter);
        async move { answer(counter) }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (Storage::new(s3(&sdk_at(&endpoint, "us-east-1", ("test", "test")).await), "huge"), sent)
}

const HUGE: u64 = 2 << 30;

/// The whole object, although a part was asked for.
fn endless(sent: Arc<AtomicUsize>) -> Response {
    let chunk = Bytes::from(vec![b'x'; 64 << 10]);
    let chunks = stream::repeat_with(move || {
        sent.fetch_add(1, Ordering::Relaxed);
        Ok::<_, std::convert::Infallible>(chunk.clone())
    });
    Response::builder().header(header::CONTENT_LENGTH, HUGE).body(Body::from_stream(chunks)).expect("an answer")
}

fn refusing(_: Arc<AtomicUsize>, code: &str) -> Response {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>no</Message></Error>");
    Response::builder().status(StatusCode::FORBIDDEN).body(Body::from(body)).expect("an answer")
}

#[tokio::test]
async fn of_a_huge_object_only_the_beginning_is_read_and_an_archived_one_is_named() {
    let mut lab = lab_with(vec![("huge.txt", "text", "text/plain", b"x".to_vec())]).await;
    let sql = "update nofx.artifact set size_bytes = $1, uri = 's3://huge/key'";
    lab.admin.execute(sql, &[&i64::try_from(HUGE).unwrap()]).await.unwrap();
    let (huge, sent) = storage(endless).await;
    lab.ctx.storage = huge;
    let (_, page) = open(&lab, "huge.txt").await;
    assert!(page.contains("This is the beginning of 2") && page.contains("The sha256 was not compared"), "{page}");
    // What the sockets hold is more than what was read.
    assert!(sent.load(Ordering::Relaxed) < 512, "{sent:?} chunks");

    lab.ctx.storage = storage(|sent| refusing(sent, "InvalidObjectState")).await.0;
    let (_, page) = open(&lab, "huge.txt").await;
    assert!(page.contains("is archived; restore it first"), "{page}");
    lab.ctx.storage = storage(|sent| refusing(sent, "AccessDenied")).await.0;
    let (_, page) = open(&lab, "huge.txt").await;
    assert!(page.contains("The bytes cannot be read now") && page.contains("not compared"), "{page}");
}

/// Evidence with an attestation that this key signed, over this digest.
async fn attested(lab: &Lab, key: &PrivateKey, digest: Option<&str>) {
    let (pem, digest) = (key.to_pem().expect("a key"), digest.map(str::to_owned));
    lab.submit(&json!({"goal": "g", "steps": [plans::step("unit", "gate:unit", json!({}))]})).await;
    let script = Script::new(move |_, store| {
        let (pem, digest) = (pem.clone(), digest.clone());
        async move {
            let document = br#"{"schema": "nofx.gate_evidence.v2", "verdict": "passed"}"#.to_vec();
            let evidence =
                put(&store, &("gate-unit.json", "gate_evidence", "application/json", document), vec![]).await;
            let digest = digest.unwrap_or_else(|| evidence.hash.clone());
            let statement = json!({
                "_type": STATEMENT_TYPE, "predicateType": PREDICATE_TYPE,
                "subject": [{"name": "workspace", "digest": {"sha256": "0".repeat(64)}}],
                "predicate": {"result": "PASSED", "configuration": [
                    {"name": "evidence", "digest": {"sha256": digest}, "annotations": {"schema": "nofx.gate_evidence.v2"}}]}});
            let signer = Signer::with_key(PrivateKey::from_pem(&pem).expect("a key"));
            let envelope = sign(statement.to_string().into_bytes(), &signer).await.expect("signed");
            let envelope = envelope.to_json().expect("JSON");
            let made = ("gate-unit.intoto.json", "gate_attestation", "application/json", envelope);
            let attestation = put(&store, &made, vec![evidence.id]).await;
            let mut outcome = succeeded(json!({}));
            outcome.artifacts = vec![evidence, attestation];
            outcome
        }
    });
    lab.settle(&script, Deliver::Once).await;
}

#[tokio::test]
async fn the_signature_of_evidence_is_checked_for_each_page() {
    let (ours, other) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
    let with_keys = async |key: &PrivateKey, digest: Option<&str>, keys: Option<String>| {
        let mut lab = Lab::with_bucket().await;
        lab.ctx.config.signing.public_keys = keys;
        attested(&lab, key, digest).await;
        lab
    };
    let pem = || Some(ours.public().to_pem());
    let lab = with_keys(&ours, None, pem()).await;
    let (_, page) = open(&lab, "gate-unit.json").await;
    for words in [
        "The signature of this evidence is valid",
        "<strong>PASSED</strong>",
        ours.public().keyid(),
        "It does not prove",
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
    assert!(page.contains(&format!("artifacts/{}", id(&lab, "gate-unit.intoto.json").await)));
    let (_, page) = open(&lab, "gate-unit.intoto.json").await;
    assert!(page.contains("What is signed") && page.contains("predicateType"), "{page}");
    // The evidence was replaced: the signature is over other bytes.
    let uri = lab.text("select uri from nofx.artifact where id = $1", id(&lab, "gate-unit.json").await).await;
    let bucket = &lab.ctx.config.artifacts.bucket;
    let key = uri.strip_prefix(&format!("s3://{bucket}/")).expect("in the bucket");
    s3(&sdk().await).put_object().bucket(bucket).key(key).body(b"{}".to_vec().into()).send().await.unwrap();
    let (_, page) = open(&lab, "gate-unit.json").await;
    assert!(page.contains("not those that were recorded") && !page.contains("is valid"), "{page}");

    for (key, digest, keys, words) in [
        (&other, None, pem(), "The signature proves nothing"),
        (&ours, Some("0"), pem(), "it is about other evidence"),
        (&ours, None, None, "no public key is configured"),
    ] {
        let lab = with_keys(key, digest, keys).await;
        let (_, page) = open(&lab, "gate-unit.json").await;
        assert!(page.contains(words) && !page.contains("is valid"), "{words}: {page}");
    }
    let lab = lab_with(vec![("gate-unit.json", "gate_evidence", "application/json", b"{}".to_vec())]).await;
    let (_, page) = open(&lab, "gate-unit.json").await;
    assert!(page.contains("Nobody signed this evidence"), "{page}");
}

#[tokio::test]
async fn the_lineage_around_an_artifact_has_two_generations_and_is_bounded() {
    let names = ["a", "b", "c", "d", "e", "f"];
    let lab = lab_with(names.map(|name| (name, "text", "text/plain", name.into())).to_vec()).await;
    let (_, page) = open(&lab, "c").await;
    let nodes: Vec<&str> = page.split("<title>").skip(2).filter_map(|rest| rest.split(',').next()).collect();
    assert_eq!(nodes.len(), 5, "{page}");
    assert!(names[..5].iter().all(|name| nodes.contains(name)), "{nodes:?}");
    // Its step is the parents' too.
    let step = page.matches("/steps/0\"").count();
    assert_eq!(step, 2, "{page}");

    let many = "with made as (
                    insert into nofx.artifact (id, tenant_id, run_id, step_id, attempt, name, type, uri, hash, size_bytes, media_type)
                    select gen_random_uuid(), a.tenant_id, a.run_id, a.step_id, a.attempt, 'child ' || n, a.type, a.uri || n, a.hash, 1, a.media_type
                      from nofx.artifact a, generate_series(1, 2000) n where a.name = 'c' returning id, tenant_id)
                insert into nofx.artifact_edge (tenant_id, parent_id, child_id)
                select m.tenant_id, (select id from nofx.artifact where name = 'c'), m.id from made m";
    lab.admin.execute(many, &[]).await.unwrap();
    let (_, page) = open(&lab, "c").await;
    assert!(
        page.contains("more artifacts, or more links between them, than this page reads")
            && page.matches("class=\"node").count() == 20
    );
    assert!(page.contains("and 9") && page.len() < 60 << 10, "{} bytes", page.len());
}

#[tokio::test]
async fn the_lineage_keeps_what_the_artifact_was_made_from_when_it_leaves_out_edges() {
    let lab = lab_with(["a", "b", "c"].map(|name| (name, "text", "text/plain", name.into())).to_vec()).await;
    // Each child is made from `b` and from the children before it. Ids of children sort before that of `b`.
    let many = "with b as (select * from nofx.artifact where name = 'b'), made as (
                    insert into nofx.artifact (id, tenant_id, run_id, step_id, attempt, name, type, uri, hash, size_bytes, media_type)
                    select lpad(n::text, 32, '0')::uuid, b.tenant_id, b.run_id, b.step_id, b.attempt, 'child ' || n, b.type, b.uri || n, b.hash, 1, b.media_type
                      from b, generate_series(1, 60) n returning id, tenant_id)
                insert into nofx.artifact_edge (tenant_id, parent_id, child_id)
                select b.tenant_id, b.id, m.id from b, made m
                union all
                select p.tenant_id, p.id, c.id from made p join made c on p.id < c.id";
    lab.admin.execute(many, &[]).await.unwrap();
    let here = ArtifactId(id(&lab, "b").await);
    let detail = artifact_detail_fetch(&session(&lab.ctx.db, &lab.tenant), here).await.unwrap().unwrap();
    let direct = detail.edges.iter().filter(|edge| edge.from == here || edge.to == here).count();
    // Its parent `a`, and its children: `c` and 60 others.
    assert_eq!((direct, detail.nodes.len(), detail.truncated), (62, 63, true));
    let (_, page) = open(&lab, "b").await;
    for words in ["2 generations back and 2 forward", "more links between them, than this page reads"] {
        assert!(page.contains(words), "{words}: {page}");
    }
}
