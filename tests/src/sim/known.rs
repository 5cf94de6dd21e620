//! Which licences the device knows: they are added, forgotten, and taken in by an answer on file.

use std::time::Duration;

use tally_agent::{
    core::outcome::LicenseFound,
    ledger::engine::{Job, Membership, lock},
};
use tally_shared::wire::{LicenseBody, Subject};
use tokio::sync::oneshot;

use super::{
    server::{self, PRODUCT},
    world::{Failure, HARDWARE, World},
};

impl World {
    /// The agent asks the server for a licence, and learns it.
    pub(super) fn add_license(&mut self, license: usize) -> Result<(), Failure> {
        let subject = self.subject(license);
        let answer = self
            .server
            .check(self.now, &subject, server::date(self.now));
        let Ok(body) = serde_json::from_slice::<LicenseBody>(&answer.raw.body) else {
            return Ok(());
        };
        let found = LicenseFound {
            subject,
            body,
            is_fresh: true,
        };
        let Some(engine) = self.device.engine() else {
            return Ok(());
        };
        let asked_at = engine.now().mono;
        lock(&engine.clock()).correct(answer.date, Duration::ZERO, asked_at, false);
        self.heard_of(&found, answer.made_at);
        self.forgotten.remove(&license);
        let (reply, _) = oneshot::channel();
        self.turn(vec![Job::Learn(
            Box::new(found),
            asked_at,
            answer.echo,
            reply,
        )])
    }

    /// Somebody takes a licence off the device. The agent must refuse it while anything of it is owed, which is
    /// looked at after every step.
    pub(super) fn forget(&mut self, license: usize) -> Result<(), Failure> {
        let key = &self.server.licenses[license].key;
        let book = self.device.engine().map(|engine| engine.core().book());
        let known = book.and_then(|book| {
            let mut licenses = book.licenses();
            licenses.find(|known| known.holder.value() == key)
        });
        let Some(no) = known.map(|known| known.no) else {
            return Ok(());
        };
        let is_killed = self.kill_in_turn;
        let (reply, mut answer) = oneshot::channel();
        self.turn(vec![Job::Membership(Membership::Forget(no, None), reply)])?;
        let answer = answer.try_recv().ok().filter(|_| !is_killed);
        self.note(|| format!("   forget licence {license}: {answer:?}"));
        if matches!(answer, Some(Ok(_))) {
            self.forgotten.insert(license);
            self.times_forgotten += 1;
        }
        Ok(())
    }

    /// Somebody imports the answer about a licence that is on file, or one that the server signs now.
    pub(super) fn take_in(&mut self, license: usize, now: bool) -> Result<(), Failure> {
        if now {
            self.file(license);
        }
        let Some(body) = self.on_file.get(&license).cloned() else {
            return Ok(());
        };
        let subject = self.subject(license);
        self.forgotten.remove(&license);
        let (reply, _) = oneshot::channel();
        let found = Box::new(LicenseFound {
            subject,
            body,
            is_fresh: false,
        });
        self.turn(vec![Job::Membership(Membership::TakeIn(found), reply)])
    }

    /// What the server says of a licence is kept as a file.
    pub(super) fn file(&mut self, license: usize) {
        let subject = self.subject(license);
        let answer = self
            .server
            .check(self.now, &subject, server::date(self.now));
        if let Ok(body) = serde_json::from_slice(&answer.raw.body) {
            self.on_file.insert(license, body);
        }
    }

    fn subject(&self, license: usize) -> Subject {
        Subject::by_key(PRODUCT, &self.server.licenses[license].key, HARDWARE)
    }
}
