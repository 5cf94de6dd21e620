//! Which licences the device knows: they are added, forgotten, and taken in by an answer on file.

use std::time::Duration;

use tally_agent::{
    core::outcome::LicenseFound,
    ledger::engine::{Job, Membership, lock},
};
use tally_shared::wire::{Holder, LicenseBody, Subject};
use tokio::sync::oneshot;

use super::{
    asked::{Naming, Wish},
    server::{self, PRODUCT, USER},
    world::{Failure, HARDWARE, World},
};

impl World {
    /// The agent asks the server for a licence, and learns it.
    pub(super) fn add_license(&mut self, license: usize) -> Result<(), Failure> {
        let subject = self.subject(license);
        self.add_named(subject)
    }

    /// The agent asks the server for a licence by this name, and learns it.
    pub(super) fn add_named(&mut self, subject: Subject) -> Result<(), Failure> {
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
        if let Some((license, _)) = self.place_of(found.body.counter.id, None) {
            self.life.forgotten.remove(&license);
        }
        self.heard_of(&found, answer.made_at);
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
        let id = self.server.store.licenses[license].id;
        let book = self.device.engine().map(|engine| engine.core().book());
        let known = book.and_then(|book| {
            let mut licenses = book.licenses();
            licenses.find(|known| known.id == id && !known.devices.is_empty())
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
            let mut book = self.device.engine().into_iter();
            let is_known_otherwise = book.any(|engine| {
                let mut licenses = engine.core().book().licenses();
                licenses.any(|known| known.id == id && !known.devices.is_empty())
            });
            if !is_known_otherwise {
                self.life.forgotten.insert(license);
                // Nothing is read of it any more: a fall that was read once is not read again.
                for fallen in &mut self.fallen {
                    if fallen.place.0 == license {
                        fallen.seen = None;
                    }
                }
            }
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
        if let Some((license, _)) = self.place_of(body.counter.id, None) {
            self.life.forgotten.remove(&license);
        }
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
        self.subject_of(&Wish::of((license, 0), 0))
    }

    /// What an application calls a licence.
    pub(super) fn subject_of(&self, wish: &Wish) -> Subject {
        let license = &self.server.store.licenses[wish.license];
        let holder = match wish.naming {
            Naming::Key | Naming::KeyAndId => Holder::LicenseKey(license.key.clone()),
            Naming::User | Naming::UserAndId => Holder::Username(USER.to_owned()),
        };
        let has_id = matches!(wish.naming, Naming::KeyAndId | Naming::UserAndId);
        Subject {
            product: PRODUCT.to_owned(),
            holder,
            license_id: has_id.then_some(license.id),
            hardware_id: HARDWARE[wish.device].to_owned(),
        }
    }

    /// Notes which licences all names open now.
    pub(super) fn note_names(&mut self) {
        let all = 0..self.server.store.licenses.len();
        let wishes = all.flat_map(|license| {
            let naming = Naming::ALL.into_iter();
            naming.flat_map(move |naming| {
                (0..HARDWARE.len()).map(move |device| Wish {
                    naming,
                    device,
                    ..Wish::of((license, 0), 0)
                })
            })
        });
        let subjects: Vec<Subject> = wishes.map(|wish| self.subject_of(&wish)).collect();
        self.server.note_names(&subjects);
    }
}
