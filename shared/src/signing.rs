//! Signs evidence, decisions and seals, each with its own key, in a file or in KMS, and lists the public keys that verify them.
//!
//! Only the function `gate` signs evidence, only `approvals` and `console` sign decisions, and only the sweeper seals runs. Without a usable key they fail
//! closed: evidence that nobody can verify proves nothing.

pub mod dsse;
mod key;
pub mod low_s;

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use aws_config::SdkConfig;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{MessageType, SigningAlgorithmSpec};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

pub use key::{ALGORITHM, KeyError, PrivateKey, PublicKey};

use crate::config::SigningConfig;
use crate::error::Error;

/// A larger file is no key.
const MAX_KEY_FILE_BYTES: u64 = 16 * 1024;
/// The limit on listed public keys.
const MAX_PUBLIC_KEYS: usize = 50;

/// Signs messages.
pub struct Signer(Source);

enum Source {
    File(PrivateKey),
    Kms(KmsKey),
    /// No key is usable, for this reason.
    None(String),
}

/// A signature, and which key made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// See [`PublicKey::keyid`].
    pub keyid: String,
    /// In DER.
    pub signature: Vec<u8>,
}

impl Signer {
    /// The signer that the configuration names. Without a usable key, [`Signer::sign`] returns an error, so that the
    /// function starts and its steps can say what is wrong.
    pub fn new(config: &SigningConfig, sdk: &SdkConfig) -> Self {
        let source = match (&config.key_file, &config.key_id) {
            (Some(path), None) => match private_key(path) {
                Ok(key) => Source::File(key),
                Err(reason) => Source::None(format!("{}_KEY_FILE cannot be used: {reason}", config.purpose)),
            },
            (None, Some(id)) => Source::Kms(KmsKey::new(id, sdk)),
            (None, None) => Source::None(format!("neither {0}_KEY_FILE nor {0}_KEY_ID is set", config.purpose)),
            (Some(_), Some(_)) => Source::None(format!("{0}_KEY_FILE and {0}_KEY_ID are both set", config.purpose)),
        };
        Self(source)
    }

    /// A signer with this key.
    pub fn with_key(key: PrivateKey) -> Self {
        Self(Source::File(key))
    }

    /// [`Error::Invalid`] if the configuration has no usable key. Says nothing about KMS.
    pub fn check(&self) -> Result<(), Error> {
        match &self.0 {
            Source::File(_) | Source::Kms(_) => Ok(()),
            Source::None(reason) => Err(Error::invalid("", reason)),
        }
    }

    /// The public key of the key that signs now.
    pub async fn public_key(&self) -> Result<PublicKey, Error> {
        match &self.0 {
            Source::File(key) => Ok(key.public().clone()),
            Source::Kms(key) => key.public_key().await,
            Source::None(reason) => Err(Error::invalid("", reason)),
        }
    }

    /// Signs a message: [`Error::Unavailable`] if a retry may succeed, [`Error::Invalid`] if the configuration has no
    /// usable key.
    pub async fn sign(&self, message: &[u8]) -> Result<Signed, Error> {
        match &self.0 {
            Source::File(key) => {
                let signature = key.sign(message).map_err(|error| Error::internal("signing", error))?;
                Ok(Signed { keyid: key.public().keyid().to_owned(), signature })
            }
            Source::Kms(key) => key.sign(message).await,
            Source::None(reason) => Err(Error::invalid("", reason)),
        }
    }
}

/// The public keys that verify signatures of one purpose: that of `.._KEY_ID` first, then those of `.._PUBLIC_KEYS`. The
/// first one belongs to the key that signs now.
pub async fn public_keys(config: &SigningConfig, sdk: &SdkConfig) -> Result<Vec<PublicKey>, Error> {
    let mut keys = Vec::new();
    if let Some(id) = &config.key_id {
        // Nothing is wrong with the request.
        keys.push(KmsKey::new(id, sdk).fetch_public_key().await.map_err(|error| match error {
            Error::Invalid(_) => Error::internal("read the public key of a signing key", error),
            other => other,
        })?);
    }
    let others = PublicKey::all_from_pem(config.public_keys.as_deref().unwrap_or_default());
    for key in others.map_err(|error| Error::internal("read the configured public keys", error))? {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    if keys.len() > MAX_PUBLIC_KEYS {
        return Err(Error::internal(
            "read the configured public keys",
            format!("there are more than {MAX_PUBLIC_KEYS} keys"),
        ));
    }
    Ok(keys)
}

/// Reads a private key that only its owner can read. `Err` is the reason, without any part of the key.
pub fn private_key(path: &Path) -> Result<PrivateKey, String> {
    let read = || -> Result<String, String> {
        let file = File::open(path).map_err(|error| error.to_string())?;
        let found = file.metadata().map_err(|error| error.to_string())?;
        if found.mode() & 0o077 != 0 {
            return Err("other users can read it; run chmod 600".to_owned());
        }
        let mut text = String::new();
        file.take(MAX_KEY_FILE_BYTES).read_to_string(&mut text).map_err(|error| error.to_string())?;
        Ok(text)
    };
    let text = read().map_err(|reason| format!("{}: {reason}", path.display()))?;
    PrivateKey::from_pem(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Writes a new private key to a file that only its owner can read, unless the file exists. A reader never sees a part
/// of the key, and concurrent callers get the same one.
pub fn create_private_key(path: &Path) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    if path.exists() {
        return Ok(());
    }
    let text = PrivateKey::generate().and_then(|key| key.to_pem()).map_err(std::io::Error::other)?;
    let draft = path.with_extension(format!("{}.new", uuid::Uuid::new_v4().simple()));
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    // A link fails if the file exists, unlike a rename.
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// A key in KMS: `ECC_NIST_P256`, for signing.
struct KmsKey {
    client: aws_sdk_kms::Client,
    /// Its id, ARN or alias.
    id: String,
    /// The last public key seen.
    public: Mutex<Option<PublicKey>>,
}

impl KmsKey {
    fn new(id: &str, sdk: &SdkConfig) -> Self {
        Self { client: aws_sdk_kms::Client::new(sdk), id: id.to_owned(), public: Mutex::new(None) }
    }

    async fn fetch_public_key(&self) -> Result<PublicKey, Error> {
        let answer = self.client.get_public_key().key_id(&self.id).send().await.map_err(kms_error)?;
        let spki = answer.public_key().map(Blob::as_ref).unwrap_or_default();
        PublicKey::from_spki(spki)
            .map_err(|error| Error::invalid("SIGNING_KEY_ID", format!("names another kind of key: {error}")))
    }

    async fn public_key(&self) -> Result<PublicKey, Error> {
        let mut public = self.public.lock().await;
        if let Some(key) = public.as_ref() {
            return Ok(key.clone());
        }
        Ok(public.insert(self.fetch_public_key().await?).clone())
    }

    /// KMS gets the digest, so that messages of any length can be signed and their content stays here.
    async fn sign(&self, message: &[u8]) -> Result<Signed, Error> {
        let request = self
            .client
            .sign()
            .key_id(&self.id)
            .message_type(MessageType::Digest)
            .message(Blob::new(Sha256::digest(message).to_vec()))
            .signing_algorithm(SigningAlgorithmSpec::EcdsaSha256);
        let answer = request.send().await.map_err(kms_error)?;
        let signature = answer.signature().map(Blob::as_ref).unwrap_or_default();
        let signature =
            low_s::lowered(signature).ok_or_else(|| Error::unavailable("KMS", "its signature is not ECDSA in DER"))?;
        let keyid = self.keyid_of(message, &signature).await?;
        Ok(Signed { keyid, signature })
    }

    /// The id of the key that made a signature. An alias may have moved to another key since the public key was read, so
    /// the signature is verified, and the key is read again if it is another one's.
    async fn keyid_of(&self, message: &[u8], signature: &[u8]) -> Result<String, Error> {
        let mut public = self.public.lock().await;
        if let Some(key) = public.as_ref().filter(|key| key.verifies(message, signature)) {
            return Ok(key.keyid().to_owned());
        }
        let key = self.fetch_public_key().await?;
        if !key.verifies(message, signature) {
            return Err(Error::unavailable("KMS", "its signature does not verify with its public key"));
        }
        Ok(public.insert(key).keyid().to_owned())
    }
}

/// The codes with which KMS refuses a key until somebody changes it, the role or the configuration.
const REFUSALS: [&str; 7] = [
    "AccessDeniedException",
    "DisabledException",
    "InvalidKeyUsageException",
    "KMSInvalidStateException",
    "NotFoundException",
    "UnsupportedOperationException",
    "ValidationException",
];

fn kms_error<E>(error: SdkError<E>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    match error.as_service_error().and_then(ProvideErrorMetadata::code) {
        Some(code) if REFUSALS.contains(&code) => {
            Error::invalid("SIGNING_KEY_ID", format!("KMS refuses the key that it names: {code}"))
        }
        _ => Error::unavailable("KMS", error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use aws_config::BehaviorVersion;

    use super::*;

    fn sdk() -> SdkConfig {
        SdkConfig::builder().behavior_version(BehaviorVersion::latest()).build()
    }

    fn folder() -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("nofx-signing-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&path).unwrap();
        path
    }

    #[tokio::test]
    async fn a_created_key_signs_and_is_not_replaced() {
        let folder = folder();
        let path = folder.join("key.pem");
        create_private_key(&path).unwrap();
        let first = fs::read(&path).unwrap();
        create_private_key(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), first);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "the draft is gone");
        let config = SigningConfig { key_file: Some(path.clone()), ..SigningConfig::default() };
        let signer = Signer::new(&config, &sdk());
        signer.check().unwrap();
        let Signed { keyid, signature } = signer.sign(b"message").await.unwrap();
        let public = private_key(&path).unwrap().public().clone();
        assert_eq!(keyid, public.keyid());
        assert!(public.verifies(b"message", &signature));
        fs::remove_dir_all(folder).unwrap();
    }

    #[tokio::test]
    async fn without_a_usable_key_nothing_is_signed() {
        let folder = folder();
        let (open, broken) = (folder.join("open.pem"), folder.join("broken.pem"));
        create_private_key(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o640)).unwrap();
        fs::write(&broken, "secret").unwrap();
        fs::set_permissions(&broken, fs::Permissions::from_mode(0o600)).unwrap();
        let of = |path: &Path| SigningConfig { key_file: Some(path.to_owned()), ..SigningConfig::default() };
        let both = SigningConfig { key_id: Some("k".to_owned()), ..of(&open) };
        let cases = [
            (SigningConfig::default(), "is set"),
            (both, "both set"),
            (of(&open), "chmod 600"),
            (of(&broken), "PRIVATE KEY"),
            (of(&folder.join("missing.pem")), "No such file"),
        ];
        for (config, part) in cases {
            let signer = Signer::new(&config, &sdk());
            assert!(matches!(signer.check(), Err(Error::Invalid(_))));
            let error = signer.sign(b"message").await.unwrap_err();
            assert!(matches!(error, Error::Invalid(_)) && error.to_string().contains(part), "{error}");
            assert!(!error.to_string().contains("secret"));
        }
        fs::remove_dir_all(folder).unwrap();
    }

    #[tokio::test]
    async fn configured_public_keys_are_listed_once_in_their_order() {
        let keys: Vec<_> = (0..2).map(|_| PrivateKey::generate().unwrap().public().clone()).collect();
        let text = [&keys[1], &keys[0], &keys[1]].map(PublicKey::to_pem).concat();
        let config = SigningConfig { public_keys: Some(text), ..SigningConfig::default() };
        assert_eq!(public_keys(&config, &sdk()).await.unwrap(), [keys[1].clone(), keys[0].clone()]);
        assert_eq!(public_keys(&SigningConfig::default(), &sdk()).await.unwrap(), []);
    }
}
