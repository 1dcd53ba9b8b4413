//! One-time links as people make and use them: with the command, and in the console.

use nofx_tests::{Deliver, Lab, Script, plans};
use serde_json::json;
use shared::config::SigningConfig;
use shared::http::encoded;

use crate::commands::{serve, texts};
use crate::gateway::{Gateway, HOST, Shape};

/// A gate that waits, of the tenant with one person.
async fn waiting(lab: &Lab) -> String {
    let run = lab.submit(&plans::approval(600)).await;
    lab.settle(&Script::deployed(), Deliver::Once).await;
    let sql = "select id::text from nofx.gate where run_id = $1";
    lab.text(sql, run.0).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_prints_an_address_that_opens_the_gate() {
    let lab = Lab::new().await;
    let gate = waiting(&lab).await;
    let nofx = serve(&lab).await;
    let made = nofx.output(&["link", &gate, "--for", "local", "--expires", "2h"]).await;
    let (url, told) = texts(&made);
    assert!(made.status.success() && url.lines().count() == 1, "{url}{told}");
    assert!(told.contains(" can decide with it once, until ") && told.contains("not shown again"), "{told}");
    // Without a public URL the command adds the address that it uses.
    let path = url.trim().split_once("/ui/links/").map(|(host, token)| (host, format!("/ui/links/{token}")));
    let (host, path) = path.expect("an address");
    assert!(host.starts_with("http://127.0.0.1:"), "{url}");
    let console = Gateway::console(&lab, Shape::Rest);
    let shown = console.get(&path).await;
    assert_eq!(shown.status, 200, "{shown:?}");
    let json = nofx.json(&["link", &gate, "--for", "local", "--json"]).await;
    assert!(json["url"].as_str().unwrap().starts_with(host) && json["subject"] == "local", "{json}");
    let refused = nofx.output(&["link", &gate, "--for", "nobody@acme.test"]).await;
    let (_, told) = texts(&refused);
    assert!(!refused.status.success() && told.contains("names no member"), "{told}");
    lab.assert_invariants().await;
}

#[tokio::test]
async fn the_console_makes_a_link_and_decides_by_it_at_every_address() {
    for shape in [Shape::Rest, Shape::RestStage, Shape::RestMapped, Shape::Http, Shape::HttpStage] {
        let lab = Lab::new().await;
        let gate = waiting(&lab).await;
        let console = Gateway::console(&lab, shape);
        let csrf = "0123456789abcdef0123456789abcdef";
        let cookie = format!("nofx-csrf={csrf}");
        let send = async |path: &str, form: &str| {
            let headers = [
                ("host", HOST),
                ("cookie", cookie.as_str()),
                ("sec-fetch-site", "same-origin"),
                ("content-type", "application/x-www-form-urlencoded"),
            ];
            console.send("POST", path, &headers, Some(format!("{form}&csrf={csrf}"))).await
        };
        let path = format!("/ui/gates/{gate}/links");
        let nobody = send(&path, &format!("for={}&days=1", encoded("<b>x</b>"))).await;
        let page = nobody.body.as_str().unwrap();
        assert_eq!(nobody.status, 400, "{page}");
        assert!(page.contains("No link was made") && page.contains("value=\"&lt;b&gt;x&lt;/b&gt;\""), "{page}");
        assert_eq!(send(&path, "for=local&days=2").await.status, 400, "no choice of the form");
        let made = send(&path, "for=local&days=7").await;
        assert_eq!(made.status, 201, "{made:?}");
        let page = made.body.as_str().unwrap();
        let start = format!("{}/ui/links/", shape.base_path());
        let token = page.split_once(&start).unwrap_or_else(|| panic!("{start}: {page}")).1;
        let token: String = token.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        let link = format!("/ui/links/{token}");
        assert_eq!(console.get(&link).await.status, 200);
        let decided = send(&link, &format!("decision=approve&actor=ann&reason={}", encoded("as agreed"))).await;
        assert_eq!(decided.status, 303, "{shape:?}: {decided:?}");
        let to = decided.header("location").unwrap_or_default().to_owned();
        assert!(to.starts_with("../runs/") && to.ends_with(&format!("?decided={gate}")), "{to}");
        let again = console.get(&link).await;
        assert_eq!(again.status, 410, "{again:?}");
        assert!(again.body.as_str().unwrap().contains("This link has been used"));
        let late = send(&path, "for=local&days=1").await;
        assert_eq!(late.status, 409, "{late:?}");
    }
}

#[tokio::test]
async fn an_outage_keeps_what_was_typed_and_the_link() {
    let mut lab = Lab::new().await;
    let gate = waiting(&lab).await;
    let approvals = Gateway::approvals(&lab, Shape::Http);
    let made = approvals.post(&format!("/gates/{gate}/links"), &json!({ "for": "local" })).await;
    let link = made.body["url"].as_str().expect("a url").to_owned();
    // Decisions cannot be signed.
    lab.ctx.config.decisions = SigningConfig::none(SigningConfig::DECISIONS);
    lab.ctx = lab.another_ctx().await;
    let console = Gateway::console(&lab, Shape::Http);
    let csrf = "0123456789abcdef0123456789abcdef";
    let cookie = format!("nofx-csrf={csrf}");
    let headers = [
        ("host", HOST),
        ("cookie", cookie.as_str()),
        ("sec-fetch-site", "same-origin"),
        ("content-type", "application/x-www-form-urlencoded"),
    ];
    let form = format!("decision=reject&actor=ann&reason=wrong&csrf={csrf}");
    let refused = console.send("POST", &link, &headers, Some(form)).await;
    let page = refused.body.as_str().unwrap();
    assert_eq!(refused.status, 503, "{page}");
    let token = link.rsplit('/').next().unwrap();
    for part in [&format!("action=\"../links/{token}\""), "name=\"decision\" value=\"reject\"", ">\nwrong</textarea>"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert_eq!(console.get(&link).await.status, 200, "the link counts still");
}
