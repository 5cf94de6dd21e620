//! Which server the ledger is kept for. Units that were recorded for one are not sent to another: that
//! would count them where nobody consumed them, and never where somebody did.

use serde_json::json;

use super::resolve::Unresolvable;
use crate::core::{
    Core,
    book::{NoteKind, Seq},
    clock::Moment,
};

impl Core {
    /// Takes the server that is used now for the ledger's, where nothing is owed to another.
    pub(in crate::core) fn adopt_server(&mut self) {
        let is_other = self.owed_to().is_some();
        if is_other && self.book.owes() {
            return;
        }
        if is_other {
            tracing::info!(server = self.server, "another server is used from here on");
            self.book.set_idempotent(false);
        }
        self.book.set_server(&self.server);
    }

    /// The same, and leaves a server alone that nothing may be sent to.
    pub(in crate::core) fn meet_server(&mut self, now: Moment) {
        self.adopt_server();
        let is_elsewhere = self.owed_to().is_some();
        self.link.set_elsewhere(now.mono, is_elsewhere);
    }

    /// Somebody says that the server which the agent uses now is the one that what is owed was recorded
    /// for, under another address. Returns the place of the note that says so.
    ///
    /// # Errors
    ///
    /// [`Unresolvable::SameServer`] where nothing is owed to another.
    pub fn server_moved(&mut self, now: Moment, reason: Option<&str>) -> Result<Seq, Unresolvable> {
        let from = self.owed_to().ok_or(Unresolvable::SameServer)?;
        let body = json!({
            "decision": "server_moved",
            "by": super::resolve::By::Person,
            "reason": reason,
            "from": from,
            "to": self.server,
        });
        tracing::info!(%body, "the server has moved");
        self.book.set_server(&self.server);
        self.nudge();
        Ok(self
            .book
            .add_note(now, NoteKind::Decision, body.to_string()))
    }
}
