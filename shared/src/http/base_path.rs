//! Where the API stands below its host. Routes and links are written as if it stood at the top.
//!
//! API Gateway puts the stage in front of a path at its own address (`/v1/runs`), and the base path of a mapping in front
//! of one at a custom domain (`/control/runs`).

use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use lambda_http::RequestExt;
use lambda_http::request::RequestContext;

/// What stands in front of a route in the address that the client asked for: `/v1`, `/a/b`, or nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BasePath(String);

impl BasePath {
    /// The absolute path of something that stands at `path` in the API, such as `/runs/1`.
    pub fn to(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }

    /// A base path that can be put in front of any link. Two slashes at its start would name another host.
    fn new(path: &str) -> Option<Self> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.~$+!*'()".contains(c);
        let mut segments = path.strip_prefix('/')?.split('/');
        segments.all(|segment| !segment.is_empty() && segment.chars().all(is_plain)).then(|| Self(path.to_owned()))
    }
}

/// Takes the base path from the request's path, because routes are written without it, and keeps it for links.
pub(super) fn without_base_path(mut request: Request) -> Request {
    let asked = Asked::of(&request);
    let (base_path, surplus) = (asked.base_path(), asked.surplus(request.uri().path()).len());
    request.extensions_mut().insert(base_path);
    let route = request.uri().path_and_query().and_then(|whole| whole.as_str().get(surplus..));
    if surplus > 0
        && let Some(Ok(uri)) = route.map(str::parse)
    {
        *request.uri_mut() = uri;
    }
    request
}

/// What API Gateway says of a request's address.
#[derive(Debug, Default)]
struct Asked {
    /// The path that the client asked for.
    whole: String,
    /// The path without the stage of API Gateway's own address. The base path of a custom domain is still in it.
    path: String,
    /// The route that API Gateway chose: `/runs/{id}`.
    route: Option<String>,
}

impl Asked {
    fn of(request: &Request) -> Self {
        let path = request.raw_http_path().to_owned();
        match request.extensions().get::<RequestContext>() {
            Some(RequestContext::ApiGatewayV1(context)) => {
                Self { whole: context.path.clone().unwrap_or_default(), route: context.resource_path.clone(), path }
            }
            Some(RequestContext::ApiGatewayV2(context)) => {
                // `GET /runs/{id}`, or `$default`.
                let route = context.route_key.as_deref().and_then(|key| key.split_once(' '));
                let stage = context.stage.as_deref().unwrap_or_default();
                let rest = path.strip_prefix('/').and_then(|rest| rest.strip_prefix(stage));
                let rest = rest.filter(|rest| rest.starts_with('/')).unwrap_or(&path).to_owned();
                Self { route: route.map(|(_, route)| route.to_owned()), path: rest, whole: path }
            }
            _ => Self::default(),
        }
    }

    fn base_path(&self) -> BasePath {
        let whole = self.whole.as_str();
        let stage = || whole.strip_suffix(self.path.as_str()).filter(|_| !self.path.is_empty());
        self.before_route(whole).or_else(stage).and_then(BasePath::new).unwrap_or_default()
    }

    /// What stands in front of the route in the path of the request that `lambda_http` makes of the event: the stage, even
    /// where the client did not ask for it, and the base path.
    fn surplus<'a>(&self, path: &'a str) -> &'a str {
        let stage = || path.strip_suffix(self.path.as_str()).filter(|_| !self.path.is_empty());
        self.before_route(path).or_else(stage).unwrap_or_default()
    }

    /// What stands in front of the last segments of a path, if these fit the route.
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

    fn asked(whole: &str, path: &str, route: &str) -> Asked {
        Asked { whole: whole.into(), path: path.into(), route: Some(route.into()).filter(|_| !route.is_empty()) }
    }

    #[test]
    fn what_stands_in_front_of_the_route_is_the_base_path() {
        // The address, the event's path, the route, the path of lambda_http's request; the base path, the path routed.
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
            // A stage that is called like a route.
            ("/runs/runs/runs", "/runs/runs", "/runs/{id}", "/runs/runs/runs", "/runs", "/runs/runs"),
            // A custom domain: without and with the base path of a mapping.
            ("/runs/1", "/runs/1", "/runs/{id}", "/v1/runs/1", "", "/runs/1"),
            ("/control/runs/1", "/control/runs/1", "/runs/{id}", "/v1/control/runs/1", "/control", "/runs/1"),
            ("/a/b/ui", "/a/b/ui", "/ui", "/v1/a/b/ui", "/a/b", "/ui"),
            // Without a route, or with one that does not fit, only the stage is known.
            ("/v1/runs", "/runs", "", "/v1/runs", "/v1", "/runs"),
            ("/v1/runs/", "/runs/", "/runs", "/v1/runs/", "/v1", "/runs/"),
            ("/v1/a/b", "/a/b", "/{proxy+}", "/v1/a/b", "/v1", "/a/b"),
            ("/runs", "/runs", "", "/runs", "", "/runs"),
            ("", "/runs", "/runs", "/v1/runs", "", "/runs"),
            ("", "", "", "/runs", "", "/runs"),
            // It would lead to another host, or is no path.
            ("//evil.test/runs", "//evil.test/runs", "/runs", "/v1//evil.test/runs", "", "/runs"),
            ("/%0a/runs", "/%0a/runs", "/runs", "/v1/%0a/runs", "", "/runs"),
        ];
        for (whole, path, route, request, base_path, routed) in cases {
            let asked = asked(whole, path, route);
            assert_eq!(asked.base_path().0, base_path, "{whole} {route}");
            assert_eq!(&request[asked.surplus(request).len()..], routed, "{request} {route}");
        }
    }
}
