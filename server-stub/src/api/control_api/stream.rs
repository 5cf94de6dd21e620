//! `GET /stub/v1/stream`: what happens, as server-sent events.

use std::convert::Infallible;

use axum::{
    extract::State,
    response::{
        IntoResponse as _, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream;
use tokio::sync::broadcast::error::RecvError;

use super::Stub;

/// The first event is `ready`: whoever reads everything after it misses nothing. `missed` says that the
/// listener was too slow, and must read everything again.
pub(super) async fn stream(State(stub): Stub) -> Response {
    let notes = stub.live.listen();
    let stopping = stub.stopping.clone();
    let first = Event::default().event("ready").data("{}");
    let events = stream::unfold((Some(first), notes), move |(first, mut notes)| {
        let stopping = stopping.clone();
        async move {
            if let Some(first) = first {
                return Some((Ok::<_, Infallible>(first), (None, notes)));
            }
            let note = tokio::select! {
                note = notes.recv() => note,
                // A stream that went on would hold up the end of the stub.
                () = stopping.cancelled() => return None,
            };
            let event = match note {
                Ok(note) => Event::default().event(note.event).data(&*note.data),
                Err(RecvError::Lagged(_)) => Event::default().event("missed").data("{}"),
                Err(RecvError::Closed) => return None,
            };
            Some((Ok(event), (None, notes)))
        }
    });
    Sse::new(events)
        .keep_alive(KeepAlive::default())
        .into_response()
}
