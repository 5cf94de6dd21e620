//! A counter of the model server: a licence's own, a feature's, or what several licences share.

use serde_json::{Value, json};

use super::{
    server::{BEGINNING, Instant},
    truth::Unheard,
};

const DAY: i64 = 24 * 3_600_000;

/// The longest time, in milliseconds, that an agent which is often cut off takes to believe a total that fell.
const FALL_MAX: Instant = 48 * 3_600_000;

/// How often a total returns to zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Period {
    /// At midnight.
    Daily,
    /// On Monday at midnight.
    Weekly,
}

/// Whether a feature is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// It is, and is consumed.
    There,
    /// It is of another type.
    OtherType,
    /// It was taken off the licence.
    TakenOff,
}

/// A licence's own counter, or a feature's.
#[derive(Clone, Debug)]
pub(super) struct Counter {
    /// The feature; `None` for the licence itself.
    pub(super) feature: Option<String>,
    /// Whether that is there.
    pub(super) presence: Presence,
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
    /// When the vendor or other devices changed something.
    pub(super) foreign: Vec<Instant>,
    /// When others lowered its total: the agent takes that only when it has read it twice.
    pub(super) lowered: Vec<Instant>,
    /// When the vendor set the overage.
    pub(super) overage_edits: Vec<Instant>,
    /// When what stands between repeated a request of the agent, or hid what the server said to it.
    pub(super) repeated: Vec<Instant>,
    /// When the server was put back.
    pub(super) rolled_back: Vec<Instant>,
    /// When it counted a key that it had let the agent believe it keeps, and did not.
    pub(super) forgotten: Vec<Instant>,
    /// When units of the agent were counted, in which of its lives they were sent, and how many.
    pub(super) counted_at: Vec<(Instant, u32, i64)>,
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
            presence: Presence::There,
            max,
            overages: false,
            max_overages: 0,
            negative,
            period,
            total,
            initial: total,
            touched: 0,
            foreign: Vec::new(),
            lowered: Vec::new(),
            overage_edits: Vec::new(),
            repeated: Vec::new(),
            rolled_back: Vec::new(),
            forgotten: Vec::new(),
            counted_at: Vec::new(),
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

    /// Whether something but this life of the agent changed it since, or its period turned.
    pub(super) fn is_disturbed(&self, since: Instant, until: Instant, life: u32) -> bool {
        let among = |times: &[Instant]| times.iter().any(|at| (since..=until).contains(at));
        let mut counted = self.counted_at.iter();
        let mut lowered = self.lowered.iter().chain(&self.rolled_back);
        let was_lowered = lowered.any(|at| {
            (since - FALL_MAX..=until).contains(at) && self.period_no(*at) == self.period_no(until)
        });
        self.period_no(since) != self.period_no(until)
            || was_lowered
            || among(&self.foreign)
            || among(&self.repeated)
            || among(&self.rolled_back)
            || among(&self.forgotten)
            || counted.any(|(at, by, _)| *by != life && (since..=until).contains(at))
    }

    /// Whether nobody can tell from the total that units were counted: the server was put back since it was last heard of, so
    /// that the total is lower than with them. Or what stands between hid that they were counted, and others moved the total
    /// meanwhile: where it is known that others use the counter, this cannot be told from a refusal that is true.
    pub(super) fn is_hidden(&self, unheard: Unheard, until: Instant, life: u32) -> bool {
        let is_between = |at: &Instant| (unheard.since..=until).contains(at);
        let mut others = self.counted_at.iter().filter(|(_, by, _)| *by != life);
        let is_moved = self.foreign.iter().any(is_between) || others.any(|(at, ..)| is_between(at));
        let is_refused = unheard.is_shared && is_moved && self.repeated.iter().any(is_between);
        is_refused || self.rolled_back.iter().any(is_between)
    }

    /// Whether another life had as many units counted: they pass for this one's, and nobody can tell them apart.
    pub(super) fn has_equal(&self, units: i64, life: u32) -> bool {
        let mut counted = self.counted_at.iter();
        counted.any(|(_, by, counted)| *by != life && *counted == units)
    }

    /// Whether its total was moved by nothing but what the agent was told of.
    pub(super) const fn is_the_agents_alone(&self) -> bool {
        self.foreign.is_empty()
            && self.repeated.is_empty()
            && self.rolled_back.is_empty()
            && self.forgotten.is_empty()
    }

    /// As answers carry it.
    pub(super) fn json(&self, id: i64) -> Value {
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

    /// As answers carry a feature of another type: without counters.
    pub(super) fn json_of_other_type(&self, id: i64) -> Value {
        json!({
            "id": id,
            "code": self.feature,
            "name": self.feature,
            "feature_type": "activation",
        })
    }
}
