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

    /// A signer with the credentials of the environment or of the target's AWS profile, if the URL is one of API Gateway
    /// or the target names a region.
    pub async fn for_target(target: &Target) -> Option<Self> {
        let region = target.region.clone().or_else(|| region_of(&target.api_url))?;
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
    fn only_requests_to_api_gateway_are_signed() {
        let region = region_of("https://a1b2.execute-api.eu-central-1.amazonaws.com/v1");
        assert_eq!(region.as_deref(), Some("eu-central-1"));
        assert_eq!(region_of("http://127.0.0.1:3000"), None);
        assert_eq!(region_of("https://execute-api.example.com"), None);
        assert_eq!(region_of("https://a.execute-api.eu-central-1.example.com"), None);
    }
}
