//! Signs requests (AWS Signature Version 4), for an API with IAM authorization.

use std::time::SystemTime;

use anyhow::{Context, Result};
use aws_config::BehaviorVersion;
use aws_sdk_s3::config::{Credentials, ProvideCredentials, SharedCredentialsProvider};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use nofx_local::report::hinted;
use reqwest::header::HeaderName;
use reqwest::{Request, Url};

use crate::client::profile::Target;

/// Signs requests for one service in one region.
#[derive(Clone, Debug)]
pub struct Signer {
    credentials: SharedCredentialsProvider,
    region: String,
    service: &'static str,
}

impl Signer {
    /// A signer with fixed credentials.
    pub fn new(credentials: Credentials, region: &str, service: &'static str) -> Self {
        let credentials = SharedCredentialsProvider::new(credentials);
        Self { credentials, region: region.to_owned(), service }
    }

    /// A signer with the credentials of the target's AWS profile or of the environment, if the target names a profile or a
    /// region: then its API requires IAM authorization.
    pub async fn for_target(target: &Target) -> Option<Self> {
        let region = signed_in(target)?;
        let mut config = aws_config::defaults(BehaviorVersion::latest());
        if let Some(name) = &target.aws_profile {
            config = config.profile_name(name);
        }
        let credentials = config.load().await.credentials_provider()?;
        Some(Self { credentials, region, service: "execute-api" })
    }

    /// Adds the signature to the headers of a request.
    pub async fn sign(&self, request: &mut Request) -> Result<()> {
        let found = self.credentials.provide_credentials().await.map_err(|error| {
            let hint = "the API requires signed requests: set AWS_PROFILE or AWS_ACCESS_KEY_ID";
            hinted(format!("no AWS credentials: {error}"), hint)
        })?;
        let identity = found.into();
        let params = SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(self.service)
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()?
            .into();
        let headers = request.headers().iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let body = request.body().and_then(reqwest::Body::as_bytes).unwrap_or_default();
        let (method, url) = (request.method().as_str(), request.url().as_str());
        let signable = SignableRequest::new(method, url, headers, SignableBody::Bytes(body))?;
        let (instructions, _) = sign(signable, &params).context("cannot sign the request")?.into_parts();
        for (name, value) in instructions.headers() {
            request.headers_mut().insert(HeaderName::from_bytes(name.as_bytes())?, value.parse()?);
        }
        Ok(())
    }
}

/// The region for which requests to this target are signed. None if they are not.
fn signed_in(target: &Target) -> Option<String> {
    let of_address = || target.aws_profile.as_ref().and_then(|_| region_of(&target.api_url));
    target.region.clone().or_else(of_address)
}

/// The region in `https://ID.execute-api.REGION.amazonaws.com`. `None` for any other URL.
fn region_of(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    let mut labels = url.host_str()?.split('.').skip(1);
    (labels.next()? == "execute-api").then_some(())?;
    let region = labels.next()?;
    (labels.next()? == "amazonaws").then(|| region.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_signed_only_for_a_target_that_asks_for_it() {
        let at = "https://a1b2.execute-api.eu-central-1.amazonaws.com/v1";
        let region = |region: Option<&str>, profile: Option<&str>| {
            let [region, aws_profile] = [region, profile].map(|text| text.map(str::to_owned));
            signed_in(&Target { api_url: at.into(), region, aws_profile })
        };
        // An API without IAM authorization needs no AWS credentials.
        assert_eq!(region(None, None), None);
        assert_eq!(region(None, Some("team")).as_deref(), Some("eu-central-1"));
        assert_eq!(region(Some("us-east-1"), Some("team")).as_deref(), Some("us-east-1"));
        assert_eq!(region(Some("us-east-1"), None).as_deref(), Some("us-east-1"));
    }

    #[test]
    fn the_address_of_an_api_gateway_has_its_region() {
        let region = region_of("https://a1b2.execute-api.eu-central-1.amazonaws.com/v1");
        assert_eq!(region.as_deref(), Some("eu-central-1"));
        assert_eq!(region_of("http://127.0.0.1:3000"), None);
        assert_eq!(region_of("https://execute-api.example.com"), None);
        assert_eq!(region_of("https://a.execute-api.eu-central-1.example.com"), None);
    }
}
