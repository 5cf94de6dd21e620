//! A small ledger with everything in it, to be damaged.

use std::{collections::BTreeMap, path::Path, time::Duration};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use rusqlite::Connection;
use tally_shared::{
    limits::OverageSetting,
    time::Timestamp,
    units::{Total, Units},
    wire::{AddConsumption, ConsumptionEvent, LicenseBody, Subject},
};

use crate::{
    core::{
        Core, Decision, LateUsage, Policy, UndecidablePolicy,
        book::{AppNo, Book},
        chain,
        clock::{Moment, Reading},
        command::Command,
        event::{Event, KeyEcho},
        outcome::{LicenseFound, SendOutcome},
    },
    deps::Clocks,
    ledger::{
        recovery::Guard,
        retention::{self, Sweep},
        schema, store,
    },
};

const LICENSES: i64 = 3;

/// A ledger with everything in it, and a server that counts right.
pub(super) struct World {
    core: Core,
    pub(super) connection: Connection,
    now: Moment,
    app: AppNo,
    /// What each licence was granted, and what the server has counted of it.
    pub(super) granted: BTreeMap<String, i64>,
    pub(super) counted: BTreeMap<String, i64>,
}

/// What the chain is keyed with.
pub(super) fn key() -> chain::Key {
    chain::Key::new(b"key")
}

/// What a ledger in this folder is compared with.
pub(super) fn guard(folder: &Path) -> Guard {
    Guard {
        key: key(),
        mark: folder.join("ledger.mark"),
    }
}

pub(super) struct FixedClocks;

impl Clocks for FixedClocks {
    fn reading(&self) -> Reading {
        Reading {
            wall: Timestamp::parse("2026-11-24T12:00:00Z").unwrap(),
            mono: Duration::from_hours(24),
            boot: "a".into(),
        }
    }
}

impl World {
    pub(super) fn new(path: &Path) -> Self {
        let connection = schema::open(path).unwrap();
        let app = store::app_no(&connection, "inspector").unwrap();
        store::write_chain_key(&connection, &key().fingerprint()).unwrap();
        store::app_no(&connection, "other").unwrap();
        let policy = Policy {
            sync_interval: Duration::from_secs(5),
            settle_wait: Duration::from_secs(30),
            refresh_interval: Duration::from_hours(1),
            undecidable: UndecidablePolicy::Hold,
            late_usage: LateUsage::Report,
        };
        let now = Moment {
            time: Timestamp::parse("2026-11-23T12:00:00Z").unwrap(),
            proven: true,
            mono: Duration::from_secs(1),
        };
        let mut random = StdRng::seed_from_u64(1);
        let random = Box::new(move || random.next_u64());
        let book = Book::new(store::load(&connection, &key()).unwrap());
        let mut world = Self {
            core: Core::new(
                book,
                policy,
                random,
                now,
                ("server".to_owned(), "peer".to_owned()),
            ),
            connection,
            now,
            app,
            granted: BTreeMap::new(),
            counted: BTreeMap::new(),
        };
        for no in 1..=LICENSES {
            let found = LicenseFound {
                subject: subject(no),
                body: body(no),
                is_fresh: true,
            };
            world.core.learn(now, &found, now.mono, KeyEcho::Echoed);
        }
        world.commit();
        world
    }

    fn commit(&mut self) {
        let tx = self.connection.transaction().unwrap();
        store::write_changes(&tx, self.core.book()).unwrap();
        tx.commit().unwrap();
        self.core.book_mut().committed();
    }

    fn record(&mut self, license: i64, units: i64) {
        let request = AddConsumption {
            subject: subject(license),
            feature: None,
            units: Units::new(units),
            setting: OverageSetting::default(),
            event: ConsumptionEvent::Add,
        };
        self.core.record(self.now, self.app, &request).unwrap();
        *self.granted.entry(format!("K{license}")).or_default() += units;
        self.commit();
    }

    /// Sends what is due; `answer` says whether the server answers for that licence.
    fn sync(&mut self, answer: impl Fn(&str) -> bool) {
        self.now.mono += Duration::from_secs(10);
        self.now.time = self.now.time.plus(Duration::from_secs(10));
        let mut commands = self.core.handle(self.now, Event::Tick);
        self.commit();
        while let Some(command) = commands.pop() {
            let Command::Send { batch, request, .. } = command else {
                continue;
            };
            let key = request.subject.holder.value().to_owned();
            let outcome = if answer(&key) {
                let counted = self.counted.entry(key.clone()).or_default();
                *counted += request.units.get();
                let license: i64 = key.trim_start_matches('K').parse().unwrap();
                let mut standing = body(license).counter.standing(self.now.time);
                standing.total = Total::new(*counted);
                SendOutcome::Applied(standing.into())
            } else {
                SendOutcome::RefusedLimit
            };
            let key = KeyEcho::Echoed;
            let event = Event::Answered {
                batch,
                outcome,
                key,
            };
            commands.extend(self.core.handle(self.now, event));
            self.commit();
        }
    }

    /// Settled rows, held ones and open ones; the log is begun anew before a round.
    pub(super) fn fill_and_restart_log(&mut self, restart: i64) {
        for round in 0..8 {
            if round == restart {
                let sql = "PRAGMA wal_checkpoint(RESTART)";
                self.connection.query_row(sql, [], |_| Ok(())).unwrap();
            }
            for index in 0..12 {
                for license in 1..=LICENSES {
                    self.record(license, 1 + (index + license) % 4);
                }
            }
            self.sync(|key| round < 4 || key != "K3");
        }
        for license in 1..=LICENSES {
            self.record(license, 5);
        }
    }

    /// Settled rows of all licences, of which the first is forgotten then; the others go on.
    pub(super) fn fill_and_forget(&mut self) {
        for _ in 0..3 {
            for index in 0..12 {
                for license in 1..=LICENSES {
                    self.record(license, 1 + (index + license) % 4);
                }
            }
            self.sync(|_| true);
        }
        let no = self.core.book().find(&subject(1)).unwrap().no;
        self.core.forget(self.now, no, Some("sold")).unwrap();
        self.commit();
        for license in 2..=LICENSES {
            self.record(license, 5);
        }
    }

    /// Batches in all states, decisions, folded rows; the newest part only in the log.
    pub(super) fn fill(&mut self) {
        for round in 0..8 {
            for index in 0..12 {
                for license in 1..=LICENSES {
                    self.record(license, 1 + (index + license) % 4);
                }
            }
            // From the fourth round on, the last licence's limit is reached.
            self.sync(|key| round < 4 || key != "K3");
            if round == 1 {
                let cutoff = self.now.time.plus(Duration::from_secs(1));
                let mut sweep = Sweep::default();
                retention::fold(
                    &mut self.connection,
                    &mut sweep,
                    cutoff,
                    &key(),
                    &|_| Ok(()),
                )
                .unwrap();
            }
            if round == 5 {
                let held = self.core.book().batches().next().unwrap();
                let (no, units) = (held.no, held.units.get());
                let waived =
                    self.core
                        .resolve(self.now, no, Decision::Waive, Some("a demonstration"));
                waived.unwrap();
                *self.granted.get_mut("K3").unwrap() -= units;
                self.commit();
                let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
                self.connection.query_row(sql, [], |_| Ok(())).unwrap();
            }
        }
        for license in 1..=LICENSES {
            self.record(license, 5);
        }
    }
}

fn subject(license: i64) -> Subject {
    Subject::by_key("p", &format!("K{license}"), "device")
}

fn body(license: i64) -> LicenseBody {
    let text = format!(
        r#"{{"id":{license},"max_consumptions":100000,"total_consumptions":0,
        "allow_unlimited_consumptions":false,"allow_negative_consumptions":false,
        "allow_overages":false,"max_overages":0,"reset_consumption":true,
        "consumption_period":"monthly","license_type":"consumption","license_active":true,
        "license_enabled":true}}"#
    );
    serde_json::from_str(&text).unwrap()
}
