//! Headers and signature: each error of the contract's table, and their order.

use reqwest::Method;
use tally_shared::{auth, time::Timestamp};

use crate::world::{ADD, CHECK, Reply, World, body, send};

/// Sends the plain request with these headers.
async fn with_headers(world: &World, headers: &[(&str, &str)]) -> Reply {
    let body = body(serde_json::json!({})).to_string();
    let request = world.unsigned(Method::POST, ADD).body(body);
    let add = |request: reqwest::RequestBuilder, (name, value): &(&str, &str)| {
        request.header(*name, *value)
    };
    send(headers.iter().fold(request, add)).await
}

/// This `Authorization`, with a right `Date`, must be refused by that code. `RIGHT` in it becomes the
/// right signature.
async fn refused(world: &World, authorization: &str, code: &str) {
    let (date, _) = world.credentials().await;
    let authorization = authorization.replace("RIGHT", &auth::sign("secret", &date));
    let headers = [("Date", date.as_str()), ("Authorization", &authorization)];
    let reply = with_headers(world, &headers).await;
    assert_eq!(reply.code(), code, "{authorization}");
}

#[tokio::test]
async fn both_headers_are_needed_and_the_message_names_what_is_missing() {
    let world = World::start().await;
    let neither = with_headers(&world, &[]).await;
    assert_eq!(neither.code(), "missing_headers");
    assert!(
        neither.body.contains("Date, Authorization"),
        "{}",
        neither.body
    );
    let dated = with_headers(&world, &[("Date", "rubbish")]).await;
    assert_eq!(
        dated.code(),
        "missing_headers",
        "before the date is looked at"
    );
}

#[tokio::test]
async fn a_date_far_from_the_stubs_own_clock_is_refused_first() {
    let world = World::start().await;
    let (date, authorization) = world.credentials().await;
    world.set_clock("2031-05-05T12:00:00Z").await;
    let headers = [("Date", date.as_str()), ("Authorization", &authorization)];
    assert_eq!(
        with_headers(&world, &headers).await.code(),
        "date_header_diff"
    );
    let headers = [("Date", date.as_str()), ("Authorization", "rubbish")];
    assert_eq!(
        with_headers(&world, &headers).await.code(),
        "date_header_diff"
    );
    assert_eq!(world.add(serde_json::json!({})).await.total(), 1);
}

#[tokio::test]
async fn fourteen_minutes_pass_and_sixteen_do_not() {
    let world = World::start().await;
    world.set_clock("2031-05-05T12:00:00Z").await;
    let status = async |time: &str| {
        let date = Timestamp::parse(time).unwrap().to_http_date();
        let authorization = auth::authorization("key", "secret", &date);
        let headers = [("Date", date.as_str()), ("Authorization", &authorization)];
        with_headers(&world, &headers).await.status
    };
    assert_eq!(status("2031-05-05T12:14:00Z").await, 200);
    assert_eq!(status("2031-05-05T11:46:00Z").await, 200);
    assert_eq!(status("2031-05-05T12:16:00Z").await, 400);
    assert_eq!(status("2031-05-05T11:44:00Z").await, 400);
}

#[tokio::test]
async fn every_way_to_write_a_wrong_authorization_has_its_code() {
    let world = World::start().await;
    refused(&world, "rubbish", "authorization_invalid_headers").await;
    refused(
        &world,
        r#"algorithm="hmac-sha256",headers="host",signature="RIGHT",apikey="key""#,
        "authorization_invalid_headers",
    )
    .await;
    refused(&world, "Bearer abc", "hmac_required").await;
    refused(
        &world,
        r#"algorithm="rsa",headers="date",signature="RIGHT",apikey="key""#,
        "hmac_required",
    )
    .await;
    refused(
        &world,
        r#"algorithm="hmac-sha256",headers="date",apikey="key""#,
        "authorization_missing_params",
    )
    .await;
    refused(
        &world,
        r#"algorithm="hmac-sha256",headers="date",signature="wrong",apikey="nobody""#,
        "invalid_api_key",
    )
    .await;
    refused(
        &world,
        r#"algorithm="hmac-sha256",headers="date",signature="wrong",apikey="revoked""#,
        "revoked_api_key",
    )
    .await;
    refused(
        &world,
        r#"algorithm="hmac-sha256",headers="date",signature="wrong",apikey="reader""#,
        "read_only_api_key",
    )
    .await;
    refused(
        &world,
        r#"algorithm="hmac-sha256",headers="date",signature="wrong",apikey="key""#,
        "signature_mismatch",
    )
    .await;
    assert_eq!(world.total(1).await, 0, "a refused request changes nothing");
}

#[tokio::test]
async fn parameter_names_in_any_case_and_white_space_are_accepted() {
    let world = World::start().await;
    let (date, authorization) = world.credentials().await;
    let authorization = authorization.replace("apikey", "apiKey").replace(',', ", ");
    let headers = [("Date", date.as_str()), ("Authorization", &authorization)];
    assert_eq!(with_headers(&world, &headers).await.total(), 1);
}

#[tokio::test]
async fn a_read_only_key_may_read() {
    let world = World::start().await.calling_as("reader");
    assert_eq!(world.check("MAIN").await.total(), 0);
    assert_eq!(
        world.add(serde_json::json!({})).await.code(),
        "read_only_api_key"
    );
}

#[tokio::test]
async fn headers_are_checked_before_the_body() {
    let world = World::start().await;
    let reply = send(world.unsigned(Method::POST, ADD).body("not json")).await;
    assert_eq!(reply.code(), "missing_headers");
    let reply = send(world.unsigned(Method::GET, CHECK)).await;
    assert_eq!(reply.code(), "missing_headers");
}

#[tokio::test]
async fn another_path_is_not_found_and_another_method_is_not_allowed() {
    let world = World::start().await;
    let reply = send(world.unsigned(Method::POST, "/api/v4/floating")).await;
    assert_eq!((reply.status, reply.code().as_str()), (404, "not_found"));
    let reply = send(world.unsigned(Method::GET, ADD)).await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (405, "method_not_allowed")
    );
    assert_eq!(reply.header("allow"), Some("POST"));
}
