//! `GET /v1/stream`: the status whenever something changed, as server-sent events. Nothing is sent, and
//! nothing wakes up, while nothing changes but the time.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    response::{
        IntoResponse as _, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream;
use tally_shared::wire::{ApiError, ErrorCode};

use super::{Api, answer::Result, control_api::current_status};

/// So many may listen at the same time.
pub(super) const STREAMS_MAX: usize = 16;

/// Under load something changes with every commit: more often than this is not for people.
const PAUSE: Duration = Duration::from_millis(250);

/// A line of its own so often says that the connection is alive; shorter than the time that an idle one
/// has.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How long a browser waits before it listens again.
const RETRY: Duration = Duration::from_secs(1);

/// After this the listener asks again, and shows that it may: a session that is over is over here too.
const LISTEN_MAX: Duration = Duration::from_mins(10);

/// Tells the status now, and again whenever it changed.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/v1/stream", tag = "state",
    responses((status = 200, description = "Events called `status`, each with the answer of /v1/status as its data", body = String, content_type = "text/event-stream")),
))]
pub(super) async fn stream(State(api): State<Api>) -> Result<Response> {
    let place = Arc::clone(&api.streams).try_acquire_owned();
    let place = place.map_err(|_| {
        ApiError::new(
            ErrorCode::Unavailable,
            "too many listen already; close a dashboard somewhere",
        )
    })?;
    let news = api.ledger.news();
    let until = tokio::time::Instant::now() + LISTEN_MAX;
    let events = stream::unfold(
        (api, news, true),
        move |(api, mut news, is_first)| async move {
            if !is_first {
                let changed = async {
                    tokio::time::sleep(PAUSE).await;
                    news.changed().await
                };
                tokio::select! {
                    changed = changed => changed.ok()?,
                    () = tokio::time::sleep_until(until) => return None,
                    // A stream that went on would hold up the end of the agent.
                    () = api.stopping.cancelled() => return None,
                }
            }
            // What changes while the status is read is news again.
            news.mark_unchanged();
            let status = current_status(&api).await.ok()?;
            let status = serde_json::to_string(&status).ok()?;
            let event = Event::default().event("status").data(status);
            let event = if is_first { event.retry(RETRY) } else { event };
            Some((Ok::<_, Infallible>(event), (api, news, false)))
        },
    );
    // The place is given back with the last of it.
    let events = futures_util::StreamExt::inspect(events, move |_| {
        let _held = &place;
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    Ok(Sse::new(events).keep_alive(keep_alive).into_response())
}
