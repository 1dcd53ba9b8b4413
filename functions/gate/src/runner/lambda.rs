//! Has commands run by the function `gate_runner`. It gets signed URLs for one workspace and one bundle, and nothing
//! else.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nofx_gates::judge::{Archive, RunnerLost};
use nofx_gates::run::{Bundle, Job, Location, MAX_BUNDLE_BYTES, RunAnswer, RunSpec};
use shared::domain::digest::sha256_hex;
use shared::error::Error;
use shared::invoke::{Functions, InvokeError};
use shared::storage::{Signed, StepStore};

/// How much longer than the job its URLs are valid.
const GRACE: Duration = Duration::from_mins(2);

/// The runner of one attempt.
pub struct LambdaRunner<'a> {
    functions: &'a Functions,
    name: &'a str,
    store: &'a StepStore,
    /// Number of jobs so far, which names their bundles.
    jobs: AtomicU32,
}

impl<'a> LambdaRunner<'a> {
    pub fn new(functions: &'a Functions, name: &'a str, store: &'a StepStore) -> Self {
        Self { functions, name, store, jobs: AtomicU32::new(0) }
    }

    /// A URL of the archive. One that is no artifact is stored as a scratch object first.
    async fn sign_archive(&self, archive: &Archive, lasts: Duration) -> Result<Signed, Error> {
        if let Some(artifact) = &archive.artifact {
            return self.store.sign_read(&artifact.uri, lasts).await;
        }
        let name = format!("workspace-{}.tar.gz", archive.sha256.get(..16).unwrap_or_default());
        let uri = self.store.put_scratch(&name, "application/gzip", archive.bytes.to_vec()).await?;
        self.store.sign_read(&uri, lasts).await
    }

    pub async fn run(&self, archive: &Archive, job: Job) -> Result<Bundle, RunnerLost> {
        let lasts = Duration::from_millis(job.timeout_ms) + GRACE;
        let name = format!("bundle-{}.tar.gz", self.jobs.fetch_add(1, Ordering::Relaxed));
        let unavailable = |error: Error| RunnerLost::unavailable("storage_unavailable", error.to_string());
        let spec = RunSpec {
            archive: location(self.sign_archive(archive, lasts).await.map_err(unavailable)?),
            archive_sha256: archive.sha256.clone(),
            bundle: location(self.store.sign_scratch(&name, lasts).await.map_err(unavailable)?),
            job,
        };
        let answer: RunAnswer = self.functions.invoke(self.name, &spec).await.map_err(|error| match error {
            InvokeError::Unavailable(error) => RunnerLost::unavailable("runner_unavailable", error.to_string()),
            InvokeError::Ended(why) => RunnerLost::ended(why),
        })?;
        let bytes = self.store.read_scratch(&name, MAX_BUNDLE_BYTES).await.map_err(|error| match error {
            Error::Unavailable { .. } | Error::Internal { .. } => unavailable(error),
            error => RunnerLost::ended(error.to_string()),
        })?;
        if sha256_hex(&bytes) != answer.sha256 {
            return Err(RunnerLost::ended("its bundle is not the one that it announced"));
        }
        Bundle::unpack(&bytes).map_err(|error| RunnerLost::ended(format!("its bundle cannot be read: {error}")))
    }
}

fn location(Signed { url, headers }: Signed) -> Location {
    Location::Url { url, headers }
}
