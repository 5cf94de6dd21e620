//! Which licences are known here: one that nothing is owed of can be forgotten, and one that was never
//! known can be taken in by an answer that the server signed. Both stand in the ledger as notes.

use serde_json::json;
use tally_shared::wire::{Holder, Subject};

use crate::core::{
    Core,
    book::{BatchState, License, LicenseNo, NoteKind, Seq},
    clock::Moment,
    outcome::LicenseFound,
};

/// A message names so many batches; more say the same.
const BATCHES_NAMED: usize = 5;

/// Why a licence cannot be forgotten.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unforgettable {
    /// There is none of that name.
    #[error("no such licence is known here")]
    Unknown,
    /// The server has not counted all of its units.
    #[error("the licence is still owed, so it is kept: {0}")]
    Owed(String),
}

impl Core {
    /// Forgets a licence: it is not shown, not read from the server and not consumed of any more, until
    /// the server is asked for it again. Its rows stay, and so does what the ledger knows of its totals.
    /// Returns the place of the note that says so.
    ///
    /// # Errors
    ///
    /// [`Unforgettable`]; then nothing is changed.
    pub fn forget(
        &mut self,
        now: Moment,
        no: LicenseNo,
        reason: Option<&str>,
    ) -> Result<Seq, Unforgettable> {
        let license = self.book.license(no).ok_or(Unforgettable::Unknown)?;
        if self.book.is_forgotten(license) {
            return Err(Unforgettable::Unknown);
        }
        if let Some(owed) = self.owed_of(no) {
            return Err(Unforgettable::Owed(owed));
        }
        let devices: Vec<String> = license.devices.keys().cloned().collect();
        let note = json!({
            "decision": "forget",
            "by": "person",
            "reason": reason,
            "product": license.product,
            "holder": license.holder.field(),
            "holder_value": license.holder.value(),
            "license_id": license.id,
            "devices": devices,
        });
        tracing::info!(license = no.0, "forgot a licence");
        if let Some(license) = self.book.license_mut(no) {
            license.devices.clear();
            license.blocked = None;
        }
        Ok(self
            .book
            .add_note(now, NoteKind::Decision, note.to_string()))
    }

    /// Takes in a licence by an answer that the server signed once, without asking it now. What the ledger
    /// knows of a licence is newer than any such answer: of one that it ever knew, only the device is
    /// taken, never a limit or a total. Returns the place of the note that says so; `None` where there is
    /// nothing to take.
    pub fn take_in(&mut self, now: Moment, found: &LicenseFound) -> Option<Seq> {
        let LicenseFound { subject, body, .. } = found;
        let known = self.known_as(subject, body.counter.id);
        let (device, limits) = (&subject.hardware_id, known.is_none());
        match known.map(|license| (license.no, license.devices.contains_key(device))) {
            Some((_, true)) => return None,
            Some((no, false)) => {
                let license = self.book.license_mut(no)?;
                license.devices.insert(device.clone(), None);
                license.refresh_at = now.mono;
            }
            None => {
                let no = self.learn_license(now, found, now.mono);
                // How old the answer is, nobody knows: the server is asked before the total is relied on.
                for account in self.book.account_numbers_of(no) {
                    self.mark_account_unsure(account);
                }
            }
        }
        let note = json!({
            "decision": "import",
            "by": "person",
            "product": subject.product,
            "holder": subject.holder.field(),
            "holder_value": subject.holder.value(),
            "license_id": body.counter.id,
            "hardware_id": device,
            "limits_taken": limits,
        });
        tracing::info!("took in a licence by an answer on file");
        let note = note.to_string();
        Some(self.book.add_note(now, NoteKind::Decision, note))
    }

    /// The licence of that name, whether it was forgotten or not.
    fn known_as(&self, subject: &Subject, id: i64) -> Option<&License> {
        self.book.licenses().find(|license| {
            let is_named = license.product == subject.product && license.holder == subject.holder;
            // A user can hold several licences of one product.
            is_named && (matches!(license.holder, Holder::LicenseKey(_)) || license.id == id)
        })
    }

    /// What is owed of a licence, and what settles it, if anything is.
    fn owed_of(&self, no: LicenseNo) -> Option<String> {
        let accounts = self.book.accounts_of(no);
        let batches: Vec<_> = accounts
            .flat_map(|account| self.book.batches_of(account.no))
            .collect();
        let named = batches.iter().take(BATCHES_NAMED).map(|batch| {
            let (no, units) = (batch.no.0, batch.units);
            match batch.state {
                BatchState::Held(_) => {
                    format!("batch {no} ({units} units) is held, `tally resolve {no}` decides")
                }
                BatchState::Sent | BatchState::Unknown { .. } => {
                    format!(
                        "batch {no} ({units} units) was sent, and is not confirmed yet, \
                         `tally resolve {no}` decides once it can no longer arrive"
                    )
                }
                _ => format!(
                    "batch {no} ({units} units) waits, `tally sync` sends it, \
                     `tally resolve {no} --waive REASON` gives it up"
                ),
            }
        });
        let mut lines: Vec<String> = named.collect();
        let more = batches.len().saturating_sub(BATCHES_NAMED);
        if more > 0 {
            lines.push(format!("and {more} more, which `tally status` shows"));
        }
        (!lines.is_empty()).then(|| lines.join("; "))
    }
}
