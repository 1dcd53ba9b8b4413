//! Addresses of one-time links.

use std::borrow::Cow;

use super::base_path::BasePath;
use crate::auth::LinkToken;

/// The page of a link, without the link.
const PAGE: &str = "/ui/links/";

/// The address of a link, for a mail. Without a configured public URL it is a path: the header `Host` is what the sender
/// of a request claims, and a mail must not lead to the host of an attacker.
pub fn link_url(public_url: Option<&str>, base_path: &BasePath, link: &LinkToken) -> String {
    let path = format!("{PAGE}{}", link.expose());
    match public_url {
        Some(url) => format!("{}{path}", url.trim_end_matches('/')),
        None => base_path.to(&path),
    }
}

/// A path for a log: without the secret of a link or a token, however the address is mistyped.
pub(super) fn loggable(path: &str) -> Cow<'_, str> {
    let lower = path.to_ascii_lowercase();
    let secret = [PAGE, "nofx_", "nofx%5f"].iter().filter_map(|start| Some((lower.find(start)?, start.len())));
    match secret.min() {
        // `to_ascii_lowercase` keeps each byte where it is.
        Some((at, length)) => Cow::Owned(format!("{}…", &path[..at + length])),
        None => Cow::Borrowed(path),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::LinkId;

    #[test]
    fn a_link_leads_to_the_configured_host_or_to_none() {
        let link = LinkToken::generate(LinkId(Uuid::nil())).unwrap();
        let of = |public_url| link_url(public_url, &BasePath::default(), &link);
        let path = format!("/ui/links/{}", link.expose());
        assert_eq!(of(None), path);
        assert_eq!(of(Some("https://nofx.test/v1/")), format!("https://nofx.test/v1{path}"));
    }

    #[test]
    fn a_log_has_no_secret_of_a_link() {
        let secret = LinkToken::generate(LinkId(Uuid::nil())).unwrap().expose();
        let encoded = secret.replace('_', "%5f");
        for tail in [&secret, &encoded, &format!("{secret}/approve")] {
            assert_eq!(loggable(&format!("/ui/links/{tail}")), "/ui/links/…");
            assert_eq!(loggable(&format!("/v1/ui/links/{tail}")), "/v1/ui/links/…");
        }
        assert_eq!(loggable("/ui/gates/1/links"), "/ui/gates/1/links");
        for near in ["/ui/Links/", "/ui/links%2F", "/ui//links/", "/runs/", "/é/"] {
            for secret in [&secret, &encoded, &secret.to_ascii_uppercase(), &secret.replace("link", "agent")] {
                let logged = loggable(&format!("{near}{secret}")).into_owned();
                assert!(logged.starts_with(near) && logged.len() <= near.len() + "nofx%5f…".len(), "{logged}");
            }
        }
    }
}
