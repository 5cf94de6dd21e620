//! Scenarios of names: users with several licences, keys that move, and ledgers that have several entries of one licence.

mod entries;

use std::{collections::BTreeMap, time::Duration};

use tally_shared::{
    limits::OverageSetting,
    time::Timestamp,
    units::Units,
    wire::{AddConsumption, ConsumptionEvent, ErrorCode, Holder, LicenseBody, Subject},
};

use crate::core::{
    Core, LateUsage, Policy, Rejected, UndecidablePolicy,
    book::{AppNo, BatchNo, Book, Contents, Copies, Seq},
    chain::{self, Hash},
    clock::Moment,
    command::Command,
    event::{Event, KeyEcho},
    link::NetworkMode,
    outcome::{Counted, LicenseFound, LookUpOutcome, SendOutcome},
};

const USER: &str = "u@x";
const DEVICE: &str = "h";

/// A licence on the server.
struct Held {
    names: Vec<Holder>,
    devices: Vec<&'static str>,
    total: i64,
    refused: Option<ErrorCode>,
}

/// A server as the contract describes it, and a core.
struct World {
    core: Core,
    now: Moment,
    server: BTreeMap<i64, Held>,
    /// Whether the server goes by the name alone, whatever id a request has.
    ignores_ids: bool,
    /// What the server was asked: the id, where there was one, and whether it was a batch.
    asked: Vec<(Holder, Option<i64>, bool)>,
}

fn user() -> Holder {
    Holder::Username(USER.to_owned())
}

fn key(key: &str) -> Holder {
    Holder::LicenseKey(key.to_owned())
}

fn subject(holder: &Holder, license_id: Option<i64>, device: &str) -> Subject {
    Subject {
        product: "p".to_owned(),
        holder: holder.clone(),
        license_id,
        hardware_id: device.to_owned(),
    }
}

fn body(id: i64, total: i64) -> LicenseBody {
    let text = format!(
        r#"{{"id":{id},"max_consumptions":10,"total_consumptions":{total},
        "allow_unlimited_consumptions":false,"allow_negative_consumptions":false,
        "allow_overages":false,"max_overages":0,"reset_consumption":false,
        "consumption_period":null,"license_type":"consumption","license_active":true,
        "license_enabled":true}}"#
    );
    serde_json::from_str(&text).unwrap()
}

fn contents() -> Contents {
    Contents {
        copies: Copies::default(),
        licenses: vec![],
        names: vec![],
        accounts: vec![],
        lanes: vec![],
        batches: vec![],
        head: (Seq(0), Hash::ORIGIN),
        chain: chain::Key::new(b"key"),
        evidence: 0,
        last_batch: BatchNo(0),
        keeper: Some("peer".to_owned()),
        home: None,
        id: None,
        findings: vec![],
    }
}

impl World {
    fn new(server: Vec<(i64, Held)>) -> Self {
        Self::on(contents(), server)
    }

    fn on(contents: Contents, server: Vec<(i64, Held)>) -> Self {
        let now = Moment {
            time: Timestamp::parse("2026-11-23T12:00:00Z").unwrap(),
            proven: true,
            mono: Duration::from_secs(1),
        };
        let policy = Policy {
            sync_interval: Duration::from_secs(5),
            settle_wait: Duration::from_secs(30),
            refresh_interval: Duration::from_hours(1),
            undecidable: UndecidablePolicy::Hold,
            late_usage: LateUsage::Report,
        };
        let mut state: u64 = 1;
        let random = Box::new(move || {
            // SplitMix64.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed ^ (mixed >> 31)
        });
        let server_and_peer = ("server".to_owned(), "peer".to_owned());
        let mut core = Core::new(Book::new(contents), policy, random, now, server_and_peer);
        core.book_mut().committed();
        Self {
            core,
            now,
            server: server.into_iter().collect(),
            ignores_ids: false,
            asked: vec![],
        }
    }

    /// The licence that the server takes for a request: of several, the lowest that has the device.
    fn meant(&mut self, subject: &Subject) -> Result<i64, ErrorCode> {
        let id = subject.license_id.filter(|_| !self.ignores_ids);
        let device = subject.hardware_id.as_str();
        let mut named = self
            .server
            .iter()
            .filter(|(no, held)| {
                held.names.contains(&subject.holder) && id.is_none_or(|id| id == **no)
            })
            .peekable();
        named.peek().ok_or(ErrorCode::LicenseNotFound)?;
        let (no, held) = named
            .find(|(_, held)| held.devices.contains(&device))
            .ok_or(ErrorCode::DeviceNotFound)?;
        held.refused.map_or(Ok(*no), Err)
    }

    fn check(&mut self, subject: &Subject) -> LookUpOutcome {
        self.asked
            .push((subject.holder.clone(), subject.license_id, false));
        match self.meant(subject) {
            Ok(no) => LookUpOutcome::Found(Box::new(LicenseFound {
                subject: subject.clone(),
                body: body(no, self.server[&no].total),
                is_fresh: true,
            })),
            Err(code) => LookUpOutcome::Refused(code, "as the contract says".to_owned()),
        }
    }

    fn count(&mut self, request: &AddConsumption) -> SendOutcome {
        let subject = &request.subject;
        self.asked
            .push((subject.holder.clone(), subject.license_id, true));
        match self.meant(subject) {
            Ok(no) => {
                let held = self.server.get_mut(&no).unwrap();
                let total = held.total + request.units.get();
                if total > 10 {
                    return SendOutcome::RefusedLimit;
                }
                held.total = total;
                SendOutcome::Applied(Counted {
                    standing: body(no, total).counter.standing(Timestamp::default()),
                    pool: None,
                })
            }
            Err(code) => SendOutcome::RefusedLicense(code),
        }
    }

    /// Carries orders out until nothing more is due.
    fn drive(&mut self, mut commands: Vec<Command>) {
        let mut left = 1000;
        while let Some(command) = commands.pop() {
            left -= 1;
            assert!(left > 0, "a storm of requests");
            let event = match command {
                Command::Send { batch, request, .. } => Event::Answered {
                    batch,
                    outcome: self.count(&request),
                    key: KeyEcho::New,
                },
                Command::LookUp { license, subject } => Event::LookedUp {
                    license,
                    outcome: self.check(&subject),
                    hardware_id: subject.hardware_id,
                    key: KeyEcho::Echoed,
                },
                Command::FindPrefix { .. } => continue,
            };
            commands.extend(self.tell(event));
        }
    }

    fn tell(&mut self, event: Event) -> Vec<Command> {
        let commands = self.core.handle(self.now, event);
        self.core.book_mut().committed();
        let status = self.core.status(self.now);
        for license in status.licenses {
            assert!(license.conservation.holds(), "{license:?}");
        }
        commands
    }

    /// Lets time pass, and carries out what becomes due. Returns how many requests that were.
    fn pass(&mut self, time: Duration) -> usize {
        let (before, end) = (self.asked.len(), self.now.mono + time);
        loop {
            let commands = self.tell(Event::Tick);
            self.drive(commands);
            let next = self.core.next_wakeup(self.now);
            let Some(next) = next.filter(|next| *next <= end) else {
                break;
            };
            self.wait_until(next.max(self.now.mono + Duration::from_millis(5)));
            assert!(
                self.asked.len() - before < 1000,
                "a storm of requests: {:?} {:?}",
                &self.asked[self.asked.len() - 6..],
                self.now.mono
            );
        }
        self.wait_until(end);
        self.asked.len() - before
    }

    fn wait_until(&mut self, mono: Duration) {
        self.now.time = self.now.time.plus(mono.saturating_sub(self.now.mono));
        self.now.mono = mono.max(self.now.mono);
    }

    /// An application's request: the server is asked where the agent does not know.
    fn add(&mut self, subject: &Subject, units: i64) -> Result<(), Rejected> {
        match self.record(subject, units) {
            Err(Rejected::Unknown) => match self.check(subject) {
                LookUpOutcome::Found(found) => {
                    self.core
                        .learn(self.now, &found, self.now.mono, KeyEcho::Echoed);
                    self.core.book_mut().committed();
                    self.record(subject, units)
                }
                _ => Err(Rejected::Unknown),
            },
            result => result,
        }
    }

    fn record(&mut self, subject: &Subject, units: i64) -> Result<(), Rejected> {
        let request = AddConsumption {
            subject: subject.clone(),
            feature: None,
            units: Units::new(units),
            setting: OverageSetting::default(),
            event: ConsumptionEvent::Add,
        };
        let recorded = self.core.record(self.now, AppNo(1), &request).map(|_| ());
        self.core.book_mut().committed();
        recorded
    }

    fn totals(&self) -> Vec<(i64, i64)> {
        let totals = self.server.iter().map(|(id, held)| (*id, held.total));
        totals.collect()
    }

    fn known(&self) -> Vec<i64> {
        let status = self.core.status(self.now);
        status.licenses.iter().map(|license| license.id).collect()
    }

    fn opened_by(&self, id: i64) -> Vec<(Holder, bool)> {
        let license = self.core.book().by_id("p", id).unwrap();
        let names = self.core.book().names_of(license.no);
        names
            .map(|(name, is_default)| (name.holder.clone(), is_default))
            .collect()
    }
}

fn held(names: &[Holder], devices: &[&'static str]) -> Held {
    Held {
        names: names.to_vec(),
        devices: devices.to_vec(),
        total: 0,
        refused: None,
    }
}

#[test]
fn a_request_without_an_id_goes_where_the_server_would_take_it() {
    let mut world = World::new(vec![
        (1, held(&[user()], &[DEVICE, "hw-9"])),
        (2, held(&[user()], &[DEVICE])),
    ]);
    world.add(&subject(&user(), Some(2), DEVICE), 1).unwrap();
    world.add(&subject(&user(), None, DEVICE), 7).unwrap();
    world.add(&subject(&user(), None, "hw-9"), 2).unwrap();
    world.pass(Duration::from_mins(1));
    assert_eq!(world.totals(), [(1, 9), (2, 1)]);
    let mut known = world.known();
    known.sort_unstable();
    assert_eq!(known, [1, 2]);
    let batches = world.asked.iter().filter(|(_, _, is_batch)| *is_batch);
    assert!(
        batches.clone().all(|(_, id, _)| id.is_some()),
        "{:?}",
        world.asked
    );
}

#[test]
fn an_idle_agent_asks_once_a_refresh_interval_and_licence_whatever_its_names_open() {
    let mut world = World::new(vec![
        (1, held(&[user()], &[DEVICE])),
        (2, held(&[user(), key("K")], &[DEVICE])),
    ]);
    world.add(&subject(&user(), Some(2), DEVICE), 1).unwrap();
    world.add(&subject(&user(), None, DEVICE), 1).unwrap();
    world.add(&subject(&key("K"), None, DEVICE), 1).unwrap();
    world.pass(Duration::from_mins(1));
    let asked = world.pass(Duration::from_hours(10));
    assert!(asked <= 2 * 13, "{asked} requests");
}

#[test]
fn a_user_who_is_given_a_licence_of_a_lower_id_consumes_of_that_from_the_next_refresh_on() {
    let mut world = World::new(vec![(4, held(&[user()], &[DEVICE]))]);
    world.add(&subject(&user(), None, DEVICE), 1).unwrap();
    world.pass(Duration::from_mins(1));
    world.server.insert(3, held(&[user()], &[DEVICE]));
    let asked = world.pass(Duration::from_hours(2));
    assert!(asked <= 6, "{asked} requests");
    assert_eq!(world.opened_by(3), [(user(), true)]);
    assert_eq!(world.opened_by(4), [(user(), false)]);
    world.record(&subject(&user(), None, DEVICE), 2).unwrap();
    world.record(&subject(&user(), Some(4), DEVICE), 3).unwrap();
    world.pass(Duration::from_mins(1));
    assert_eq!(world.totals(), [(3, 2), (4, 4)]);
}

#[test]
fn a_key_that_opens_another_licence_now_does_not_charge_it_for_the_former() {
    for ignores_ids in [false, true] {
        let mut world = World::new(vec![
            (1, held(&[key("K")], &[DEVICE])),
            (5, held(&[], &[DEVICE])),
        ]);
        world.ignores_ids = ignores_ids;
        world.add(&subject(&key("K"), None, DEVICE), 1).unwrap();
        world.pass(Duration::from_mins(1));
        world.server.get_mut(&1).unwrap().names.clear();
        world.server.get_mut(&5).unwrap().names.push(key("K"));
        // The probes of a refused licence grow apart: after 1, 2, 4 minutes, and so on.
        let asked = world.pass(Duration::from_hours(1));
        assert!(asked <= 20, "{asked} requests");
        world.record(&subject(&key("K"), None, DEVICE), 2).unwrap();
        world.pass(Duration::from_mins(1));
        assert_eq!(world.totals(), [(1, 1), (5, 2)]);
        assert!(world.opened_by(1).is_empty());
        let asked = world.pass(Duration::from_hours(10));
        assert!(asked <= 50, "{asked} requests");
    }
}

#[test]
fn what_a_licence_owes_that_its_key_no_longer_opens_waits_until_a_name_opens_it_again() {
    let mut world = World::new(vec![
        (1, held(&[key("K")], &[DEVICE])),
        (5, held(&[], &[DEVICE])),
    ]);
    world.ignores_ids = true;
    world.add(&subject(&key("K"), None, DEVICE), 1).unwrap();
    world.pass(Duration::from_mins(1));
    world.server.get_mut(&1).unwrap().names.clear();
    world.server.get_mut(&5).unwrap().names.push(key("K"));
    // The application goes on before the agent hears of it, and the key is looked up just then.
    let found = world.check(&subject(&key("K"), None, DEVICE));
    world.record(&subject(&key("K"), None, DEVICE), 4).unwrap();
    if let LookUpOutcome::Found(found) = found {
        world
            .core
            .learn(world.now, &found, world.now.mono, KeyEcho::Echoed);
        world.core.book_mut().committed();
    }
    world.pass(Duration::from_hours(3));
    assert_eq!(world.totals(), [(1, 1), (5, 0)]);
    let status = world.core.status(world.now);
    assert_eq!(status.licenses[0].conservation.pending, 4);
    assert_eq!(status.licenses[0].refused, Some("license_not_found"));
    world.server.get_mut(&1).unwrap().names.push(key("K1"));
    world.add(&subject(&key("K1"), None, DEVICE), 1).unwrap();
    world.pass(Duration::from_mins(2));
    assert_eq!(world.totals(), [(1, 6), (5, 0)]);
}

#[test]
fn two_names_of_one_licence_share_its_limit() {
    let mut world = World::new(vec![(5, held(&[key("K"), user()], &[DEVICE]))]);
    for (holder, id) in [(key("K"), None), (user(), None), (key("K"), Some(5))] {
        world.add(&subject(&holder, id, DEVICE), 3).unwrap();
    }
    assert!(matches!(
        world.add(&subject(&user(), None, DEVICE), 2),
        Err(Rejected::Refused(error)) if error.code == ErrorCode::LicenseNotEnoughConsumptions
    ));
    world.pass(Duration::from_mins(1));
    assert_eq!(world.totals(), [(5, 9)]);
    assert_eq!(world.known(), [5]);
}

#[test]
fn a_name_that_the_server_knows_no_more_leaves_a_licence_to_its_others() {
    let mut world = World::new(vec![(5, held(&[key("K"), user()], &[DEVICE]))]);
    world.add(&subject(&key("K"), None, DEVICE), 1).unwrap();
    world.add(&subject(&user(), None, DEVICE), 1).unwrap();
    world.pass(Duration::from_mins(1));
    world.server.get_mut(&5).unwrap().names = vec![user()];
    world.record(&subject(&user(), None, DEVICE), 3).unwrap();
    world.pass(Duration::from_mins(5));
    assert_eq!(world.totals(), [(5, 5)]);
    assert_eq!(world.opened_by(5), [(user(), true)]);
}

#[test]
fn a_user_whose_licence_is_gone_is_asked_for_again_and_never_while_offline() {
    let mut world = World::new(vec![(7, held(&[user()], &[DEVICE]))]);
    let asked = subject(&user(), None, DEVICE);
    world.add(&asked, 1).unwrap();
    world.pass(Duration::from_mins(1));
    world.server.insert(8, held(&[user()], &[DEVICE]));
    world.server.get_mut(&7).unwrap().names.clear();
    world.record(&subject(&user(), Some(7), DEVICE), 2).unwrap();
    world.pass(Duration::from_secs(8));
    let online = world.record(&asked, 3);
    assert_eq!(online, Err(Rejected::Unknown), "the server is to be asked");
    world.tell(Event::SetNetwork(NetworkMode::Offline));
    let offline = world.record(&asked, 3);
    assert!(
        matches!(&offline, Err(Rejected::Refused(error)) if error.code == ErrorCode::LicenseNotFound),
        "{offline:?}"
    );
    let commands = world.tell(Event::SetNetwork(NetworkMode::Online));
    world.drive(commands);
    world.add(&asked, 3).unwrap();
    world.pass(Duration::from_mins(1));
    assert_eq!(world.totals(), [(7, 1), (8, 3)]);
    let with_id = world.add(&subject(&user(), Some(7), DEVICE), 1);
    assert!(
        matches!(&with_id, Err(Rejected::Refused(error)) if error.code == ErrorCode::LicenseNotFound),
        "{with_id:?}"
    );
}

#[test]
fn a_refusal_without_an_id_is_not_taken_for_a_licence_that_goes_on() {
    let mut world = World::new(vec![(4, held(&[user()], &[DEVICE]))]);
    world.add(&subject(&user(), None, DEVICE), 1).unwrap();
    world.pass(Duration::from_mins(1));
    let mut other = held(&[user()], &[DEVICE]);
    other.refused = Some(ErrorCode::LicenseNotEnabled);
    world.server.insert(3, other);
    world.pass(Duration::from_hours(1));
    world.record(&subject(&user(), Some(4), DEVICE), 2).unwrap();
    world.pass(Duration::from_mins(1));
    assert_eq!(world.totals(), [(3, 0), (4, 3)]);
    assert!(matches!(
        world.record(&subject(&user(), None, DEVICE), 1),
        Err(Rejected::Unknown)
    ));
}

#[test]
fn a_licence_that_is_removed_while_it_is_over_is_asked_for_again() {
    let mut world = World::new(vec![(7, held(&[key("K")], &[DEVICE]))]);
    let asked = subject(&key("K"), None, DEVICE);
    world.add(&asked, 1).unwrap();
    world.pass(Duration::from_mins(1));
    let no = world.core.book().find(&asked).unwrap().no;
    if let Some(license) = world.core.book_mut().license_mut(no) {
        license.body.validity_period = Some(world.now.time);
    }
    assert!(matches!(world.add(&asked, 1), Err(Rejected::Refused(_))));
    world.core.forget(world.now, no, None).unwrap();
    world.core.book_mut().committed();
    world.add(&asked, 1).unwrap();
    assert_eq!(world.known(), [7]);
}

#[test]
fn a_name_that_opens_a_forgotten_licence_makes_it_known_only_when_an_application_asks() {
    let mut world = World::new(vec![
        (1, held(&[key("K")], &[DEVICE])),
        (5, held(&[key("OTHER")], &[DEVICE])),
    ]);
    let asked = subject(&key("K"), None, DEVICE);
    world.add(&asked, 1).unwrap();
    world.add(&subject(&key("OTHER"), None, DEVICE), 1).unwrap();
    world.pass(Duration::from_mins(1));
    let no = world.core.book().by_id("p", 5).unwrap().no;
    world.core.forget(world.now, no, None).unwrap();
    world.core.book_mut().committed();
    world.server.get_mut(&1).unwrap().names.clear();
    world.server.get_mut(&5).unwrap().names.push(key("K"));
    world.pass(Duration::from_hours(2));
    assert_eq!(world.known(), [1], "nobody asked for it");
    world.add(&asked, 2).unwrap();
    assert_eq!(world.known(), [1, 5]);
    world.pass(Duration::from_mins(1));
    assert_eq!(world.totals(), [(1, 1), (5, 3)]);
}

#[test]
fn a_key_that_lost_a_licence_with_other_names_elsewhere_is_asked_for_slowly() {
    let mut world = World::new(vec![
        (1, held(&[key("K"), user()], &[DEVICE, "hw-9"])),
        (5, held(&[], &[DEVICE])),
    ]);
    world.add(&subject(&key("K"), None, DEVICE), 1).unwrap();
    world.add(&subject(&user(), None, "hw-9"), 1).unwrap();
    world.pass(Duration::from_mins(1));
    world.server.get_mut(&1).unwrap().names = vec![user()];
    world.server.get_mut(&5).unwrap().names.push(key("K"));
    let asked = world.pass(Duration::from_hours(10));
    assert!(asked <= 60, "{asked} requests");
    world.record(&subject(&user(), None, "hw-9"), 3).unwrap();
    world.pass(Duration::from_mins(1));
    assert_eq!(world.totals(), [(1, 5), (5, 0)]);
}

#[test]
fn what_is_owed_on_a_device_goes_under_a_name_that_opens_the_licence_on_another() {
    let mut world = World::new(vec![
        (1, held(&[key("K"), user()], &[DEVICE, "hw-9"])),
        (5, held(&[], &[DEVICE])),
    ]);
    world.add(&subject(&key("K"), None, DEVICE), 1).unwrap();
    world.add(&subject(&user(), None, "hw-9"), 1).unwrap();
    world.pass(Duration::from_mins(1));
    world.record(&subject(&key("K"), None, DEVICE), 2).unwrap();
    world.server.get_mut(&1).unwrap().names = vec![user()];
    world.server.get_mut(&5).unwrap().names.push(key("K"));
    world.pass(Duration::from_hours(2));
    assert_eq!(world.totals(), [(1, 4), (5, 0)]);
}

#[test]
fn what_could_not_be_committed_moves_no_name() {
    let mut world = World::new(vec![(4, held(&[user()], &[DEVICE]))]);
    let asked = subject(&user(), None, DEVICE);
    world.add(&asked, 1).unwrap();
    world.server.insert(3, held(&[user()], &[DEVICE]));
    let LookUpOutcome::Found(found) = world.check(&asked) else {
        panic!("it is found");
    };
    world
        .core
        .learn(world.now, &found, world.now.mono, KeyEcho::Echoed);
    world.core.roll_back(&[]);
    assert_eq!(world.core.book().find(&asked).unwrap().server_id(), 4);
    assert_eq!(world.opened_by(4), [(user(), true)]);
}
