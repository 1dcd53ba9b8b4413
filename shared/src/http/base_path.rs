//! The base path of the API. Routes and links are written without it.
//!
//! At API Gateway's own address a path starts with the stage (`/v1/runs`). At a custom domain it starts with the base path
//! of the mapping (`/control/runs`), if there is one.

use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use lambda_http::RequestExt;
use lambda_http::request::RequestContext;

/// The part of the client's path before the route: `/v1`, `/a/b`, or nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BasePath(String);

impl BasePath {
    /// The absolute path of a route's path, such as `/runs/1`.
    pub fn to(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }

    /// `path`, if links can start with it. Two slashes at its start would name another host.
    fn new(path: &str) -> Option<Self> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.~$+!*'()".contains(c);
        let mut segments = path.strip_prefix('/')?.split('/');
        segments.all(|segment| !segment.is_empty() && segment.chars().all(is_plain)).then(|| Self(path.to_owned()))
    }
}

/// Removes the base path from the request's path, because routes are written without it, and keeps it for links.
pub(super) fn without_base_path(mut request: Request) -> Request {
    let address = Address::of(&request);
    let (base_path, prefix) = (address.base_path(), address.prefix(request.uri().path()).len());
    request.extensions_mut().insert(base_path);
    let route = request.uri().path_and_query().and_then(|target| target.as_str().get(prefix..));
    if prefix > 0
        && let Some(Ok(uri)) = route.map(str::parse)
    {
        *request.uri_mut() = uri;
    }
    request
}

/// The address of a request, as API Gateway describes it.
#[derive(Debug, Default)]
struct Address {
    /// The client's path.
    full_path: String,
    /// The client's path without the stage. The base path of a custom domain is still part of it.
    path: String,
    /// The route that API Gateway chose: `/runs/{id}`.
    route: Option<String>,
}

impl Address {
    fn of(request: &Request) -> Self {
        let path = request.raw_http_path().to_owned();
        match request.extensions().get::<RequestContext>() {
            Some(RequestContext::ApiGatewayV1(context)) => {
                Self { full_path: context.path.clone().unwrap_or_default(), route: context.resource_path.clone(), path }
            }
            Some(RequestContext::ApiGatewayV2(context)) => {
                // `GET /runs/{id}`, or `$default`.
                let route = context.route_key.as_deref().and_then(|key| key.split_once(' '));
                let stage = context.stage.as_deref().unwrap_or_default();
                let rest = path.strip_prefix('/').and_then(|rest| rest.strip_prefix(stage));
                let rest = rest.filter(|rest| rest.starts_with('/')).unwrap_or(&path).to_owned();
                Self { route: route.map(|(_, route)| route.to_owned()), path: rest, full_path: path }
            }
            _ => Self::default(),
        }
    }

    fn base_path(&self) -> BasePath {
        let full_path = self.full_path.as_str();
        let stage = || full_path.strip_suffix(self.path.as_str()).filter(|_| !self.path.is_empty());
        self.before_route(full_path).or_else(stage).and_then(BasePath::new).unwrap_or_default()
    }

    /// The part before the route in the path that `lambda_http` builds: the stage, even if the client's path has none, and
    /// the base path.
    fn prefix<'a>(&self, path: &'a str) -> &'a str {
        let stage = || path.strip_suffix(self.path.as_str()).filter(|_| !self.path.is_empty());
        self.before_route(path).or_else(stage).unwrap_or_default()
    }

    /// The part of a path before its last segments, if those match the route.
    fn before_route<'a>(&self, path: &'a str) -> Option<&'a str> {
        let route = self.route.as_deref()?.strip_prefix('/')?;
        route.rsplit('/').try_fold(path, |rest, expected| {
            let (before, segment) = rest.rsplit_once('/')?;
            (expected == segment || (expected.starts_with('{') && !expected.ends_with("+}"))).then_some(before)
        })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for BasePath {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(full_path: &str, path: &str, route: &str) -> Address {
        let route = Some(route.into()).filter(|_| !route.is_empty());
        Address { full_path: full_path.into(), path: path.into(), route }
    }

    #[test]
    fn the_base_path_is_the_part_before_the_route() {
        // The client's path, the event's path, the route, the path of lambda_http's request; the base path, the routed path.
        let cases = [
            ("/v1/runs", "/runs", "/runs", "/v1/runs", "/v1", "/runs"),
            (
                "/v1/runs/1/steps/a%2Fb",
                "/runs/1/steps/a%2Fb",
                "/runs/{id}/steps/{name}",
                "/v1/runs/1/steps/a%2Fb",
                "/v1",
                "/runs/1/steps/a%2Fb",
            ),
            // A stage with the name of a route.
            ("/runs/runs/runs", "/runs/runs", "/runs/{id}", "/runs/runs/runs", "/runs", "/runs/runs"),
            // A custom domain: without and with the base path of a mapping.
            ("/runs/1", "/runs/1", "/runs/{id}", "/v1/runs/1", "", "/runs/1"),
            ("/control/runs/1", "/control/runs/1", "/runs/{id}", "/v1/control/runs/1", "/control", "/runs/1"),
            ("/a/b/ui", "/a/b/ui", "/ui", "/v1/a/b/ui", "/a/b", "/ui"),
            // Without a route, or with one that does not match, only the stage is known.
            ("/v1/runs", "/runs", "", "/v1/runs", "/v1", "/runs"),
            ("/v1/runs/", "/runs/", "/runs", "/v1/runs/", "/v1", "/runs/"),
            ("/v1/a/b", "/a/b", "/{proxy+}", "/v1/a/b", "/v1", "/a/b"),
            ("/runs", "/runs", "", "/runs", "", "/runs"),
            ("", "/runs", "/runs", "/v1/runs", "", "/runs"),
            ("", "", "", "/runs", "", "/runs"),
            // Links would lead to another host, or would not be paths.
            ("//evil.test/runs", "//evil.test/runs", "/runs", "/v1//evil.test/runs", "", "/runs"),
            ("/%0a/runs", "/%0a/runs", "/runs", "/v1/%0a/runs", "", "/runs"),
        ];
        for (full_path, path, route, request, base_path, routed) in cases {
            let address = address(full_path, path, route);
            assert_eq!(address.base_path().0, base_path, "{full_path} {route}");
            assert_eq!(&request[address.prefix(request).len()..], routed, "{request} {route}");
        }
    }
}
