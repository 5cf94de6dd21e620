//! A model of the licence server: small, and written apart from the rules that agent and stub share, so
//! that a mistake in those shows.
//!
//! It knows the truth: what it counted under each key, and what else moved a total.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tally_agent::core::{event::KeyEcho, outcome::RawAnswer};
use tally_shared::{
    time::Timestamp,
    wire::{AddConsumption, Subject},
};

/// Milliseconds of the simulated world since its beginning.
pub(super) type Instant = i64;

/// When the world begins, in milliseconds since 1970: a Monday before noon.
pub(super) const BEGINNING: i64 = 1_795_431_600_000;

/// For how long keys are remembered: longer than an agent trusts them to be.
const KEYS_KEPT: Instant = 30 * HOUR;

const DATE_WINDOW: i64 = 15 * 60_000;
const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

/// The product of every licence.
pub(super) const PRODUCT: &str = "inspect";

/// How often a total returns to zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Period {
    /// At midnight.
    Daily,
    /// On Monday at midnight.
    Weekly,
}

/// A licence's own counter, or a feature's.
#[derive(Clone, Debug)]
pub(super) struct Counter {
    /// The feature; `None` for the licence itself.
    pub(super) feature: Option<String>,
    /// `max_consumptions`
    pub(super) max: i64,
    /// `allow_overages`
    pub(super) overages: bool,
    /// `max_overages`
    pub(super) max_overages: i64,
    /// `allow_negative_consumptions`
    pub(super) negative: bool,
    /// `consumption_period`
    pub(super) period: Option<Period>,
    /// `total_consumptions`, in the period of the last change.
    pub(super) total: i64,
    /// The total at the beginning.
    pub(super) initial: i64,
    /// When that last change was.
    touched: Instant,
    /// The units of the agent that were counted.
    pub(super) mine: i64,
    /// When the vendor or other devices changed something.
    pub(super) foreign: Vec<Instant>,
}

/// What the server thinks of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeviceState {
    /// It may consume.
    Active,
    /// It may not.
    Blacklisted,
}

/// A licence.
#[derive(Clone, Debug)]
pub(super) struct License {
    /// Its key.
    pub(super) key: String,
    /// Its id.
    pub(super) id: i64,
    /// Whether the vendor has it enabled.
    pub(super) enabled: bool,
    /// Its devices.
    pub(super) devices: BTreeMap<String, DeviceState>,
    /// Its own counter, then its features'.
    pub(super) counters: Vec<Counter>,
}

/// What was counted under a key.
#[derive(Clone, Debug)]
pub(super) struct Counted {
    /// The units.
    pub(super) units: i64,
    /// How often.
    pub(super) times: u32,
}

/// An answer on its way.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// The status and the body.
    pub(super) raw: RawAnswer,
    /// What it says of the key.
    pub(super) echo: KeyEcho,
    /// Its `Date`.
    pub(super) date: Timestamp,
    /// When the server made it.
    pub(super) made_at: Instant,
}

/// The server.
#[derive(Clone, Debug)]
pub(super) struct Server {
    /// Whether it keeps idempotency keys.
    pub(super) keeps_keys: bool,
    /// Its licences.
    pub(super) licenses: Vec<License>,
    /// What it counted, by key.
    pub(super) counted: BTreeMap<String, Counted>,
    remembered: BTreeMap<String, (Instant, RawAnswer)>,
}

/// The time of day and date on the server.
pub(super) const fn date(now: Instant) -> Timestamp {
    Timestamp::from_millis(BEGINNING + now)
}

impl Counter {
    /// A counter.
    pub(super) const fn new(
        feature: Option<String>,
        (max, total): (i64, i64),
        period: Option<Period>,
        negative: bool,
    ) -> Self {
        Self {
            feature,
            max,
            overages: false,
            max_overages: 0,
            negative,
            period,
            total,
            initial: total,
            touched: 0,
            mine: 0,
            foreign: Vec::new(),
        }
    }

    /// Which period it is.
    pub(super) fn period_no(&self, now: Instant) -> i64 {
        let day = (BEGINNING + now).div_euclid(DAY);
        match self.period {
            None => 0,
            Some(Period::Daily) => day,
            // The first day of 1970 was a Thursday.
            Some(Period::Weekly) => (day + 3).div_euclid(7),
        }
    }

    /// Returns the total to zero where its period is over.
    pub(super) fn roll(&mut self, now: Instant) {
        if self.period_no(now) != self.period_no(self.touched) {
            self.total = 0;
        }
        self.touched = now;
    }

    /// The highest total that is allowed.
    pub(super) const fn cap(&self) -> Option<i64> {
        match (self.overages, self.max_overages) {
            (true, 0) => None,
            (true, over) => Some(self.max + over),
            (false, _) => Some(self.max),
        }
    }

    /// Whether so many units fit.
    pub(super) fn fits(&self, units: i64) -> bool {
        units <= 0 || self.cap().is_none_or(|cap| self.total + units <= cap)
    }

    /// Whether something but the agent changed it since, or its period turned.
    pub(super) fn is_disturbed(&self, since: Instant, until: Instant) -> bool {
        self.period_no(since) != self.period_no(until)
            || self.foreign.iter().any(|at| (since..=until).contains(at))
    }

    fn json(&self, id: i64) -> Value {
        let period = self.period.map(|period| match period {
            Period::Daily => "daily",
            Period::Weekly => "weekly",
        });
        let max_name = if self.feature.is_some() {
            "max_consumption"
        } else {
            "max_consumptions"
        };
        let mut value = json!({
            "id": id,
            max_name: self.max,
            "total_consumptions": self.total,
            "allow_unlimited_consumptions": false,
            "allow_negative_consumptions": self.negative,
            "allow_overages": self.overages,
            "max_overages": self.max_overages,
            "reset_consumption": self.period.is_some(),
            "consumption_period": period,
        });
        if let (Some(feature), Some(fields)) = (&self.feature, value.as_object_mut()) {
            fields.insert("code".to_owned(), json!(feature));
            fields.insert("name".to_owned(), json!(feature));
            fields.insert("feature_type".to_owned(), json!("consumption"));
        }
        value
    }
}

impl Server {
    /// A server with these licences.
    pub(super) const fn new(keeps_keys: bool, licenses: Vec<License>) -> Self {
        Self {
            keeps_keys,
            licenses,
            counted: BTreeMap::new(),
            remembered: BTreeMap::new(),
        }
    }

    /// Takes a request that adds units, as it arrives.
    pub(super) fn add(
        &mut self,
        now: Instant,
        body: &[u8],
        feature: bool,
        (key, is_keyed): (&str, bool),
        dated: Timestamp,
    ) -> Answer {
        if let Some(refused) = refuse_date(now, dated) {
            return self.answer(now, refused, KeyEcho::Absent);
        }
        let keeps_key = self.keeps_keys && is_keyed;
        if keeps_key
            && let Some((at, raw)) = self.remembered.get(key)
            && now - at < KEYS_KEPT
        {
            let raw = raw.clone();
            return self.answer(now, raw, KeyEcho::Replayed);
        }
        let request = if feature {
            AddConsumption::feature_from_json(body)
        } else {
            AddConsumption::from_json(body)
        };
        let raw = match request {
            Ok(request) => self.count(now, &request, key),
            Err(error) => refusal(error.code.as_str()),
        };
        if !keeps_key {
            return self.answer(now, raw, KeyEcho::Absent);
        }
        self.remembered.insert(key.to_owned(), (now, raw.clone()));
        self.answer(now, raw, KeyEcho::New)
    }

    /// Takes a request that reads a licence.
    pub(super) fn check(&mut self, now: Instant, subject: &Subject, dated: Timestamp) -> Answer {
        let raw = refuse_date(now, dated).unwrap_or_else(|| self.read(now, subject));
        self.answer(now, raw, KeyEcho::Echoed)
    }

    fn count(&mut self, now: Instant, request: &AddConsumption, key: &str) -> RawAnswer {
        let Some(license) = self.license(&request.subject) else {
            return refusal("license_not_found");
        };
        if let Some(code) = license.refuses(&request.subject.hardware_id) {
            return refusal(code);
        }
        let id = license.id;
        let feature = request.feature.as_deref();
        let is_meant = |counter: &&mut Counter| counter.feature.as_deref() == feature;
        let Some(counter) = license.counters.iter_mut().find(is_meant) else {
            return refusal("unsupported_product_feature");
        };
        counter.roll(now);
        let units = request.units.get();
        if units < 0 && !counter.negative {
            return refusal("negative_consumptions_not_allowed");
        }
        let mut wanted = counter.clone();
        wanted.overages = request.setting.allow_overages.unwrap_or(wanted.overages);
        wanted.max_overages = request.setting.max_overages.unwrap_or(wanted.max_overages);
        if !wanted.fits(units) {
            return refusal(if feature.is_some() {
                "feature_not_enough_consumptions"
            } else {
                "license_not_enough_consumptions"
            });
        }
        wanted.total += units;
        wanted.mine += units;
        *counter = wanted;
        let body = counter.json(id);
        let under_key = self.counted.entry(key.to_owned());
        under_key.or_insert(Counted { units, times: 0 }).times += 1;
        success(&body)
    }

    fn read(&mut self, now: Instant, subject: &Subject) -> RawAnswer {
        let Some(license) = self.license(subject) else {
            return refusal("license_not_found");
        };
        if let Some(code) = license.refuses(&subject.hardware_id) {
            return refusal(code);
        }
        for counter in &mut license.counters {
            counter.roll(now);
        }
        let (own, features) = match license.counters.split_first() {
            Some((own, features)) => (own.json(license.id), features),
            None => return refusal("license_not_consumption"),
        };
        let features: Vec<Value> = features
            .iter()
            .map(|feature| feature.json(license.id))
            .collect();
        let mut body = own;
        if let Some(fields) = body.as_object_mut() {
            fields.insert("license_type".to_owned(), json!("consumption"));
            fields.insert("license_active".to_owned(), json!(true));
            fields.insert("license_enabled".to_owned(), json!(true));
            fields.insert("product_features".to_owned(), json!(features));
        }
        success(&body)
    }

    fn license(&mut self, subject: &Subject) -> Option<&mut License> {
        let key = subject.holder.value();
        self.licenses.iter_mut().find(|license| license.key == key)
    }

    const fn answer(&self, now: Instant, raw: RawAnswer, echo: KeyEcho) -> Answer {
        Answer {
            raw,
            echo: if self.keeps_keys {
                echo
            } else {
                KeyEcho::Absent
            },
            date: date(now),
            made_at: now,
        }
    }
}

impl License {
    fn refuses(&self, hardware_id: &str) -> Option<&'static str> {
        if !self.enabled {
            return Some("license_not_enabled");
        }
        match self.devices.get(hardware_id) {
            Some(DeviceState::Active) => None,
            Some(DeviceState::Blacklisted) => Some("blacklisted"),
            None => Some("device_not_found"),
        }
    }
}

fn refuse_date(now: Instant, dated: Timestamp) -> Option<RawAnswer> {
    let difference = (dated.as_millis() - date(now).as_millis()).abs();
    (difference > DATE_WINDOW).then(|| refusal("date_header_diff"))
}

fn success(body: &Value) -> RawAnswer {
    raw(200, body.to_string())
}

fn refusal(code: &str) -> RawAnswer {
    let body = json!({"status": 400, "code": code, "message": "as the contract says"});
    raw(400, body.to_string())
}

/// An answer of that status and body.
pub(super) fn raw(status: u16, body: String) -> RawAnswer {
    RawAnswer {
        status,
        signature: None,
        retry_after: None,
        is_fresh: true,
        body: body.into_bytes(),
    }
}
