//! The public keys that verify attestations.

use nofx_tests::Lab;
use nofx_tests::database::TestDatabase;
use nofx_tests::lab::config;
use serde_json::json;
use shared::signing::{PrivateKey, PublicKey};

use crate::gateway::{Gateway, SHAPES};

#[tokio::test]
async fn configured_keys_are_listed_and_the_first_one_signs_now() {
    for shape in SHAPES {
        let keys: Vec<_> = (0..2).map(|_| PrivateKey::generate().unwrap().public().clone()).collect();
        let database = TestDatabase::create().await;
        let mut config = config(&database.url);
        config.signing.public_keys = Some(keys.iter().map(PublicKey::to_pem).collect());
        let lab = Lab::on(database, config).await;
        let answer = Gateway::api(&lab, shape).get("/keys").await;
        let expected = |key: &PublicKey, current: bool| {
            json!({"keyid": key.keyid(), "algorithm": "ecdsa-p256-sha256", "current": current, "pem": key.to_pem(),
                   "purpose": "evidence"})
        };
        assert_eq!(
            (answer.status, answer.body),
            (200, json!({"keys": [expected(&keys[0], true), expected(&keys[1], false)]}))
        );
    }
}

#[tokio::test]
async fn without_keys_the_list_is_empty_and_a_broken_key_is_an_error() {
    let lab = Lab::new().await;
    assert_eq!(Gateway::api(&lab, SHAPES[0]).get("/keys").await.body, json!({"keys": []}));
    let database = TestDatabase::create().await;
    let mut config = config(&database.url);
    config.signing.public_keys = Some("-----BEGIN PUBLIC KEY----- AAAA -----END PUBLIC KEY-----".to_owned());
    let answer = Gateway::api(&Lab::on(database, config).await, SHAPES[0]).get("/keys").await;
    assert_eq!((answer.status, &answer.body["code"]), (500, &json!("internal")));
}
