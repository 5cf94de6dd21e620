//! `/stub/v1/clock`: the stub's own time, read and moved.

use std::sync::Arc;

use axum::{body::Bytes, extract::State, response::Response};
use serde::Deserialize;
use tally_shared::time::Timestamp;

use super::{Answered, Stub, invalid, read};
use crate::{
    api::{reply, state::Shared},
    engine::clock::{Clock, Reading},
};

pub(super) async fn show(State(stub): Stub) -> Response {
    reply::json(&stub.clock.read())
}

/// One of three ways to move the clock.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClockChange {
    now: Option<Timestamp>,
    advance_seconds: Option<i64>,
    advance_ms: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Advance {
    seconds: i64,
}

pub(super) async fn set(State(stub): Stub, body: Bytes) -> Answered {
    let change: ClockChange = read(&body)?;
    let advance_ms = match (change.now, change.advance_seconds, change.advance_ms) {
        (Some(now), None, None) => return move_clock(&stub, Clock::offset_to_show(now)).await,
        (None, Some(seconds), None) => seconds.saturating_mul(1000),
        (None, None, Some(advance_ms)) => advance_ms,
        _ => return Err(invalid("give one of `now`, `advance_seconds` and `advance_ms`").into()),
    };
    advance_by(&stub, advance_ms).await
}

pub(super) async fn advance(State(stub): Stub, body: Bytes) -> Answered {
    let advance: Advance = read(&body)?;
    advance_by(&stub, advance.seconds.saturating_mul(1000)).await
}

async fn advance_by(stub: &Arc<Shared>, advance_ms: i64) -> Answered {
    let shown = stub.clock.now().plus_millis(advance_ms);
    move_clock(stub, Clock::offset_to_show(shown)).await
}

async fn move_clock(stub: &Arc<Shared>, offset_ms: i64) -> Answered {
    let reading: Reading = stub
        .blocking(move |stub| {
            let mut store = stub.store();
            let tx = store.begin()?;
            tx.set_clock_offset_ms(offset_ms)?;
            tx.commit()?;
            stub.clock.set_offset(offset_ms);
            Ok(stub.clock.read())
        })
        .await?;
    Ok(reply::json(&reading))
}
