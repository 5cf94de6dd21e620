//! A core, and a server of one licence that answers in the contract's words.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use serde_json::{Value, json};
use tally_shared::{
    limits::{Limits, OverageSetting, Request, Standing, decide},
    time::Timestamp,
    units::{Total, Units},
    wire::{AddConsumption, ConsumptionEvent, ErrorCode, Subject},
};
use uuid::Uuid;

use crate::core::{
    Core, Rejected,
    book::{AppNo, BatchNo, Book, Contents, Copies, LaneNo, LicenseNo, Seq},
    chain::{self, Hash},
    clock::Moment,
    command::Command,
    event::{Event, KeyEcho, Prefix},
    outcome::{Exchange, LookUpOutcome, RawAnswer, of_look_up, of_send},
    report::{Conservation, LicenseStatus},
};

/// A run ends after so many requests: more are a storm.
const STORM: usize = 2_000;

/// How long a request takes.
const ROUND_TRIP: Duration = Duration::from_millis(10);

/// A counter of the server's.
#[derive(Clone, Copy)]
pub(super) struct Counter {
    pub(super) max: i64,
    pub(super) total: i64,
    pub(super) overages: (bool, i64),
}

impl Counter {
    pub(super) const fn of(max: i64) -> Self {
        Self {
            max,
            total: 0,
            overages: (false, 0),
        }
    }

    fn standing(self, negative: bool) -> Standing {
        Standing {
            limits: Limits {
                max_consumptions: self.max,
                allow_unlimited_consumptions: false,
                allow_negative_consumptions: negative,
                allow_overages: self.overages.0,
                max_overages: self.overages.1,
            },
            reset: None,
            total: Total::new(self.total),
            as_of: Timestamp::default(),
        }
    }

    fn fields(self) -> Value {
        json!({
            "max_consumptions": self.max, "total_consumptions": self.total,
            "allow_unlimited_consumptions": false, "allow_negative_consumptions": false,
            "allow_overages": self.overages.0, "max_overages": self.overages.1,
            "reset_consumption": false, "consumption_period": null,
        })
    }

    fn add(&mut self, request: &AddConsumption, code: &'static str) -> Result<(), &'static str> {
        let wanted = Request {
            units: request.units,
            setting: request.setting,
        };
        let now = Timestamp::default();
        let grant = decide(&self.standing(false), Units::ZERO, &wanted, now).map_err(|_| code)?;
        self.total = grant.total.get();
        let limits = grant.limits;
        self.overages = (limits.allow_overages, limits.max_overages);
        Ok(())
    }
}

/// What becomes of the next consumption on its way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is counted, and the answer is lost.
    AnswerLost,
    /// It is lost.
    Lost,
    /// 429
    Throttled,
}

pub(super) struct Server {
    pub(super) own: Counter,
    pub(super) license_type: &'static str,
    /// Each feature, with its type.
    pub(super) features: BTreeMap<&'static str, (&'static str, Counter)>,
    pub(super) devices: BTreeMap<&'static str, Option<&'static str>>,
    pub(super) refused: Option<&'static str>,
    /// The pool that the licence draws from, and whether answers say so.
    pub(super) pool: Option<(Counter, bool)>,
    pub(super) keeps_keys: bool,
    /// Whether it refuses the feature although it describes it.
    pub(super) contradicts: bool,
    pub(super) fates: VecDeque<Fate>,
    /// What the vendor does at once when an answer was lost, before anybody can read the total.
    pub(super) then: Option<fn(&mut Server)>,
    /// Consumptions that were counted: the device, the feature, the units and the setting.
    pub(super) counted: Vec<(String, Option<String>, i64, OverageSetting)>,
    pub(super) requests: Vec<(Duration, String)>,
    answers: BTreeMap<Uuid, (u16, Value)>,
}

impl Server {
    fn refusal(&self, device: &str) -> Option<&'static str> {
        match (self.refused, self.devices.get(device)) {
            (Some(code), _) => Some(code),
            (None, None) => Some("device_not_found"),
            (None, Some(refused)) => *refused,
        }
    }

    fn add(&mut self, request: &AddConsumption) -> (u16, Value) {
        match self.judge(request) {
            Ok(body) => {
                let device = request.subject.hardware_id.clone();
                let feature = request.feature.clone();
                self.counted
                    .push((device, feature, request.units.get(), request.setting));
                (200, body)
            }
            Err(code) => (400, json!({"status": 400, "code": code, "message": "no"})),
        }
    }

    fn judge(&mut self, request: &AddConsumption) -> Result<Value, &'static str> {
        if let Some(code) = self.refusal(&request.subject.hardware_id) {
            return Err(code);
        }
        let Some(code) = &request.feature else {
            if self.license_type != "consumption" {
                return Err("license_not_consumption");
            }
            let own = self.own;
            self.own.add(request, "license_not_enough_consumptions")?;
            if let Some((pool, _)) = &mut self.pool {
                let request = AddConsumption {
                    setting: OverageSetting::default(),
                    ..request.clone()
                };
                if let Err(code) = pool.add(&request, "license_not_enough_consumptions") {
                    self.own = own;
                    return Err(code);
                }
            }
            let mut body = self.own.fields();
            body["id"] = json!(1);
            self.tell_pool(&mut body);
            return Ok(body);
        };
        match self.features.get_mut(code.as_str()) {
            Some(("consumption", counter)) if !self.contradicts => {
                counter.add(request, "feature_not_enough_consumptions")?;
                let mut body = counter.fields();
                body["id"] = json!(7);
                body["license_id"] = json!(1);
                Ok(body)
            }
            _ => Err("unsupported_product_feature"),
        }
    }

    fn tell_pool(&self, body: &mut Value) {
        if let Some((pool, true)) = &self.pool {
            let mut fields = pool.fields();
            fields["id"] = json!(3);
            fields["name"] = json!("Fleet");
            body["pool"] = fields;
        }
    }

    pub(super) fn description(&self) -> Value {
        let mut body = if self.license_type == "consumption" {
            self.own.fields()
        } else {
            json!({"allow_overages": false, "max_overages": 0})
        };
        body["id"] = json!(1);
        body["license_type"] = json!(self.license_type);
        body["license_active"] = json!(true);
        body["license_enabled"] = json!(true);
        let features = self.features.iter().map(|(code, (kind, counter))| {
            let mut feature = json!({"id": 7, "code": code, "feature_type": kind});
            if *kind == "consumption" {
                feature["max_consumption"] = json!(counter.max);
                feature["total_consumptions"] = json!(counter.total);
            }
            feature
        });
        body["product_features"] = features.collect();
        if self.license_type == "consumption" {
            self.tell_pool(&mut body);
        }
        body
    }

    fn read(&self, device: &str) -> (u16, Value) {
        match self.refusal(device) {
            None => (200, self.description()),
            Some(code) => (400, json!({"status": 400, "code": code, "message": "no"})),
        }
    }
}

pub(super) fn exchange((status, body): (u16, Value)) -> Exchange {
    Exchange::Answer(RawAnswer {
        status,
        signature: None,
        retry_after: None,
        is_fresh: true,
        body: body.to_string().into_bytes(),
    })
}

/// A row, as the ledger keeps it.
#[derive(Clone, Copy)]
struct Kept {
    seq: Seq,
    lane: LaneNo,
    units: Units,
    hash: Hash,
}

pub(super) struct World {
    pub(super) core: Core,
    pub(super) now: Moment,
    pub(super) server: Server,
    pub(super) online: bool,
    /// How many requests are too many.
    limit: usize,
    rows: Vec<Kept>,
}

impl World {
    /// A licence with this limit and one feature `f` is known on two devices.
    pub(super) fn new(max: i64, keeps_keys: bool) -> Self {
        let time = Timestamp::parse("2026-11-23T12:00:00Z").unwrap();
        let now = Moment {
            time,
            proven: true,
            mono: Duration::from_secs(1),
        };
        let contents = Contents {
            licenses: vec![],
            names: vec![],
            copies: Copies::default(),
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
        };
        let mut drawn: u64 = 7;
        let random = Box::new(move || {
            drawn = drawn
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695);
            drawn >> 11
        });
        let names = ("server".to_owned(), "peer".to_owned());
        let core = Core::new(Book::new(contents), super::policy(), random, now, names);
        let server = Server {
            own: Counter::of(max),
            license_type: "consumption",
            features: [("f", ("consumption", Counter::of(100)))].into(),
            devices: [("h1", None), ("h2", None)].into(),
            refused: None,
            pool: None,
            keeps_keys,
            contradicts: false,
            fates: VecDeque::new(),
            then: None,
            counted: vec![],
            requests: vec![],
            answers: BTreeMap::new(),
        };
        let mut world = Self {
            core,
            now,
            server,
            online: true,
            limit: STORM,
            rows: vec![],
        };
        world.commit();
        world.ask("h1");
        world.ask("h2");
        world
    }

    /// Somebody has the licence read for a device.
    pub(super) fn ask(&mut self, device: &str) {
        let subject = Subject::by_key("p", "K", device);
        let answer = exchange(self.server.read(device));
        let asked_at = self.now.mono;
        let key = self.key_of_reading();
        match of_look_up(answer, &subject, None) {
            LookUpOutcome::Found(found) => {
                self.core.learn(self.now, &found, asked_at, key);
            }
            LookUpOutcome::Refused(code, _) => {
                let (license, hardware_id) = (LicenseNo(1), device.to_owned());
                let event = Event::Refused {
                    license,
                    hardware_id,
                    code,
                };
                self.tell(event);
            }
            other => panic!("{other:?}"),
        }
        self.commit();
    }

    fn key_of_reading(&self) -> KeyEcho {
        if self.server.keeps_keys {
            KeyEcho::Echoed
        } else {
            KeyEcho::Absent
        }
    }

    fn commit(&mut self) {
        let rows = self.core.book().new_rows().iter();
        self.rows.extend(rows.map(|row| Kept {
            seq: row.seq,
            lane: row.lane,
            units: row.units,
            hash: row.hash,
        }));
        self.core.book_mut().committed();
        for license in self.core.status(self.now).licenses {
            assert!(license.conservation.holds(), "{:?}", license.conservation);
        }
    }

    pub(super) fn consume(
        &mut self,
        device: &str,
        feature: Option<&str>,
        units: i64,
        setting: OverageSetting,
    ) -> Result<Value, ErrorCode> {
        self.consume_of("K", device, feature, units, setting)
    }

    pub(super) fn consume_of(
        &mut self,
        key: &str,
        device: &str,
        feature: Option<&str>,
        units: i64,
        setting: OverageSetting,
    ) -> Result<Value, ErrorCode> {
        let request = AddConsumption {
            subject: Subject::by_key("p", key, device),
            feature: feature.map(str::to_owned),
            units: Units::new(units),
            setting,
            event: ConsumptionEvent::Add,
        };
        let recorded = self.core.record(self.now, AppNo(1), &request);
        self.commit();
        match recorded {
            Ok(recorded) => Ok(serde_json::to_value(recorded.answer).unwrap()),
            Err(Rejected::Refused(error)) => Err(error.code),
            Err(Rejected::Unknown) => panic!("the account should be known"),
        }
    }

    pub(super) fn add(&mut self, units: i64) -> Result<Value, ErrorCode> {
        self.consume("h1", None, units, OverageSetting::default())
    }

    pub(super) fn add_feature(&mut self, units: i64) -> Result<Value, ErrorCode> {
        self.consume("h1", Some("f"), units, OverageSetting::default())
    }

    pub(super) fn tell(&mut self, event: Event) {
        let mut commands: VecDeque<Command> = self.core.handle(self.now, event).into();
        self.commit();
        while let Some(command) = commands.pop_front() {
            let event = self.carry_out(command);
            commands.extend(self.core.handle(self.now, event));
            self.commit();
            if self.server.requests.len() > self.limit {
                return;
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now.mono += time;
        self.now.time = self.now.time.plus(time);
    }

    fn carry_out(&mut self, command: Command) -> Event {
        match command {
            Command::FindPrefix {
                batch,
                lane,
                first,
                last,
                room,
            } => Event::PrefixFound {
                batch,
                room,
                prefix: self.prefix(lane, (first, last), room),
            },
            Command::LookUp { license, subject } => {
                self.pass(ROUND_TRIP);
                let device = subject.hardware_id.clone();
                self.log(format!("read {device}"));
                let answer = if self.online {
                    exchange(self.server.read(&device))
                } else {
                    Exchange::NotSent("off".to_owned())
                };
                Event::LookedUp {
                    license,
                    hardware_id: device,
                    outcome: of_look_up(answer, &subject, None),
                    key: self.key_of_reading(),
                }
            }
            Command::Send {
                batch,
                key,
                request,
                ..
            } => {
                self.pass(ROUND_TRIP);
                let of = request.feature.clone().unwrap_or_default();
                self.log(format!("add {of}{}", request.units));
                let (answer, key) = self.post(&request, key.map(|key| key.id));
                let outcome = of_send(answer, request.feature.is_some(), None);
                Event::Answered {
                    batch,
                    outcome,
                    key,
                }
            }
        }
    }

    fn post(&mut self, request: &AddConsumption, key: Option<Uuid>) -> (Exchange, KeyEcho) {
        if !self.online {
            return (Exchange::NotSent("off".to_owned()), KeyEcho::NoAnswer);
        }
        let fate = self.server.fates.pop_front();
        let answer = self.post_with(request, key, fate);
        if let (Some(Fate::AnswerLost | Fate::Lost), Some(then)) = (fate, self.server.then.take()) {
            then(&mut self.server);
        }
        answer
    }

    fn post_with(
        &mut self,
        request: &AddConsumption,
        key: Option<Uuid>,
        fate: Option<Fate>,
    ) -> (Exchange, KeyEcho) {
        let lost = || (Exchange::NoAnswer("lost".to_owned()), KeyEcho::NoAnswer);
        match fate {
            Some(Fate::Lost) => return lost(),
            Some(Fate::Throttled) => return (exchange((429, json!({}))), KeyEcho::NoAnswer),
            Some(Fate::AnswerLost) | None => {}
        }
        let key = key.filter(|_| self.server.keeps_keys);
        let known = key.and_then(|key| self.server.answers.get(&key).cloned());
        let (answer, echo) = match (known, key) {
            (Some(answer), _) => (answer, KeyEcho::Replayed),
            (None, Some(key)) => {
                let answer = self.server.add(request);
                self.server.answers.insert(key, answer.clone());
                (answer, KeyEcho::New)
            }
            (None, None) => (self.server.add(request), KeyEcho::Absent),
        };
        if fate == Some(Fate::AnswerLost) {
            return lost();
        }
        (exchange(answer), echo)
    }

    fn log(&mut self, what: String) {
        self.server.requests.push((self.now.mono, what));
    }

    fn prefix(&self, lane: LaneNo, (first, last): (Seq, Seq), room: Option<i64>) -> Option<Prefix> {
        let rows: Vec<&Kept> = self
            .rows
            .iter()
            .filter(|row| row.lane == lane && (first..=last).contains(&row.seq))
            .collect();
        let mut found = None;
        let mut sum = 0;
        for (at, row) in rows.iter().enumerate() {
            sum += row.units.get();
            if room.is_none_or(|room| sum <= room) {
                found = Some(Prefix {
                    last: row.seq,
                    rows: at as u64 + 1,
                    units: Units::new(sum),
                    hash: row.hash,
                    next: rows.get(at + 1).map(|row| row.seq),
                });
            }
        }
        found
    }

    /// Lives for so long, and gives what was asked of the server meanwhile.
    pub(super) fn run(&mut self, time: Duration) -> Vec<String> {
        let end = self.now.mono + time;
        let from = self.server.requests.len();
        self.limit = from + STORM;
        while let Some(at) = self.core.next_wakeup(self.now) {
            if at > end || self.server.requests.len() > self.limit {
                break;
            }
            self.pass(at.saturating_sub(self.now.mono));
            self.tell(Event::Tick);
        }
        self.pass(end.saturating_sub(self.now.mono));
        let requests = self.server.requests.get(from..).unwrap_or_default();
        requests.iter().map(|(_, what)| what.clone()).collect()
    }

    /// The server describes another licence, under the key `K2`; the answer took so long.
    pub(super) fn learn_other(&mut self, body: Value, took: Duration) {
        let found = super::found_other(body);
        let (now, key) = (self.now, self.key_of_reading());
        let asked_at = now.mono.saturating_sub(took);
        self.core.learn(now, &found, asked_at, key);
        self.commit();
    }

    /// Takes in another licence by an answer on file.
    pub(super) fn take_in_other(&mut self, body: Value) {
        let mut found = super::found_other(body);
        found.is_fresh = false;
        self.core.take_in(self.now, &found).unwrap();
        self.commit();
    }

    /// The state of the licence's own counter, or of its feature.
    pub(super) fn status(&self, feature: Option<&str>) -> LicenseStatus {
        let licenses = self.core.status(self.now).licenses;
        let mut licenses = licenses.into_iter();
        licenses
            .find(|found| found.feature.as_deref() == feature)
            .unwrap()
    }

    pub(super) fn sums(&self, feature: Option<&str>) -> Conservation {
        self.status(feature).conservation
    }

    /// The only batch that is not at its end.
    #[track_caller]
    pub(super) fn batch(&self) -> BatchNo {
        let batches: Vec<BatchNo> = self.core.book().batches().map(|batch| batch.no).collect();
        assert_eq!(batches.len(), 1, "{batches:?}");
        batches[0]
    }

    /// The process ends and starts again: what is only in memory is gone.
    pub(super) fn restart(&mut self) {
        self.core.resume(self.now);
        self.commit();
    }
}
