//! Who may cache an answer. An answer that is not public is only for its caller: shared caches do not store it, and a browser's
//! cache does not return it for other credentials (RFC 9111, sections 4.1 and 5.2.2.7).

use axum::http::{HeaderValue, header};
use axum::response::Response;

/// The headers that identify a caller.
const CREDENTIALS: &str = "authorization, nofx-authorization, cookie";

/// Adds `Cache-Control: private` and `Vary` to an answer, unless it says that it is public.
pub(super) fn keep_apart(response: &mut Response) {
    let headers = response.headers_mut();
    let cache = headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("private"));
    if cache.to_str().is_ok_and(|cache| cache.split(',').any(|directive| directive.trim() == "public")) {
        return;
    }
    let before = headers.get(header::VARY).and_then(|vary| vary.to_str().ok());
    let vary = before.map_or_else(|| CREDENTIALS.to_owned(), |before| format!("{before}, {CREDENTIALS}"));
    if let Ok(vary) = HeaderValue::try_from(vary) {
        headers.insert(header::VARY, vary);
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    #[test]
    fn an_answer_belongs_to_its_caller_unless_it_is_public() {
        let marked = |headers: &[(HeaderName, &'static str)]| {
            let mut response = Response::default();
            response
                .headers_mut()
                .extend(headers.iter().cloned().map(|(name, value)| (name, HeaderValue::from_static(value))));
            keep_apart(&mut response);
            [header::CACHE_CONTROL, header::VARY].map(|name| {
                let values: Vec<_> =
                    response.headers().get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
                values.join(" | ")
            })
        };
        assert_eq!(marked(&[]), ["private", CREDENTIALS]);
        assert_eq!(marked(&[(header::CACHE_CONTROL, "no-store")]), ["no-store", CREDENTIALS]);
        let polled = [(header::CACHE_CONTROL, "private, no-cache"), (header::VARY, "accept-encoding")];
        assert_eq!(marked(&polled), ["private, no-cache", &format!("accept-encoding, {CREDENTIALS}")]);
        assert_eq!(marked(&[(header::CACHE_CONTROL, "max-age=60, public")]), ["max-age=60, public", ""]);
        assert_eq!(marked(&[(header::CACHE_CONTROL, "no-public")]), ["no-public", CREDENTIALS]);
    }
}
