//! What a restart keeps.

use serde_json::json;
use tally_server_stub::{StartError, Stub};

use crate::world::{World, config};

#[tokio::test]
async fn a_restart_keeps_totals_answers_activity_clock_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::with(config(Some(folder.path()))).await;
    world.set_clock("2031-05-05T12:00:00Z").await;
    let first = world.add_keyed("k1", json!({"consumptions": 3})).await;
    let public_key = world.stub.public_key().to_owned();
    world.stub.shutdown().await;

    let world = World::with(config(Some(folder.path()))).await;
    assert_eq!(world.total(1).await, 3);
    let again = world.add_keyed("k1", json!({"consumptions": 3})).await;
    assert_eq!(again.header("Idempotency-Replayed"), Some("true"));
    assert_eq!(again.body, first.body);
    assert_eq!(
        world
            .get("/stub/v1/activity")
            .await
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(world.stub.public_key(), public_key);
    let now = world.get("/stub/v1/clock").await["now"].clone();
    assert!(now.as_str().unwrap().starts_with("2031-05-05"), "{now}");
}

#[tokio::test]
async fn a_database_wins_over_the_seed() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::with(config(Some(folder.path()))).await;
    world.stub.shutdown().await;
    let mut other = config(Some(folder.path()));
    other.seed.licenses.clear();
    let world = World::with(other).await;
    assert_eq!(world.add(json!({})).await.total(), 1);
}

#[tokio::test]
async fn a_second_stub_on_the_same_folder_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::with(config(Some(folder.path()))).await;
    let second = Stub::start(config(Some(folder.path()))).await;
    let error = second.err().unwrap();
    assert!(matches!(error, StartError::Open(_)), "{error}");
    assert!(
        error.to_string().ends_with("is in use by another stub"),
        "{error}"
    );
    assert_eq!(world.add(json!({})).await.total(), 1);
}

#[tokio::test]
async fn a_database_of_another_version_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stub.sqlite3");
    let newer = rusqlite::Connection::open(&path).unwrap();
    newer.pragma_update(None, "user_version", 7).unwrap();
    drop(newer);
    let before = std::fs::read(&path).unwrap();
    let error = Stub::start(config(Some(folder.path())))
        .await
        .err()
        .unwrap();
    assert!(error.to_string().contains("has version 7"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[cfg(unix)]
#[tokio::test]
async fn the_private_key_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("new");
    let world = World::with(config(Some(&data_dir))).await;
    let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(data_dir.join("stub_private_key.pem")), 0o600);
    assert_eq!(mode(data_dir), 0o700);
    world.stub.shutdown().await;
}
