//! Which server the ledger is kept for. Units that were recorded for one are not sent to another: that
//! would count them where nobody consumed them, and never where somebody did.

use serde_json::json;

use super::resolve::Unresolvable;
use crate::core::{
    Core,
    book::{BatchNo, Home, NoteKind, Seq},
    clock::Moment,
};

/// What tells servers apart, of the name of one. Names of servers on this device begin with the word
/// `loopback`, and are one in this: their ports change, and say nothing of who listens.
fn place(server: &str) -> &str {
    server.split(' ').next().unwrap_or(server)
}

impl Core {
    /// The server that what is owed was recorded for, where the agent uses another now: its address, or
    /// `loopback` for one on this device.
    pub fn owed_to(&self) -> Option<&str> {
        let known = self.book.home().map(|home| place(&home.server));
        known.filter(|known| *known != place(&self.server))
    }

    /// Takes the server that is used now for the ledger's, where nothing is owed to another.
    pub(in crate::core) fn adopt_server(&mut self) {
        let is_other = self.owed_to().is_some();
        if is_other && self.book.owed_home().next().is_some() {
            return;
        }
        if is_other {
            tracing::info!(server = self.server, "another server is used from here on");
        }
        self.take_server();
    }

    /// What was known of the former says nothing of this one: whether it keeps keys, and how its totals
    /// stand.
    fn take_server(&mut self) {
        let known = self.book.home().map(|home| &home.server);
        if known.is_some_and(|known| *known != self.server) {
            self.book.set_keeper(None);
            self.distrust_totals();
        }
        self.book.set_home(Home {
            server: self.server.clone(),
            until: None,
        });
    }

    /// Takes the server where it may, and leaves it alone where nothing may be sent to it.
    pub(in crate::core) fn meet_server(&mut self, now: Moment) {
        self.adopt_server();
        let is_elsewhere = self.owed_to().is_some();
        self.link.set_elsewhere(now.mono, is_elsewhere);
    }

    /// From a start with another server on, rows are this one's: they share no batch with those that were
    /// recorded for the former, so that these can be given up without the others.
    pub(super) fn part_from_former_server(&mut self) {
        let known = self.book.home().filter(|home| home.until.is_none());
        let Some(former) = known.filter(|_| self.owed_to().is_some()).cloned() else {
            return;
        };
        let open: Vec<BatchNo> = self.book.owed_home().map(|batch| batch.no).collect();
        for no in open {
            if let Some(batch) = self.book.batch_mut(no) {
                batch.closed = true;
            }
        }
        let (newest, _) = self.book.head();
        self.book.set_home(Home {
            until: Some(newest),
            ..former
        });
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
        self.take_server();
        self.nudge();
        Ok(self
            .book
            .add_note(now, NoteKind::Decision, body.to_string()))
    }
}
