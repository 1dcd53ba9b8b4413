//! Secrets Manager.

use std::time::Instant;

use shared::secrets::Secrets;
use uuid::Uuid;

use crate::target::{Target, for_each_target};

for_each_target!(Ministack as ministack, Localstack as localstack => [a_secret_is_cached_and_its_absence_is_not]);

async fn a_secret_is_cached_and_its_absence_is_not(target: Target) {
    let client = aws_sdk_secretsmanager::Client::new(&target.sdk().await);
    let secrets = Secrets::new(client.clone());
    let name = format!("t/{}", Uuid::new_v4());
    assert_eq!(secrets.get(&name).await.unwrap(), None);

    client.create_secret().name(&name).secret_string("first").send().await.unwrap();
    assert_eq!(secrets.get(&name).await.unwrap().as_deref(), Some("first"), "its absence was not cached");

    client.put_secret_value().secret_id(&name).secret_string("second").send().await.unwrap();
    assert_eq!(secrets.get(&name).await.unwrap().as_deref(), Some("first"), "cached for a while");
    assert_eq!(Secrets::new(client.clone()).get(&name).await.unwrap().as_deref(), Some("second"));

    // A caller that requires a newer value gets it within a quarter of a second. Then it is cached.
    let start = Instant::now();
    while secrets.get_read_after(&name, start).await.unwrap().as_deref() != Some("second") {
        assert!(start.elapsed().as_secs() < 10, "the secret was never read again");
        tokio::task::yield_now().await;
    }
    assert_eq!(secrets.get(&name).await.unwrap().as_deref(), Some("second"));
    client.put_secret_value().secret_id(&name).secret_string("third").send().await.unwrap();
    let value = secrets.get_read_after(&name, start).await.unwrap();
    assert_eq!(value.as_deref(), Some("second"), "the cached value was read after that instant");
}
