//! Scenarios of the state machine, without I/O: facts in, orders out.

mod audit;
mod copies;
mod keys;
mod retold;
mod shared;
mod unknown;

use std::time::Duration;

use tally_shared::{
    limits::OverageSetting,
    time::Timestamp,
    units::Units,
    wire::{AddConsumption, ConsumptionEvent, ErrorCode, LicenseBody, Subject},
};

use crate::core::{
    Core, LateUsage, Policy, Rejected, UndecidablePolicy,
    book::{AppNo, BatchNo, Book, Contents, Copies, FindingKind, LicenseNo, Seq},
    chain::{self, Hash},
    clock::Moment,
    command::Command,
    event::{Event, KeyEcho, Prefix},
    link::NetworkMode,
    outcome::{LicenseFound, LookUpOutcome, SendOutcome},
    report::Conservation,
};

const SETTLE_WAIT: Duration = Duration::from_secs(30);
const SYNC: Duration = Duration::from_secs(5);

/// A core, and a licence on a server that is only what the test says of it.
struct World {
    core: Core,
    now: Moment,
    max: i64,
}

impl World {
    /// A licence with this limit is known, and the server can be reached.
    fn new(max: i64, key: KeyEcho) -> Self {
        let contents = Contents {
            licenses: vec![],
            names: vec![],
            accounts: vec![],
            lanes: vec![],
            batches: vec![],
            head: (Seq(0), Hash::ORIGIN),
            chain: chain::Key::new(b"key"),
            evidence: 0,
            last_batch: BatchNo(0),
            keeper: None,
            home: None,
            id: None,
            findings: vec![],
            copies: Copies::default(),
        };
        let time = Timestamp::parse("2026-11-23T12:00:00Z").unwrap();
        let now = Moment {
            time,
            proven: true,
            mono: Duration::from_secs(1),
        };
        let mut drawn = 0;
        let random = Box::new(move || {
            drawn += 1;
            drawn
        });
        let mut core = Core::new(
            Book::new(contents),
            policy(),
            random,
            now,
            ("server".to_owned(), "peer".to_owned()),
        );
        let mut world = Self {
            now,
            max,
            core: {
                core.book_mut().committed();
                core
            },
        };
        let found = world.found(0);
        world.core.learn(now, &found, now.mono, key);
        world.core.book_mut().committed();
        world
    }

    fn subject() -> Subject {
        Subject::by_key("p", "K", "h")
    }

    fn body(&self, total: i64) -> LicenseBody {
        let text = format!(
            r#"{{"id":1,"max_consumptions":{},"total_consumptions":{total},
            "allow_unlimited_consumptions":false,"allow_negative_consumptions":false,
            "allow_overages":false,"max_overages":0,"reset_consumption":false,
            "consumption_period":null,"license_type":"consumption","license_active":true,
            "license_enabled":true}}"#,
            self.max
        );
        serde_json::from_str(&text).unwrap()
    }

    fn found(&self, total: i64) -> LicenseFound {
        LicenseFound {
            subject: Self::subject(),
            body: self.body(total),
            is_fresh: true,
        }
    }

    fn record(&mut self, units: i64) -> Result<(), Rejected> {
        let request = AddConsumption {
            subject: Self::subject(),
            feature: None,
            units: Units::new(units),
            setting: OverageSetting::default(),
            event: ConsumptionEvent::Add,
        };
        let recorded = self.core.record(self.now, AppNo(1), &request).map(|_| ());
        self.core.book_mut().committed();
        recorded
    }

    fn pass(&mut self, time: Duration) {
        self.now.mono += time;
        self.now.time = self.now.time.plus(time);
    }

    fn tell(&mut self, event: Event) -> Vec<Command> {
        let commands = self.core.handle(self.now, event);
        self.core.book_mut().committed();
        let sums = self.sums();
        assert!(sums.holds(), "{sums:?}");
        commands
    }

    /// Waits for what is due and gives the batch that is sent.
    #[track_caller]
    fn sent(&mut self) -> (BatchNo, Option<uuid::Uuid>, Vec<u8>) {
        let wakeup = self.core.next_wakeup(self.now).unwrap();
        self.pass(wakeup.saturating_sub(self.now.mono));
        match self.tell(Event::Tick).as_slice() {
            [
                Command::Send {
                    batch,
                    key,
                    request,
                    ..
                },
            ] => (*batch, key.as_ref().map(|key| key.id), request.to_json()),
            other => panic!("a batch should be sent, not {other:?}"),
        }
    }

    fn answer(&mut self, batch: BatchNo, outcome: SendOutcome, key: KeyEcho) -> Vec<Command> {
        self.tell(Event::Answered {
            batch,
            outcome,
            key,
        })
    }

    /// The answer to a batch is lost, and the total is read at once.
    #[track_caller]
    fn lose(&mut self, batch: BatchNo) {
        let asked = self.answer(batch, lost(), KeyEcho::NoAnswer);
        assert!(
            matches!(asked.as_slice(), [Command::LookUp { .. }]),
            "{asked:?}"
        );
    }

    /// Waits until the licence is read.
    #[track_caller]
    fn reads(&mut self) {
        let wakeup = self.core.next_wakeup(self.now).unwrap();
        self.pass(wakeup.saturating_sub(self.now.mono));
        let asked = self.tell(Event::Tick);
        assert!(
            matches!(asked.as_slice(), [Command::LookUp { .. }]),
            "{asked:?}"
        );
    }

    fn look_up(&mut self, total: i64) -> Vec<Command> {
        let found = self.found(total);
        self.looked_up(found, KeyEcho::NoAnswer)
    }

    fn look_up_echoing(&mut self, total: i64, key: KeyEcho) -> Vec<Command> {
        let found = self.found(total);
        self.looked_up(found, key)
    }

    /// A cache answers.
    fn look_up_stale(&mut self, total: i64) -> Vec<Command> {
        let found = LicenseFound {
            is_fresh: false,
            ..self.found(total)
        };
        self.looked_up(found, KeyEcho::NoAnswer)
    }

    fn looked_up(&mut self, found: LicenseFound, key: KeyEcho) -> Vec<Command> {
        self.tell(Event::LookedUp {
            license: LicenseNo(1),
            hardware_id: "h".to_owned(),
            outcome: LookUpOutcome::Found(Box::new(found)),
            key,
        })
    }

    /// The kinds and units of the findings that nobody has seen.
    fn findings(&self) -> Vec<(FindingKind, i64)> {
        let findings = self.core.book().findings().iter();
        findings
            .map(|finding| (finding.kind, finding.units.get()))
            .collect()
    }

    fn applied(&self, total: i64) -> SendOutcome {
        SendOutcome::Applied(
            self.body(total)
                .counter
                .standing(Timestamp::default())
                .into(),
        )
    }

    fn sums(&self) -> Conservation {
        self.core.status(self.now).licenses[0].conservation
    }
}

fn policy() -> Policy {
    Policy {
        sync_interval: SYNC,
        settle_wait: SETTLE_WAIT,
        refresh_interval: Duration::from_hours(1),
        undecidable: UndecidablePolicy::Hold,
        late_usage: LateUsage::Report,
    }
}

fn lost() -> SendOutcome {
    SendOutcome::Unknown("lost".to_owned(), None)
}

#[test]
fn rows_wait_for_company_and_share_a_request() {
    let mut world = World::new(100, KeyEcho::Echoed);
    world.record(2).unwrap();
    world.record(3).unwrap();
    assert_eq!(
        world.core.next_wakeup(world.now),
        Some(world.now.mono + SYNC)
    );
    assert!(world.tell(Event::Tick).is_empty(), "nothing is due yet");
    let (batch, _, request) = world.sent();
    assert!(
        String::from_utf8(request)
            .unwrap()
            .contains(r#""consumptions":5"#)
    );
    assert_eq!(world.sums().in_flight, 5);
    let outcome = world.applied(5);
    world.answer(batch, outcome, KeyEcho::Echoed);
    assert_eq!((world.sums().settled, world.sums().pending), (5, 0));
}

#[test]
fn other_settings_hold_for_what_waits_already() {
    let mut world = World::new(100, KeyEcho::Echoed);
    let (refresh_interval, sync_interval) = (Duration::from_mins(1), Duration::from_secs(1));
    let wait = |world: &World| {
        let at = world.core.next_wakeup(world.now).unwrap();
        at.saturating_sub(world.now.mono)
    };
    assert!(wait(&world) > refresh_interval);
    let faster = Policy {
        refresh_interval,
        ..policy()
    };
    world.core.set_policy(world.now, faster);
    assert_eq!(wait(&world), refresh_interval);
    world.record(2).unwrap();
    assert_eq!(wait(&world), SYNC);
    let faster = Policy {
        sync_interval,
        ..policy()
    };
    world.core.set_policy(world.now, faster);
    assert_eq!(wait(&world), sync_interval);
}

#[test]
fn what_does_not_fit_is_split_and_the_rest_is_held_until_there_is_room() {
    let mut world = World::new(10, KeyEcho::Echoed);
    world.record(4).unwrap();
    world.record(4).unwrap();
    let (batch, key, _) = world.sent();
    world.answer(batch, SendOutcome::RefusedLimit, KeyEcho::Echoed);
    assert_eq!(world.sums().held, 8);
    let asked = world.look_up(5);
    let [Command::FindPrefix { batch, room, .. }] = asked.as_slice() else {
        panic!("the prefix should be found, not {asked:?}");
    };
    assert_eq!(*room, Some(5));
    let prefix = Some(Prefix {
        last: Seq(1),
        rows: 1,
        units: Units::new(4),
        hash: Hash([1; 32]),
        next: Some(Seq(2)),
    });
    let sent = world.tell(Event::PrefixFound {
        batch: *batch,
        room: *room,
        prefix,
    });
    let [
        Command::Send {
            batch,
            key: new_key,
            ..
        },
    ] = sent.as_slice()
    else {
        panic!("the prefix should be sent, not {sent:?}");
    };
    let new_key = new_key.as_ref().map(|key| key.id);
    assert_ne!(new_key, key, "the old id has its answer");
    let outcome = world.applied(9);
    world.answer(*batch, outcome, KeyEcho::Echoed);
    let held = Conservation {
        recorded: 8,
        settled: 4,
        held: 4,
        ..Conservation::default()
    };
    assert_eq!(world.sums(), held);
    world.max = 100;
    assert!(matches!(
        world.look_up(9).as_slice(),
        [Command::FindPrefix { .. }]
    ));
}

#[test]
fn a_refused_licence_is_refused_locally_too_and_asked_about_again() {
    let mut world = World::new(100, KeyEcho::Echoed);
    world.record(5).unwrap();
    let (batch, _, _) = world.sent();
    let refused = SendOutcome::RefusedLicense(ErrorCode::LicenseNotEnabled);
    world.answer(batch, refused, KeyEcho::Echoed);
    assert_eq!(world.sums().held, 5);
    let Err(Rejected::Refused(error)) = world.record(1) else {
        panic!("it should be refused")
    };
    assert_eq!(error.code, ErrorCode::LicenseNotEnabled);
    assert!(matches!(
        world.tell(Event::Nudge).as_slice(),
        [Command::LookUp { .. }]
    ));
    assert!(matches!(
        world.look_up(0).as_slice(),
        [Command::Send { .. }]
    ));
}

#[test]
fn a_wrong_date_is_tried_again_once_and_then_rests() {
    let mut world = World::new(100, KeyEcho::Echoed);
    world.record(5).unwrap();
    let (batch, _, _) = world.sent();
    let wrong = || SendOutcome::RefusedCredentials(ErrorCode::DateHeaderDiff);
    let again = world.answer(batch, wrong(), KeyEcho::Echoed);
    assert!(
        matches!(again.as_slice(), [Command::Send { .. }]),
        "{again:?}"
    );
    assert!(world.answer(batch, wrong(), KeyEcho::Echoed).is_empty());
    assert_eq!(world.core.link().stopped(), Some(ErrorCode::DateHeaderDiff));
    world.record(1).unwrap();
    assert_eq!(world.sums().pending, 6);
}

#[test]
fn a_server_that_is_not_reached_is_tried_by_one_request_at_a_time() {
    let mut world = World::new(100, KeyEcho::Echoed);
    world.record(5).unwrap();
    let (batch, _, _) = world.sent();
    let gone = SendOutcome::Unreached("refused".to_owned());
    assert!(world.answer(batch, gone, KeyEcho::NoAnswer).is_empty());
    assert!(!world.core.link().is_up());
    assert_eq!(world.sums().pending, 5);
    let (again, _, _) = world.sent();
    assert_eq!(again, batch);
    assert_eq!(
        world.core.next_wakeup(world.now),
        None,
        "it takes an answer"
    );
}

#[test]
fn switched_off_nothing_is_sent_and_nothing_is_waited_for() {
    let mut world = World::new(100, KeyEcho::Echoed);
    world.record(5).unwrap();
    assert!(
        world
            .tell(Event::SetNetwork(NetworkMode::Offline))
            .is_empty()
    );
    world.pass(SYNC);
    assert!(world.tell(Event::Tick).is_empty());
    assert_eq!(world.core.next_wakeup(world.now), None);
    assert_eq!(world.tell(Event::SetNetwork(NetworkMode::Online)).len(), 1);
}

#[test]
fn what_could_not_be_committed_never_happened() {
    let mut world = World::new(100, KeyEcho::Echoed);
    world.record(5).unwrap();
    world.pass(SYNC);
    let commands = world.core.handle(world.now, Event::Tick);
    assert_eq!(commands.len(), 1);
    world.core.roll_back(&commands);
    assert_eq!(world.sums().pending, 5);
    let (_, _, request) = world.sent();
    assert!(
        String::from_utf8(request)
            .unwrap()
            .contains(r#""consumptions":5"#)
    );
}

#[test]
fn a_server_that_nothing_is_owed_to_another_for_is_taken_though_the_disk_fails_at_first() {
    let mut world = World::new(100, KeyEcho::Echoed);
    world.core.server = "another".to_owned();
    world.core.resume(world.now);
    world.core.roll_back(&[]);
    world.record(5).unwrap();
    assert_eq!(world.core.owed_to(), None);
}
