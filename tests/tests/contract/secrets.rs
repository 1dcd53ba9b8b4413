//! Secrets Manager.

use shared::secrets::Secrets;
use uuid::Uuid;

use crate::target::{Target, against};

against!(Ministack as ministack, Localstack as localstack => [a_secret_is_read_once_and_a_missing_one_looked_for_again]);

async fn a_secret_is_read_once_and_a_missing_one_looked_for_again(target: Target) {
    let client = aws_sdk_secretsmanager::Client::new(&target.sdk().await);
    let secrets = Secrets::new(client.clone());
    let name = format!("t/{}", Uuid::new_v4());
    assert_eq!(secrets.get(&name).await.unwrap(), None);

    client.create_secret().name(&name).secret_string("first").send().await.unwrap();
    assert_eq!(secrets.get(&name).await.unwrap().as_deref(), Some("first"), "its absence was not remembered");

    client.put_secret_value().secret_id(&name).secret_string("second").send().await.unwrap();
    assert_eq!(secrets.get(&name).await.unwrap().as_deref(), Some("first"), "remembered for a while");
    assert_eq!(Secrets::new(client).get(&name).await.unwrap().as_deref(), Some("second"));
}
