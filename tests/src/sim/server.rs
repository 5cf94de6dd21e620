//! A model of the licence server: small, and written apart from the rules that agent and stub share, so
//! that a mistake in those shows.
//!
//! It knows the truth: what it counted of the agent's rows, and what else moved a total.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Value, json};
use tally_agent::core::{event::KeyEcho, outcome::RawAnswer};
use tally_shared::{
    time::Timestamp,
    wire::{AddConsumption, Holder, Subject},
};

use super::{
    answer::{Answer, refusal, refuse, success},
    counter::{Counter, Presence},
    truth::{Place, Rows, Truth, Unheard},
};

/// Milliseconds of the simulated world since its beginning.
pub(super) type Instant = i64;

/// When the world begins, in milliseconds since 1970: a Monday before noon.
pub(super) const BEGINNING: i64 = 1_795_431_600_000;

/// For how long keys are remembered: longer than an agent trusts them to be.
const KEYS_KEPT: Instant = 30 * 3_600_000;

const DATE_WINDOW: i64 = 15 * 60_000;

/// The product of every licence.
pub(super) const PRODUCT: &str = "inspect";

/// The user who has licences.
pub(super) const USER: &str = "user@example.com";

/// What the server thinks of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeviceState {
    /// It may consume.
    Active,
    /// It may not.
    Blacklisted,
}

/// What a licence is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// It is consumed.
    Consumed,
    /// It is of another type, and its answer still has the counters.
    OtherType,
    /// It is of another type, and its answer has no counters.
    Bare,
}

/// A licence.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each can be so by itself")]
pub(super) struct License {
    /// The key that it had first.
    pub(super) key: String,
    /// The keys that open it now.
    pub(super) keys: BTreeSet<String>,
    /// Whether the user has it.
    pub(super) is_users: bool,
    /// Its id.
    pub(super) id: i64,
    /// Whether there is no such licence now.
    pub(super) is_gone: bool,
    /// Whether the vendor has it enabled.
    pub(super) enabled: bool,
    /// When it expires.
    pub(super) expires: Option<Instant>,
    /// Whether it is consumed.
    pub(super) shape: Shape,
    /// Whether it refuses for the limit, whatever its total.
    pub(super) contradicts: bool,
    /// Whether it takes part in the pool.
    pub(super) is_pooled: bool,
    /// Its devices.
    pub(super) devices: BTreeMap<String, DeviceState>,
    /// Number of devices that others have activated; `None` where answers do not say how many there are.
    pub(super) elsewhere: Option<usize>,
    /// Its own counter, then its features'.
    pub(super) counters: Vec<Counter>,
}

/// What several licences share: each of their own units counts here too.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pool {
    /// The limit.
    pub(super) max: i64,
    /// What is consumed.
    pub(super) total: i64,
}

/// A request that adds units, as it arrives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Adding<'a> {
    /// The body.
    pub(super) body: &'a [u8],
    /// Whether it is a feature's.
    pub(super) is_feature: bool,
    /// Its `Idempotency-Key`, and whose it is.
    pub(super) key: Option<(u32, &'a str)>,
    /// Whether the agent believes that the server keeps it.
    pub(super) is_trusted: bool,
    /// Its date.
    pub(super) dated: Timestamp,
    /// What it carries.
    pub(super) rows: &'a [Rows],
    /// The licence that the agent means.
    pub(super) means: i64,
    /// The agent's life that sent it.
    pub(super) life: u32,
    /// Whether what stands between repeats it.
    pub(super) is_repeat: bool,
    /// Since when the agent has not heard of the counter, and whether it knows that others use it.
    pub(super) unheard: Unheard,
}

/// What is put back when the server is.
#[derive(Clone, Debug)]
pub(super) struct Store {
    /// Its licences.
    pub(super) licenses: Vec<License>,
    /// What they share.
    pub(super) pool: Pool,
    /// What it counted.
    pub(super) truth: Truth,
    /// The answers under keys, with when they were made.
    pub(super) remembered: BTreeMap<(u32, String), (Instant, RawAnswer)>,
}

/// The server.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each can be so by itself")]
pub(super) struct Server {
    /// Whether it keeps idempotency keys.
    pub(super) keeps_keys: bool,
    /// Whether it ever stopped to keep them.
    pub(super) has_stopped: bool,
    /// Whether it refuses licence and device before it looks a key up.
    pub(super) refuses_first: bool,
    /// Whether it answers a known key with 409.
    pub(super) says_duplicate: bool,
    /// What it holds.
    pub(super) store: Store,
    /// How its licences stood before each change of the last minute, for who reads them late.
    pub(super) history: VecDeque<(Instant, Vec<License>)>,
    /// Whether anybody ever did: a total that is behind is told as it is.
    pub(super) is_read_late: bool,
    /// For each name, the licences that it ever opened.
    pub(super) opened: BTreeMap<String, BTreeSet<usize>>,
    /// What was counted elsewhere than the agent meant.
    pub(super) misplaced: Option<String>,
}

/// The time of day and date on the server.
pub(super) const fn date(now: Instant) -> Timestamp {
    Timestamp::from_millis(BEGINNING + now)
}

/// What tells names apart.
pub(super) fn name_of(subject: &Subject) -> String {
    let (value, id) = (subject.holder.value(), subject.license_id);
    format!("{value} {id:?} {}", subject.hardware_id)
}

impl Server {
    /// A server with these licences.
    pub(super) fn new(keeps_keys: bool, licenses: Vec<License>) -> Self {
        Self {
            keeps_keys,
            has_stopped: false,
            refuses_first: false,
            says_duplicate: false,
            store: Store {
                licenses,
                pool: Pool::default(),
                truth: Truth::default(),
                remembered: BTreeMap::new(),
            },
            history: VecDeque::new(),
            is_read_late: false,
            opened: BTreeMap::new(),
            misplaced: None,
        }
    }

    /// Takes a request that adds units, as it arrives.
    pub(super) fn add(&mut self, now: Instant, adding: &Adding<'_>) -> Answer {
        if let Some(refused) = refuse_date(now, adding.dated) {
            return self.answer(now, refused, KeyEcho::Echoed);
        }
        let request = if adding.is_feature {
            AddConsumption::feature_from_json(adding.body)
        } else {
            AddConsumption::from_json(adding.body)
        };
        if self.refuses_first
            && let Ok(request) = &request
            && let Err(refused) = self.admit(now, &request.subject)
        {
            return self.answer(now, refused, KeyEcho::Echoed);
        }
        let key = adding.key.filter(|_| self.keeps_keys);
        let key = key.map(|(owner, key)| (owner, key.to_owned()));
        if let Some(key) = &key
            && let Some((at, raw)) = self.store.remembered.get(key)
            && now - at < KEYS_KEPT
        {
            if self.says_duplicate {
                return self.answer(now, refuse(409, "duplicate"), KeyEcho::Echoed);
            }
            let raw = raw.clone();
            return self.answer(now, raw, KeyEcho::Replayed);
        }
        // An original that was away for longer than keys are kept does not know what its copy sent.
        let forgotten = key.as_ref().and_then(|key| self.store.remembered.get(key));
        let is_of_copy = forgotten.is_some_and(|(at, _)| {
            let counters = self.store.licenses.iter().flat_map(|it| &it.counters);
            let mut counted = counters.flat_map(|counter| &counter.counted_at);
            counted.any(|(then, by, _)| then == at && *by != adding.life)
        });
        let is_forgotten = is_of_copy || (self.has_stopped && adding.is_trusted);
        let raw = match request {
            Ok(request) => self.count(now, &request, adding, is_forgotten),
            Err(error) => refusal(error.code.as_str()),
        };
        // What was refused is no duplicate of anything.
        let is_kept = !self.says_duplicate || raw.status == 200;
        if let Some(key) = key.filter(|_| is_kept) {
            self.store.remembered.insert(key, (now, raw.clone()));
            return self.answer(now, raw, KeyEcho::New);
        }
        self.answer(now, raw, KeyEcho::Echoed)
    }

    /// Takes a request that reads a licence.
    pub(super) fn check(&mut self, now: Instant, subject: &Subject, dated: Timestamp) -> Answer {
        let raw = refuse_date(now, dated).unwrap_or_else(|| {
            let pool = self.store.pool;
            read(&mut self.store.licenses, pool, now, subject)
        });
        self.answer(now, raw, KeyEcho::Echoed)
    }

    /// Takes a request that reads a licence, and answers how it stood at an earlier time.
    pub(super) fn check_late(
        &mut self,
        (now, then): (Instant, Instant),
        subject: &Subject,
        dated: Timestamp,
    ) -> Answer {
        self.is_read_late = true;
        let mut earlier = self.history.iter().filter(|(until, _)| *until > then);
        let mut licenses = earlier
            .next()
            .map_or_else(|| self.store.licenses.clone(), |(_, then)| then.clone());
        let read = || read(&mut licenses, self.store.pool, then, subject);
        let raw = refuse_date(now, dated).unwrap_or_else(read);
        Answer {
            made_at: then,
            ..self.answer(now, raw, KeyEcho::Echoed)
        }
    }

    /// Something is about to change: how it stood stays readable for a while.
    pub(super) fn remember(&mut self, now: Instant, longest: Instant) {
        let licenses = self.store.licenses.clone();
        self.history.push_back((now, licenses));
        while self
            .history
            .front()
            .is_some_and(|(until, _)| *until < now - longest)
        {
            self.history.pop_front();
        }
    }

    /// What stands between hides what the server said of units of this counter.
    pub(super) fn note_repeat(&mut self, now: Instant, id: i64, feature: Option<&str>) {
        let licenses = self
            .store
            .licenses
            .iter_mut()
            .filter(|license| license.id == id);
        let counters = licenses.flat_map(|license| &mut license.counters);
        for counter in counters.filter(|counter| counter.feature.as_deref() == feature) {
            counter.repeated.push(now);
        }
    }

    /// The licence that a name opens.
    pub(super) fn find(&self, subject: &Subject) -> Option<usize> {
        find(&self.store.licenses, subject)
    }

    /// Notes which licences these names open now.
    pub(super) fn note_names(&mut self, subjects: &[Subject]) {
        for subject in subjects {
            if let Some(license) = self.find(subject) {
                let opened = self.opened.entry(name_of(subject)).or_default();
                opened.insert(license);
            }
        }
    }

    /// The licence that a request may use.
    fn admit(&self, now: Instant, subject: &Subject) -> Result<usize, RawAnswer> {
        let found = self.find(subject);
        let license = found.ok_or_else(|| refusal("license_not_found"))?;
        match self.store.licenses[license].refuses(now, &subject.hardware_id) {
            Some(code) => Err(refusal(code)),
            None => Ok(license),
        }
    }

    fn count(
        &mut self,
        now: Instant,
        request: &AddConsumption,
        adding: &Adding<'_>,
        is_forgotten: bool,
    ) -> RawAnswer {
        let no = match self.admit(now, &request.subject) {
            Ok(license) => license,
            Err(refused) => return refused,
        };
        let mut pool = self.store.pool;
        let license = &mut self.store.licenses[no];
        let feature = request.feature.as_deref();
        if feature.is_none() && license.shape != Shape::Consumed {
            return refusal("license_not_consumption");
        }
        let id = license.id;
        let is_meant = |counter: &Counter| {
            counter.feature.as_deref() == feature && counter.presence == Presence::There
        };
        let Some(index) = license.counters.iter().position(is_meant) else {
            return refusal("unsupported_product_feature");
        };
        license.counters[index].roll(now);
        let units = request.units.get();
        let mut wanted = license.counters[index].clone();
        if units < 0 && !wanted.negative {
            return refusal("negative_consumptions_not_allowed");
        }
        wanted.overages = request.setting.allow_overages.unwrap_or(wanted.overages);
        wanted.max_overages = request.setting.max_overages.unwrap_or(wanted.max_overages);
        if !license.fits(pool, &wanted, units) {
            return refusal(if feature.is_some() {
                "feature_not_enough_consumptions"
            } else {
                "license_not_enough_consumptions"
            });
        }
        let counted = self.store.truth.unheard(adding.rows);
        let is_hidden = counted.is_some_and(|unheard| wanted.is_hidden(unheard, now, adding.life));
        wanted.total += units;
        wanted.counted_at.push((now, adding.life, units));
        // What the agent was let believe, it cannot know better.
        if is_forgotten || is_hidden {
            wanted.forgotten.push(now);
        }
        license.counters[index] = wanted;
        if license.is_pooled && feature.is_none() {
            pool.total += units;
        }
        let body = license.json_of(index, pool);
        self.store.pool = pool;
        if id != adding.means {
            let why = format!(
                "{units} units of licence {} were counted on {id}",
                adding.means
            );
            self.misplaced.get_or_insert(why);
        }
        let is_repeat = adding.is_repeat || is_forgotten || is_hidden;
        let place: Place = (no, index);
        let truth = &mut self.store.truth;
        truth.count(adding.rows, place, is_repeat, adding.unheard);
        success(&body)
    }

    /// An answer as it leaves; of a server that keeps no keys it says nothing of them.
    pub(super) const fn answer(&self, now: Instant, raw: RawAnswer, echo: KeyEcho) -> Answer {
        Answer {
            raw,
            echo: if self.keeps_keys {
                echo
            } else {
                KeyEcho::Absent
            },
            date: date(now),
            made_at: now,
            cached: None,
        }
    }
}

fn find(licenses: &[License], subject: &Subject) -> Option<usize> {
    licenses.iter().position(|license| {
        let is_named = match &subject.holder {
            Holder::LicenseKey(key) => license.keys.contains(key),
            Holder::Username(name) => license.is_users && name == USER,
        };
        is_named && !license.is_gone && subject.license_id.is_none_or(|id| id == license.id)
    })
}

fn read(licenses: &mut [License], pool: Pool, now: Instant, subject: &Subject) -> RawAnswer {
    let Some(no) = find(licenses, subject) else {
        return refusal("license_not_found");
    };
    let license = &mut licenses[no];
    if let Some(code) = license.refuses(now, &subject.hardware_id) {
        return refusal(code);
    }
    for counter in &mut license.counters {
        counter.roll(now);
    }
    let features = license.counters.iter().skip(1);
    let features: Vec<Value> = features
        .filter_map(|feature| match feature.presence {
            Presence::There => Some(feature.json(license.id)),
            Presence::OtherType => Some(feature.json_of_other_type(license.id)),
            Presence::TakenOff => None,
        })
        .collect();
    let mut body = match license.shape {
        Shape::Bare => json!({"id": license.id, "allow_overages": false, "max_overages": 0}),
        Shape::Consumed | Shape::OtherType => license.json_of(0, pool),
    };
    if let Some(fields) = body.as_object_mut() {
        let kind = match license.shape {
            Shape::Consumed => "consumption",
            Shape::OtherType | Shape::Bare => "perpetual",
        };
        fields.insert("license_type".to_owned(), json!(kind));
        fields.insert("license_active".to_owned(), json!(true));
        fields.insert("license_enabled".to_owned(), json!(true));
        fields.insert("product_features".to_owned(), json!(features));
        if let Some(elsewhere) = license.elsewhere {
            let activated = license.devices.len() + elsewhere;
            fields.insert("times_activated".to_owned(), json!(activated));
        }
        let expires = license.expires.map(date);
        fields.insert("validity_period".to_owned(), json!(expires));
    }
    success(&body)
}

impl License {
    fn refuses(&self, now: Instant, hardware_id: &str) -> Option<&'static str> {
        if !self.enabled {
            return Some("license_not_enabled");
        }
        if self.expires.is_some_and(|at| now >= at) {
            return Some("license_expired");
        }
        match self.devices.get(hardware_id) {
            Some(DeviceState::Active) => None,
            Some(DeviceState::Blacklisted) => Some("blacklisted"),
            None => Some("device_not_found"),
        }
    }

    /// Tells whether answers can count more activated devices than an agent knows.
    pub(super) fn may_be_activated_elsewhere(&self) -> bool {
        let all = self.elsewhere.map(|others| others + self.devices.len());
        all.is_some_and(|all| all > 1)
    }

    /// Whether so many units fit in a counter that stands so, and in what it shares.
    pub(super) fn fits(&self, pool: Pool, counter: &Counter, units: i64) -> bool {
        let is_pooled = self.is_pooled && counter.feature.is_none() && units > 0;
        let fits_pool = !is_pooled || pool.total + units <= pool.max;
        counter.fits(units) && fits_pool && (!self.contradicts || units <= 0)
    }

    /// A counter, as answers carry it.
    fn json_of(&self, counter: usize, pool: Pool) -> Value {
        let mut body = self.counters[counter].json(self.id);
        if let Some(fields) = body.as_object_mut()
            && self.is_pooled
            && counter == 0
        {
            let pool = json!({
                "id": 1,
                "name": "shared",
                "max_consumptions": pool.max,
                "total_consumptions": pool.total,
                "allow_unlimited_consumptions": false,
                "allow_overages": false,
                "max_overages": 0,
            });
            fields.insert("pool".to_owned(), pool);
        }
        body
    }
}

fn refuse_date(now: Instant, dated: Timestamp) -> Option<RawAnswer> {
    let difference = (dated.as_millis() - date(now).as_millis()).abs();
    (difference > DATE_WINDOW).then(|| refusal("date_header_diff"))
}
