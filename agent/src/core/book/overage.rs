//! Overage settings on their way to the server. They count in the order in which they were granted: one that comes late,
//! after a hold, must not undo what a later one set.

use tally_shared::limits::OverageSetting;

use super::{Batch, BatchNo, BatchState, Book, Dropped};

impl Book {
    /// What of a batch's overage setting is left out when it is sent: what was left out before, and what the setting of a
    /// later row has replaced that has reached the server.
    pub(in crate::core) fn dropped_of(&self, batch: &Batch) -> Dropped {
        let account = self.accounts.get(&batch.account);
        let newest = account.map(|account| account.settings).unwrap_or_default();
        Dropped {
            allow_overages: batch.dropped.allow_overages || batch.last < newest.allow_overages,
            max_overages: batch.dropped.max_overages || batch.last < newest.max_overages,
        }
    }

    /// The overage setting that a batch brings to the server.
    pub(in crate::core) fn setting_of(&self, batch: &Batch) -> OverageSetting {
        let Some(lane) = self.lanes.get(&batch.lane) else {
            return OverageSetting::default();
        };
        let is_under_way = matches!(batch.state, BatchState::Sent | BatchState::Unknown { .. });
        let dropped = if is_under_way {
            batch.dropped
        } else {
            self.dropped_of(batch)
        };
        dropped.leave(lane.key.setting)
    }

    /// The server has, or may have, taken the setting of a batch: those of earlier rows are replaced by it.
    pub(in crate::core) fn note_setting_of(&mut self, no: BatchNo) {
        let Some(batch) = self.batches.get(&no) else {
            return;
        };
        let (setting, last, account) = (self.setting_of(batch), batch.last, batch.account);
        if setting.is_empty() {
            return;
        }
        let Some(account) = self.account_mut(account) else {
            return;
        };
        let settings = &mut account.settings;
        if setting.allow_overages.is_some() {
            settings.allow_overages = settings.allow_overages.max(last);
        }
        if setting.max_overages.is_some() {
            settings.max_overages = settings.max_overages.max(last);
        }
        // It is no edit of the vendor's to those that wait.
        let account = account.no;
        let others = self.any_batches_of(account).map(|batch| batch.no);
        let others: Vec<BatchNo> = others.filter(|other| *other != no).collect();
        for other in others {
            let other = self
                .batch_mut(other)
                .and_then(|batch| batch.sealed.as_mut());
            if let Some(sealed) = other {
                sealed.before.limits = sealed.before.limits.with(setting);
            }
        }
    }

    /// Leaves more of a batch's setting out. What is sent from here on are other bytes, so they get another id.
    pub(in crate::core) fn drop_setting(&mut self, no: BatchNo, dropped: Dropped) {
        let Some(batch) = self.batches.get(&no) else {
            return;
        };
        let renamed = Batch {
            refusals: batch.refusals.saturating_add(1),
            ..batch.clone()
        };
        let id = self.id_of(&renamed);
        let Some(batch) = self.batch_mut(no) else {
            return;
        };
        batch.dropped = dropped;
        if let (Some(sealed), Some(id)) = (&mut batch.sealed, id) {
            batch.refusals = renamed.refusals;
            sealed.id = id;
            sealed.peer = None;
        }
    }
}
