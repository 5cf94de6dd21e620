//! What follows from a doubt about the ledger: nothing is sent on the word of what it concerns.

use std::collections::BTreeSet;

use serde_json::json;
use tally_shared::limits::Standing;

use crate::core::{
    Core,
    book::{AccountNo, Batch, BatchNo, BatchState, Hold, NoteKind, Sealed},
    clock::Moment,
    doubt::{Doubt, Places},
};

impl Core {
    /// Takes a doubt into the ledger, and sends nothing more on the word of what it concerns.
    ///
    /// Where the ledger may be an older one, each batch that it owes may have been counted already,
    /// under an id that is not known any more: only a total that did not move, or moved by exactly its
    /// units, lets it go on. What is known to be changed waits for a person.
    pub(super) fn doubt_ledger(&mut self, now: Moment, doubt: &Doubt) {
        let newest = self.book.head().0;
        let mut missing: Vec<Places> = Vec::new();
        let mut changed: &[Places] = &[];
        match doubt {
            Doubt::KeyReplaced => {
                // Written again with that, the accounts are sealed with the new key.
                self.distrust_all(now);
            }
            Doubt::MarkLost | Doubt::Rewritten { .. } => self.distrust_all(now),
            Doubt::OlderCopy { marked, .. } => {
                self.distrust_all(now);
                if newest < *marked {
                    // Places that were given once are not given again.
                    missing.push((newest.0 + 1, marked.0));
                    self.book.skip_to(*marked);
                }
            }
            Doubt::Copied { written, .. } => self.hold_copies(now, *written),
            Doubt::Changed {
                missing: gone,
                changed: other,
                accounts,
            } => {
                missing.clone_from(gone);
                changed = other;
                self.hold_touched(now, (gone, other), accounts);
            }
        }
        let mut body = json!({
            "what": doubt.as_str(),
            "newest": newest,
            "marked": match doubt {
                Doubt::OlderCopy { marked, .. } | Doubt::Rewritten { marked } => Some(marked),
                _ => None,
            },
            "missing_places": missing,
            "changed_rows": changed,
            "accounts": match doubt {
                Doubt::Changed { accounts, .. } => accounts.as_slice(),
                _ => &[],
            },
        });
        if let Doubt::Copied {
            differs,
            host,
            path,
            written,
        } = doubt
        {
            body["differs"] = json!(differs);
            body["host"] = json!(host);
            body["path"] = json!(path);
            body["written_at"] = json!(written.0);
            tracing::error!(
                %body,
                "this ledger is a copy ({}): say whether the original lives on, `tally device new`, or is gone, \
                 `tally device moved`",
                differs.as_words()
            );
        } else {
            tracing::error!(
                what = doubt.as_str(),
                %body,
                "the ledger was changed behind the agent's back"
            );
        }
        self.book
            .add_note(now, NoteKind::Evidence, body.to_string());
    }

    /// One batch of an account can be judged by its total; a person judges the others.
    fn distrust_all(&mut self, now: Moment) {
        self.distrust_totals();
        let mut judged: BTreeSet<AccountNo> = BTreeSet::new();
        for (no, account) in self.owed() {
            let state = if judged.insert(account) {
                BatchState::Unknown { look_at: now.mono }
            } else {
                BatchState::Held(Hold::Undecidable)
            };
            self.distrust(now, no, state);
        }
    }

    fn hold_touched(
        &mut self,
        now: Moment,
        (missing, changed): (&[Places], &[Places]),
        accounts: &[i64],
    ) {
        let touched: Vec<BatchNo> = self
            .book
            .batches()
            .filter(|batch| {
                let mut places = missing.iter().chain(changed);
                places.any(|found| found.0 <= batch.last.0 && batch.first.0 <= found.1)
                    || accounts.contains(&batch.account.0)
            })
            .map(|batch| batch.no)
            .collect();
        for no in touched {
            self.distrust(now, no, BatchState::Held(Hold::Undecidable));
        }
    }

    /// What is owed, and does not wait for a person anyway.
    pub(super) fn owed(&self) -> Vec<(BatchNo, AccountNo)> {
        let waits = |batch: &&Batch| {
            !matches!(
                batch.state,
                BatchState::Held(Hold::Undecidable | Hold::Copy)
            )
        };
        let owed = self.book.batches().filter(waits);
        owed.map(|batch| (batch.no, batch.account)).collect()
    }

    /// Nothing is known any more of what became of a batch.
    fn distrust(&mut self, now: Moment, no: BatchNo, state: BatchState) {
        let Some(batch) = self.book.batch(no) else {
            return;
        };
        let standing: Option<Standing> = self
            .book
            .accounts
            .get(&batch.account)
            .map(|account| account.standing);
        let id = self.book.id_of(batch);
        let readings = self.readings(now);
        let Some(batch) = self.book.batch_mut(no) else {
            return;
        };
        if let (None, Some(id), Some(standing)) = (&batch.sealed, id, standing) {
            batch.sealed = Some(Sealed::new(now, id, standing));
        }
        if let Some(sealed) = &mut batch.sealed {
            // Its key is not trusted: what was counted may have been under another.
            sealed.since = None;
            sealed.at_proven = false;
            sealed.peer = None;
            sealed.doubtful = true;
            // Nor is known how often it was sent.
            sealed.attempts = 0;
            sealed.readings = readings;
        }
        batch.closed = true;
        batch.held_at = matches!(state, BatchState::Held(_)).then_some(now.time);
        batch.state = state;
    }
}
