//! The servers under test. A test case is a function of its target, and each target gets its own test, so that a failure
//! names the server.

use aws_config::SdkConfig;
use nofx_tests::database::TestDatabase;
use nofx_tests::environment::{aws_endpoint_url, localstack_endpoint_url, s3_endpoint_url, s3_keys};
use nofx_tests::{Lab, lab};

/// A server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The local stack's emulator.
    Ministack,
    Localstack,
    /// Only an S3 server, for artifacts. It has its own keys and region, verifies signatures and stores no checksums,
    /// like Supabase Storage.
    OwnKeys,
}

/// The region of [`Target::OwnKeys`].
pub const OWN_REGION: &str = "local";

impl Target {
    /// Configuration of clients that are independent of the code under test.
    pub async fn sdk(self) -> SdkConfig {
        match self {
            Self::Ministack => lab::sdk().await,
            Self::Localstack => lab::sdk_at(&localstack_endpoint_url(), "us-east-1", ("test", "test")).await,
            Self::OwnKeys => {
                let (id, secret) = s3_keys();
                lab::sdk_at(&s3_endpoint_url(), OWN_REGION, (&id, &secret)).await
            }
        }
    }

    /// A lab that stores artifacts at this target. Everything else is at the emulator. Only the `ARTIFACTS_*` variables
    /// differ.
    pub async fn lab(self) -> Lab {
        let database = TestDatabase::create().await;
        let mut config = lab::config(&database.url);
        match self {
            Self::Ministack => config.artifacts.endpoint_url = Some(aws_endpoint_url()),
            Self::Localstack => config.artifacts.endpoint_url = Some(localstack_endpoint_url()),
            Self::OwnKeys => {
                config.artifacts.endpoint_url = Some(s3_endpoint_url());
                config.artifacts.region = Some(OWN_REGION.into());
                config.artifacts.keys = Some(s3_keys());
            }
        }
        Lab::on(database, config).await
    }

    /// Like [`Target::lab`], with a bucket.
    pub async fn lab_with_bucket(self) -> Lab {
        let lab = self.lab().await;
        lab::create_bucket(&self.sdk().await, &lab.ctx.config.artifacts.bucket).await;
        lab
    }
}

/// `Target as module => [case, case]` makes a module for each target, with a test for each case.
macro_rules! for_each_target {
    ($($target:ident as $module:ident),+ => $cases:tt) => {
        $(mod $module { $crate::target::for_each_target!(@cases $target $cases); })+
    };
    (@cases $target:ident [$($case:ident),+ $(,)?]) => {
        $(
            #[tokio::test]
            async fn $case() {
                super::$case($crate::target::Target::$target).await;
            }
        )+
    };
}

pub(crate) use for_each_target;
