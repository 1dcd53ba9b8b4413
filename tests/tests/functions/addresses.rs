//! Clients can follow the addresses in answers without a base path, behind a stage, and behind the base path of a custom
//! domain.

use std::collections::BTreeSet;

use nofx_tests::{Lab, plans};
use reqwest::Url;
use serde_json::json;

use crate::gateway::{Answer, Gateway, Shape};

const ALL: [Shape; 5] = [Shape::Rest, Shape::RestMapped, Shape::RestStage, Shape::Http, Shape::HttpStage];

/// A client that follows the addresses in answers.
struct Client {
    gateway: Gateway,
    shape: Shape,
}

impl Client {
    /// The URL that `address` means on the page at `path`.
    fn resolve(&self, path: &str, address: &str) -> Url {
        let page = format!("https://localhost{}{path}", self.shape.base_path());
        Url::parse(&page).expect("a URL").join(address).expect("an address")
    }

    async fn follow(&self, path: &str, address: &str) -> Answer {
        let url = self.resolve(path, address);
        assert_eq!(url.host_str(), Some("localhost"), "{address}");
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        let base_path = self.shape.base_path();
        let below = url.path().strip_prefix(base_path).unwrap_or_else(|| panic!("{address} leaves {base_path}"));
        self.gateway.get(&format!("{below}{query}")).await
    }
}

fn text<'a>(answer: &'a Answer, pointer: &str) -> &'a str {
    let value = answer.body.pointer(pointer).and_then(|value| value.as_str());
    value.unwrap_or_else(|| panic!("no {pointer}: {answer:?}"))
}

fn hrefs(page: &Answer) -> BTreeSet<&str> {
    let html = page.body.as_str().expect("a page");
    let of = |attribute: &'static str| html.split(attribute).skip(1).map(value);
    of(" href=").chain(of(" src=")).collect()
}

/// The value of an attribute, with or without quotes, at the start of a text.
fn value(html: &str) -> &str {
    let ends: &[char] = if html.starts_with('"') { &['"'] } else { &[' ', '>'] };
    html.trim_start_matches('"').split(ends).next().unwrap_or_default()
}

/// Whether an element of the page has this id.
fn has_id(page: &Answer, id: &str) -> bool {
    page.body.as_str().is_some_and(|page| page.split(" id=").skip(1).any(|rest| value(rest) == id))
}

#[tokio::test]
async fn every_address_in_an_answer_leads_through_the_gateway_that_gave_it() {
    let lab = Lab::new().await;
    for shape in ALL {
        let api = Client { gateway: Gateway::api(&lab, shape), shape };
        let base_path = shape.base_path();

        for (path, code) in [("/runs/nope", "not_found"), ("/nothing", "not_found"), ("/runs?limit=0", "invalid")] {
            let refused = api.gateway.get(path).await;
            let kind = text(&refused, "/type");
            assert_eq!(kind, format!("{base_path}/docs/errors#{code}"), "{shape:?} {path}");
            let page = api.follow(path, kind).await;
            assert!(has_id(&page, code), "{shape:?}");
        }
        let wrong = api.gateway.send("PATCH", "/runs", &[], None).await;
        assert_eq!(text(&wrong, "/type"), format!("{base_path}/docs/errors#method_not_allowed"), "{shape:?}");

        let steps: Vec<_> = (0..12)
            .map(|index| plans::after(&format!("s {index}/%"), &[], json!({"text": "x".repeat(20_000)})))
            .collect();
        let created = api.gateway.post("/runs", &json!({"plan": {"goal": "g", "steps": steps}})).await;
        assert_eq!(created.status, 201, "{created:?}");
        let run = format!("/runs/{}", text(&created, "/id"));
        let location = created.header("location").expect("a location");
        assert_eq!(location, format!("{base_path}{run}"), "{shape:?}");
        let read = api.follow("/runs", location).await;
        let whole = api.follow(&run, text(&read, "/run/plan_omitted/href")).await;
        assert_eq!(whole.body["steps"].as_array().map(Vec::len), Some(12), "{shape:?}");
        let step = api.follow(&run, text(&read, "/steps/3/inputs_omitted/href")).await;
        assert_eq!(step.body["name"], "s 3/%", "{shape:?}");

        let page = api.gateway.get(&format!("{run}/timeline?limit=1")).await;
        let link = page.header("link").and_then(|link| link.strip_prefix('<')?.split('>').next()).expect("a link");
        let second = api.follow(&format!("{run}/timeline?limit=1"), link).await;
        assert_eq!(second.body[0]["seq"], 2, "{shape:?}");

        let sql =
            "insert into nofx.artifact (id, tenant_id, run_id, name, type, uri, hash, size_bytes, media_type, metadata)
                   select gen_random_uuid(), tenant_id, id, 'a', 't', 's3://b/' || id, repeat('a', 64), 1, 'x/y',
                          jsonb_build_object('text', repeat('m', 20000))
                     from nofx.run where id = $1::text::uuid";
        lab.admin.execute(sql, &[&text(&created, "/id")]).await.expect("an artifact");
        for (list, place) in [(run.clone(), "/artifacts/0"), (format!("{run}/artifacts"), "/artifacts/0")] {
            let listed = api.gateway.get(&list).await;
            let artifact = api.follow(&list, text(&listed, &format!("{place}/metadata_omitted/href"))).await;
            assert_eq!(artifact.body["metadata"]["text"].as_str().map(str::len), Some(20_000), "{shape:?} {list}");
        }
    }
}

#[tokio::test]
async fn the_document_and_its_pages_lead_to_the_api_that_shows_them() {
    let lab = Lab::new().await;
    for shape in ALL {
        let api = Client { gateway: Gateway::api(&lab, shape), shape };
        let document = api.gateway.get("/openapi.json").await;
        let server = api.resolve("/openapi.json", text(&document, "/servers/0/url"));
        assert_eq!(server.path().trim_end_matches('/'), shape.base_path(), "{shape:?}");
        let refusal = text(&document, "/components/responses/not_found/description");
        let address = refusal.split("](").nth(1).and_then(|rest| rest.split(')').next()).expect("a link");
        assert_eq!(api.follow("/openapi.json", address).await.status, 200, "{shape:?}");

        for path in ["/docs", "/docs/schemas", "/docs/errors"] {
            let page = api.gateway.get(path).await;
            let hrefs = hrefs(&page);
            assert!(hrefs.len() > 3, "{path}: {hrefs:?}");
            for href in hrefs {
                let target = api.follow(path, href).await;
                assert_eq!(target.status, 200, "{shape:?}: {href} on {path}");
                if let Some((_, id)) = href.split_once('#') {
                    assert!(has_id(&target, id), "{shape:?}: {href} on {path}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_tag_belongs_to_the_base_path_of_its_answer() {
    let lab = Lab::new().await;
    let run = lab.submit(&plans::chain(1)).await;
    let mut tags = BTreeSet::new();
    for shape in ALL {
        let answer = Gateway::api(&lab, shape).get(&format!("/runs/{run}")).await;
        tags.insert((answer.header("etag").expect("a tag").to_owned(), shape.base_path()));
    }
    let distinct: BTreeSet<_> = tags.iter().map(|(tag, _)| tag).collect();
    assert_eq!((tags.len(), distinct.len()), (3, 3), "{tags:?}");
}

#[tokio::test]
async fn the_pages_of_the_console_lead_to_each_other() {
    let lab = Lab::new().await;
    lab.submit(&plans::chain(1)).await;
    for shape in ALL {
        let console = Client { gateway: Gateway::console(&lab, shape), shape };
        let home = console.gateway.get("/ui").await;
        assert_eq!(home.status, 303, "{shape:?}");
        let list = console.follow("/ui", home.header("location").expect("a location")).await;
        assert_eq!(list.status, 200, "{shape:?}");
        let hrefs = hrefs(&list);
        assert!(hrefs.len() > 3, "{hrefs:?}");
        for href in hrefs {
            assert_eq!(console.follow("/ui/runs", href).await.status, 200, "{shape:?}: {href}");
        }
        assert_eq!(console.gateway.get("/ui/nothing/here").await.status, 404, "{shape:?}");
    }
}
