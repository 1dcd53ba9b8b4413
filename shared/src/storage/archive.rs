//! The archive of the bucket, and deletion. Only the sweeper may do these.

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use aws_sdk_s3::types::{GlacierJobParameters, RestoreRequest, StorageClass, Tag, Tagging, Tier};

use super::{Storage, attempt_folder};
use crate::domain::artifact_storage::{Copy, RestoreTier, Seen, TAG};
use crate::domain::{RunId, StepId, TenantId};
use crate::error::Error;

/// Versions of one object that are deleted. They are written once, so there are few.
const MAX_VERSIONS: i32 = 1_000;

impl Storage {
    /// Whether the object is there, and whether it can be read.
    pub async fn look(&self, uri: &str) -> Result<Seen, Error> {
        let answer = match self.client.head_object().bucket(&self.bucket).key(self.key(uri)?).send().await {
            Ok(answer) => answer,
            Err(error) if is_status(&error, 404) => return Ok(Seen::Missing),
            Err(error) => return Err(Error::unavailable("artifact storage", error)),
        };
        Ok(match answer.storage_class() {
            Some(StorageClass::Glacier | StorageClass::DeepArchive) => Seen::Cold(copy(answer.restore())),
            _ => Seen::Warm,
        })
    }

    /// Sets the tag by which the bucket's lifecycle rule knows what to archive. Returns false if the object is gone.
    pub async fn tag(&self, uri: &str, value: &str) -> Result<bool, Error> {
        let tag = Tag::builder().key(TAG).value(value).build();
        let tagging = tag.and_then(|tag| Tagging::builder().tag_set(tag).build());
        let tagging = tagging.map_err(|error| Error::internal("tag an object", error))?;
        let request = self.client.put_object_tagging().bucket(&self.bucket).key(self.key(uri)?).tagging(tagging);
        match request.send().await {
            Ok(_) => Ok(true),
            Err(error) if is_status(&error, 404) => Ok(false),
            Err(error) => Err(Error::unavailable("artifact storage", error)),
        }
    }

    /// Asks the archive for a copy that can be read for some days, or for more days of one. Nothing happens if the archive makes
    /// one already.
    pub async fn restore(&self, uri: &str, days: u32, tier: RestoreTier) -> Result<(), Error> {
        let job = GlacierJobParameters::builder().tier(match tier {
            RestoreTier::Expedited => Tier::Expedited,
            RestoreTier::Standard => Tier::Standard,
            RestoreTier::Bulk => Tier::Bulk,
        });
        let job = job.build().map_err(|error| Error::internal("restore an object", error))?;
        let days = i32::try_from(days).unwrap_or(i32::MAX);
        let asked = RestoreRequest::builder().days(days).glacier_job_parameters(job).build();
        let request = self.client.restore_object().bucket(&self.bucket).key(self.key(uri)?).restore_request(asked);
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some("RestoreAlreadyInProgress") => Ok(()),
            Err(error) => Err(Error::unavailable("artifact storage", error)),
        }
    }

    /// Deletes an object with all its versions. It is no error if it is gone.
    pub async fn delete(&self, uri: &str) -> Result<(), Error> {
        let key = self.key(uri)?;
        let listed =
            self.client.list_object_versions().bucket(&self.bucket).prefix(key).max_keys(MAX_VERSIONS).send().await;
        let versions: Vec<String> = match listed {
            Ok(listed) => {
                let versions = listed.versions().iter().map(|found| (found.key(), found.version_id()));
                let markers = listed.delete_markers().iter().map(|found| (found.key(), found.version_id()));
                let own = versions.chain(markers).filter(|(found, _)| *found == Some(key));
                own.filter_map(|(_, version)| version.map(str::to_owned)).collect()
            }
            // A storage without versions says so, or lists something else.
            Err(error) if is_status(&error, 200) || error.code() == Some("NotImplemented") => Vec::new(),
            Err(error) => return Err(Error::unavailable("artifact storage", error)),
        };
        let request = || self.client.delete_object().bucket(&self.bucket).key(key);
        for version in &versions {
            let deleted = request().version_id(version).send().await;
            deleted.map_err(|error| Error::unavailable("artifact storage", error))?;
        }
        if versions.is_empty() {
            request().send().await.map_err(|error| Error::unavailable("artifact storage", error))?;
        }
        Ok(())
    }
}

impl Storage {
    /// The URIs of the objects that an attempt stored. What is in the folder of another attempt of its step is not among them.
    pub async fn attempt_objects(&self, step: (&TenantId, RunId, StepId), attempt: u32) -> Result<Vec<String>, Error> {
        let prefix = format!("{}/", attempt_folder(step, attempt));
        let request = self.client.list_objects_v2().bucket(&self.bucket).prefix(&prefix);
        let (mut found, mut pages) = (Vec::new(), request.into_paginator().send());
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| Error::unavailable("artifact storage", error))?;
            let keys = page.contents().iter().filter_map(|object| object.key());
            let own = keys.filter(|key| !key.strip_prefix(&prefix).is_some_and(|name| name.starts_with("attempt-")));
            found.extend(own.map(|key| self.uri(key)));
        }
        Ok(found)
    }
}

/// Reads `x-amz-restore`: `ongoing-request="false", expiry-date="Fri, 21 Dec 2012 00:00:00 GMT"`.
fn copy(header: Option<&str>) -> Copy {
    let Some(header) = header else { return Copy::None };
    if header.contains("ongoing-request=\"true\"") {
        return Copy::Ongoing;
    }
    let expiry = header.split_once("expiry-date=\"").and_then(|(_, rest)| rest.split_once('"'));
    let until = expiry.and_then(|(date, _)| DateTime::from_str(date, DateTimeFormat::HttpDate).ok());
    until.map_or(Copy::None, |until| Copy::Until(until.secs()))
}

fn is_status<E>(error: &SdkError<E>, status: u16) -> bool {
    error.raw_response().is_some_and(|response| response.status().as_u16() == status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_of_a_restore_is_read() {
        for (header, expected) in [
            (None, Copy::None),
            (Some("ongoing-request=\"true\""), Copy::Ongoing),
            (
                Some("ongoing-request=\"false\", expiry-date=\"Fri, 21 Dec 2012 00:00:00 GMT\""),
                Copy::Until(1_356_048_000),
            ),
            (Some("ongoing-request=\"false\", expiry-date=\"soon\""), Copy::None),
            (Some("ongoing-request=\"false\""), Copy::None),
        ] {
            assert_eq!(copy(header), expected, "{header:?}");
        }
    }
}
