//! What the engine does for the ledger and its disk beside requests: space for a full disk, old rows, the log.

use super::{Engine, RETRY_MIN};
use crate::{
    core::clock::Moment,
    ledger::{
        retention::{self, Slice},
        storage::Storage,
        store,
    },
};

impl Engine {
    /// Gives the reserve up for what must be written. From here on, nothing else is.
    pub(super) fn spend_reserve(&mut self) -> bool {
        let had_any = self.reserve.release();
        if had_any {
            self.is_short = true;
            // The log's pages go back into the database, where they have their places, so that the log
            // can be written from its start.
            if let Err(error) = self.checkpoint("RESTART") {
                tracing::debug!(%error, "no checkpoint on a full disk");
            }
        }
        had_any
    }

    /// Asks for the reserve again after it was spent; with it, recording goes on.
    pub(super) fn regain(&mut self, now: Moment) {
        if !self.is_short || now.mono < self.asked_at.saturating_add(RETRY_MIN) {
            return;
        }
        self.asked_at = now.mono;
        if self.reserve.take().is_ok() {
            tracing::info!("there is space on the disk again");
            self.is_short = false;
            self.recovered();
        } else {
            self.wait_longer();
        }
    }

    /// Only where the time is proven: a clock that runs ahead must not make everything old.
    pub(super) fn may_fold(&self, now: Moment) -> bool {
        now.proven && self.storage == Storage::Ok
    }

    /// Folds old rows, a slice at a time.
    pub(super) fn fold(&mut self, now: Moment) {
        if now.mono < self.sweep_at || !self.may_fold(now) {
            return;
        }
        let kept = i64::try_from(self.keeping.rows.as_millis()).unwrap_or(i64::MAX);
        let cutoff = now.time.plus_millis(kept.saturating_neg());
        let place = self.files.look();
        let folded = self.found(place).and_then(|()| {
            retention::fold(
                &mut self.connection,
                &mut self.sweep,
                cutoff,
                self.evidence.key(),
                &|connection| self.fence.check(connection),
            )
        });
        let slice = folded.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot fold old rows");
            self.meet(&error);
            Slice::LAST
        });
        self.logged += store::pages_of_rows(slice.folded);
        let took = self.clocks.reading().mono.saturating_sub(now.mono);
        let wait = slice.next_after(took);
        self.sweep_at = now.mono.saturating_add(wait);
    }

    pub(super) fn checkpoint(&self, how: &str) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached(&format!("PRAGMA wal_checkpoint({how})"))?
            .query_row([], |_| Ok(()))
    }
}
