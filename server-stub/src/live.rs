//! What happens, told to whoever listens at `GET /stub/v1/stream`.

use std::sync::Arc;

use serde::Serialize;
use tokio::sync::broadcast;

/// How many notes a slow listener may be behind; then it is told to read everything again.
const NOTES_MAX: usize = 1024;

/// Tells what happens.
#[derive(Debug)]
pub(crate) struct Live(broadcast::Sender<Note>);

/// Something that happened.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    /// What kind of thing: the name of the event in the stream.
    pub(crate) event: &'static str,
    /// JSON.
    pub(crate) data: Arc<str>,
}

impl Live {
    /// Nobody listens yet.
    pub(crate) fn new() -> Self {
        Self(broadcast::Sender::new(NOTES_MAX))
    }

    /// Tells everybody who listens.
    pub(crate) fn tell(&self, event: &'static str, what: &impl Serialize) {
        if !self.is_heard() {
            return;
        }
        // Every value told is a plain structure with text keys, which always has a JSON form.
        let data = serde_json::to_string(what).unwrap_or_default().into();
        // An error says that the last listener has just gone.
        let _ = self.0.send(Note { event, data });
    }

    /// Whether anybody listens.
    pub(crate) fn is_heard(&self) -> bool {
        self.0.receiver_count() > 0
    }

    /// Listens from this moment on.
    pub(crate) fn listen(&self) -> broadcast::Receiver<Note> {
        self.0.subscribe()
    }
}
