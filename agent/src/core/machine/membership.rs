//! Which licences are known here: one that nothing is owed of can be forgotten, and one that was never
//! known can be taken in by an answer that the server signed. Both stand in the ledger as notes.

use crate::core::{
    Core,
    book::{BatchState, LicenseNo, Name, NoteKind, Seq},
    clock::Moment,
    outcome::LicenseFound,
};
use serde_json::json;

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
        self.forget_names(no);
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
        let known = self.book.by_id(&subject.product, body.counter.id);
        let (device, limits) = (&subject.hardware_id, known.is_none());
        let opens = self.book.opens(&Name::of(subject));
        match known.map(|license| license.no) {
            Some(no) if opens.is_some_and(|opens| opens.licenses.contains(&no)) => return None,
            Some(no) => {
                let license = self.book.license_mut(no)?;
                license.devices.entry(device.clone()).or_default();
                license.refresh_at = now.mono;
                let is_fresh = false;
                let found = LicenseFound {
                    is_fresh,
                    ..found.clone()
                };
                self.point(now, &found, no);
            }
            None => {
                let no = self.learn_license(now, found, now.mono)?;
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
