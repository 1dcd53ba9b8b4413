//! One-time links to gates, in every state that their pages can show.

use reqwest::Method;
use serde_json::json;
use shared::auth::LinkToken;
use shared::domain::{GateId, LinkId, RunId};
use uuid::Uuid;

use super::clock::When;
use super::pages::Runs;
use super::shop;
use super::site::Site;
use super::{Page, forms};

/// A run that waits, and whose gate somebody has made a link to.
pub async fn linked(site: &Site) -> RunId {
    let run = site.create("prices of deliveries to Malta", &shop::price_change()).await;
    site.settle().await;
    let body = json!({ "for": "local" });
    site.send(Method::POST, &format!("/gates/{}/links", site.gate(run).await), &body).await;
    site.was(run, When::seconds(2, 90)).await;
    run
}

/// Links to gates of these runs, and answers to the form that makes one.
pub async fn pages(site: &Site, runs: &Runs) -> Vec<Page> {
    let (open, approved) = (site.gate(runs["blocked"]).await, site.gate(runs["approved"]).await);
    let changed = site.gate(runs["linked"]).await;
    let day = "now(), now() + interval '1 day'";
    let links = [
        ("link", 200, link(site, open, "local", &format!("{day}, null")).await),
        ("link-used", 410, link(site, approved, "local", &format!("{day}, now() + interval '1 s'")).await),
        (
            "link-expired",
            410,
            link(site, open, "local", "now() - interval '2 days', now() - interval '1 day', null").await,
        ),
        ("link-of-another", 403, link(site, open, "0d4a7f22-ben", &format!("{day}, null")).await),
        ("link-changed", 410, link(site, changed, "local", &format!("{day}, null")).await),
    ];
    let sql = "update nofx.run set plan_digest = repeat('c', 64) where id = $1";
    site.lab.admin.execute(sql, &[&runs["linked"].0]).await.expect("a change");
    let page = |(name, status, path): (&str, u16, String)| Page { name: name.to_owned(), path, status, bare: false };
    let mut pages: Vec<Page> = links.into_iter().map(page).collect();
    let path = format!("/ui/gates/{open}/links");
    pages.extend(forms::filled(site, "link-made", &path, 201, &[("for", "local"), ("days", "3")]));
    pages.extend(forms::filled(site, "link-not-made", &path, 400, &[("for", "cai@shop.test"), ("days", "1")]));
    pages
}

/// The path of a new link. `times`: when it was made, when it expires, and when it was used.
async fn link(site: &Site, gate: GateId, subject: &str, times: &str) -> String {
    let token = LinkToken::generate(LinkId(Uuid::new_v4())).expect("a link");
    let sql = format!(
        "insert into nofx.gate_link (id, tenant_id, run_id, gate_id, subject, bound_digest, secret_sha256, created_by, created_at, expires_at, used_at)
         select $1, g.tenant_id, g.run_id, g.id, $3, g.bound_digest, $4, 'ann', {times} from nofx.gate g where g.id = $2"
    );
    let hash = token.hash().as_bytes().to_vec();
    site.lab.admin.execute(&sql, &[&token.id.0, &gate.0, &subject, &hash]).await.expect("a link");
    format!("/ui/links/{}", token.expose())
}
