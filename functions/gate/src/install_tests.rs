use uuid::Uuid;

use super::*;

#[tokio::test]
async fn a_registry_that_is_away_is_trouble_and_a_wrong_lock_is_not() {
    let outcome = |text: &'static str| async move {
        let folder = tempfile::tempdir().unwrap();
        let command = Command {
            line: vec!["sh".into(), "-c".into(), format!("echo '{text}'; exit 1")],
            folder: folder.path().into(),
            environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
            limit: Duration::from_secs(20),
            mark: Uuid::new_v4().to_string(),
        };
        blame(process::run(&command).await.unwrap())
    };
    assert_eq!(outcome("npm error code ECONNREFUSED").await.unwrap_err().code, "registry_unavailable");
    assert_eq!(outcome("npm error code ENOSPC").await.unwrap_err().code, "disk_full");
    match outcome("npm error code EUSAGE").await.unwrap() {
        Installed::Refused(reason, Some(_)) => assert_eq!(reason.code, "install_failed"),
        other => panic!("{other:?}"),
    }
}
