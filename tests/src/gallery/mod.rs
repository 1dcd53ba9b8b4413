//! The console with a run in every state that its pages can show, on a real database and the emulator: for people who work
//! on pages, and for the tests in a browser. `console-gallery` serves it.

mod clock;
mod commands;
mod files;
mod forms;
mod large;
mod links;
mod models;
mod pages;
mod queues;
mod shop;
pub mod site;
mod states;
mod team;
mod work;

use serde_json::{Value, json};
use shared::http::Route;
use tokio::net::TcpListener;
use uuid::Uuid;

use queues::{DEAD, HEALTHY};
use site::{AWAY, EMPTY, Site};
use team::TEAM;

use crate::environment::aws_endpoint_url;

/// An address with what its page shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub name: String,
    pub path: String,
    pub status: u16,
    /// It has no data but what every deployment has, so that its weight says what a page weighs.
    pub bare: bool,
}

/// Routes of `GET` that are no pages: they redirect, or a page loads them.
const NO_PAGES: [&str; 7] = [
    "/ui",
    "/ui/runs/{id}/fragment",
    "/ui/runs/{id}/proof",
    "/ui/artifacts/signed",
    "/ui/static/app.css",
    "/ui/static/app.js",
    "/ui/static/icon.svg",
];

/// A served gallery.
pub struct Gallery {
    /// Without a path.
    pub url: String,
    pub pages: Vec<Page>,
    /// Pages of the design that the console has no route for.
    pub missing: Vec<Page>,
    site: Site,
}

impl Gallery {
    /// Makes every run, and serves on this listener until the process ends.
    pub async fn open(listener: TcpListener) -> Self {
        let site = Box::pin(Site::open(listener)).await;
        site.runner.all_pass();
        let pages = Box::pin(pages::make(&site)).await;
        site.lab.assert_invariants().await;
        let routes = console::routes();
        let has_route =
            |page: &Page| page.status == 404 || routes.table().iter().any(|route| serves(route, &page.path));
        let (pages, missing) = pages.into_iter().partition(has_route);
        Self { url: site.url.clone(), pages, missing, site }
    }

    /// The addresses, as the tests in a browser read them.
    pub fn list(&self) -> Value {
        let list = |pages: &[Page]| -> Value {
            let rows = pages.iter().map(|Page { name, path, status, bare }| {
                json!({ "name": name, "path": path, "status": status, "bare": bare })
            });
            rows.collect()
        };
        let routes = console::routes();
        let routes: Value = routes
            .table()
            .iter()
            .map(
                |route| json!({ "method": route.method.as_str(), "path": route.path.replace("{id}", &Uuid::nil().to_string()) }),
            )
            .collect();
        let store = aws_endpoint_url();
        json!({ "url": self.url, "store": store, "pages": list(&self.pages), "missing": list(&self.missing), "routes": routes })
    }

    /// Paths of the console whose page is not in the gallery.
    pub fn uncovered(&self) -> Vec<&'static str> {
        let routes = console::routes();
        let pages = routes.table().iter().filter(|route| route.method == "GET" && !NO_PAGES.contains(&route.path));
        let uncovered = pages.filter(|route| !self.pages.iter().any(|page| serves(route, &page.path)));
        uncovered.map(|route| route.path).collect()
    }

    /// Works on what readers of the pages start, until the process ends.
    pub async fn work(&self) {
        self.site.work().await;
    }
}

/// Whether this route serves `GET` at this address, with all of its parameters, or takes the form of this address.
fn serves(route: &Route, address: &str) -> bool {
    let form = forms::form_of(address);
    let method = if form.is_some() { "POST" } else { "GET" };
    let (path, query) = form.map(|path| (path, "")).or_else(|| address.split_once('?')).unwrap_or((address, ""));
    let path = [EMPTY, AWAY, HEALTHY, DEAD, TEAM].iter().find_map(|prefix| path.strip_prefix(prefix)).unwrap_or(path);
    let (expected, found) = (route.path.split('/'), path.split('/'));
    route.method == method
        && expected.clone().count() == found.clone().count()
        && expected.zip(found).all(|(expected, found)| expected == found || expected.starts_with('{'))
        && query
            .split('&')
            .filter_map(|pair| pair.split('=').next())
            .all(|key| key.is_empty() || route.takes.query.contains(&key))
}
