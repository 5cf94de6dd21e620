//! What the agent tells about itself: the state behind `tally status` and `/v1/status`.
//!
//! These shapes are a contract with scripts: fields are added, never changed.

use std::{collections::BTreeSet, time::Duration};

use serde::Serialize;
use tally_shared::{
    period::Period,
    time::Timestamp,
    units::{Total, Units},
    wire::Holder,
};

use super::{
    Core,
    book::{Account, Batch, BatchState, CopyKind, Finding, Hold, License},
    clock::Moment,
    instance::Difference,
    link::{Link, LinkState, NetworkMode},
    record::{Standings, answer, effective},
    trouble::{PoolStatus, UnknownBatch},
};

/// Everything at a glance.
#[derive(Clone, Debug, Serialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, for scripts"
)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Status {
    /// The agent's version.
    pub version: &'static str,
    /// Whether the server can be reached.
    pub connection: Connection,
    /// The corrected time.
    pub time: Timestamp,
    /// Whether the server has confirmed it since the device started.
    pub time_proven: bool,
    /// Whether the server keeps idempotency keys.
    pub server_keeps_idempotency_keys: bool,
    /// Whether nothing is left to send but what is held.
    pub synced: bool,
    /// Whether something is being asked of the server.
    pub busy: bool,
    /// How often a start found that the ledger had been changed behind the agent's back, ever; what it
    /// found, `tally verify` says.
    pub evidence: u64,
    /// The same, those among them that a person has answered.
    #[serde(skip)]
    pub evidence_ever: u64,
    /// What shows that this ledger is a copy, until a person has said what became of the original.
    pub copy: Option<CopyStatus>,
    /// What the server's totals say that this ledger does not expect, until a person has seen it.
    pub findings: Vec<Finding>,
    /// Each licence and feature.
    pub licenses: Vec<LicenseStatus>,
}

/// What shows that a ledger is a copy.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CopyStatus {
    /// The place of the note that says so.
    pub seq: i64,
    /// `copied` (it is in another file, or on another device, than it was written in) or `older_copy` (it is older than the
    /// mark beside it).
    pub what: CopyKind,
    /// When that was found.
    pub since: Timestamp,
    /// The newest row that the original has as well.
    pub newest: i64,
    /// What is another than it was.
    pub differs: Option<Difference>,
    /// The host that it was written on.
    pub host: Option<String>,
    /// Where it was written.
    pub path: Option<String>,
    /// When it was last written there.
    pub written_at: Option<Timestamp>,
    /// How many of the notes of evidence it explains: an answer is one to all of them.
    pub explains: u64,
    /// The units that wait until a person has said what became of the original.
    pub held: i64,
}

/// Whether the server can be reached.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Connection {
    /// `online`, `offline` (switched off for a drill), `unreachable`, `refused` (the credentials), or
    /// `other_server` (what is owed was recorded for another: nothing is sent to this one).
    pub state: &'static str,
    /// Since when, by the corrected clock; the agent's start where it never changed.
    pub since: Timestamp,
    /// Milliseconds since then.
    pub since_ms: u64,
    /// The switch for drills.
    pub network: NetworkMode,
    /// Why the server refuses the credentials, if it does.
    pub refused: Option<&'static str>,
    /// The server that what is owed was recorded for, where this is another: its address, or `loopback`
    /// for one on this device.
    pub owed_to: Option<String>,
    /// Milliseconds since the server's last valid answer.
    pub last_answer_ms: Option<u64>,
    /// Milliseconds until the next try, while the server is left alone.
    pub next_try_ms: Option<u64>,
}

/// A licence, or a feature of one.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LicenseStatus {
    /// The server's id of the licence.
    pub id: i64,
    /// The product.
    pub product: String,
    /// `license_key` or `username`.
    pub holder: &'static str,
    /// The key or the user.
    pub holder_value: String,
    /// Further keys and users that open it.
    pub other_names: Vec<String>,
    /// The feature, if this is one.
    pub feature: Option<String>,
    /// The devices that it is known with.
    pub devices: Vec<String>,
    /// Why it is refused, if it is.
    pub refused: Option<&'static str>,
    /// How many units its total leaves, where the server refuses for the limit all the same: the largest number there is where it has
    /// no limit. A consumption pool that the server does not tell of, perhaps.
    pub refused_with_room: Option<i64>,
    /// The batch whose answer was lost, while nobody can tell what became of it.
    pub unknown: Option<UnknownBatch>,
    /// The consumption pool that it draws from: what fits is the smaller of both.
    pub pool: Option<PoolStatus>,
    /// The highest total that is allowed, overage included; `None` without bound.
    pub cap: Option<i64>,
    /// The limit without overage.
    pub max_consumptions: i64,
    /// Whether the licence has no limit at all. Where it has one, and `cap` is `None`, the overage is without
    /// bound.
    pub unlimited: bool,
    /// The server's total, as last heard of.
    pub server_total: Total,
    /// The total that requests are judged by: the server's and everything of this period that it has
    /// not counted.
    pub total: Total,
    /// The part of it that the server has not counted.
    pub uncounted: i64,
    /// How often it returns to zero.
    pub period: Option<Period>,
    /// When it does next.
    pub resets_at: Option<Timestamp>,
    /// When the server was last heard of it.
    pub refreshed_at: Timestamp,
    /// Where all units are that were ever recorded.
    pub conservation: Conservation,
    /// Units that were sent after their period was over: the server counted them in a later one.
    pub late: Units,
    /// Whether its total ever moved by more than this agent's units: other devices consume of it too.
    pub shared: bool,
    /// What the limit does not protect while other devices cannot be heard of.
    pub exposure: Exposure,
    /// What waits, and why.
    pub held: Vec<HeldBatch>,
}

/// How far the limit could be passed, all devices together, because they did not hear of each other: at
/// worst they have consumed all that the server's last total left. Units beyond the limit are held when
/// they are sent, not lost. Zero where there is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Exposure {
    /// Units granted here that the server has not counted: so many could be beyond the limit now.
    pub now: i64,
    /// So many could be, should this device go on alone until its own limit stops it.
    pub at_worst: i64,
}

/// recorded = settled + pending + in flight + unknown + held + waived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Conservation {
    /// Granted to applications, ever.
    pub recorded: i64,
    /// Counted by the server.
    pub settled: i64,
    /// Not sent yet.
    pub pending: i64,
    /// Sent, and not answered yet.
    pub in_flight: i64,
    /// Sent, and the answer was lost.
    pub unknown: i64,
    /// Waiting for something to change.
    pub held: i64,
    /// Given up by a person's decision.
    pub waived: i64,
}

/// A batch that waits.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HeldBatch {
    /// Its number.
    pub batch: i64,
    /// Its units.
    pub units: Units,
    /// How many consumptions that is.
    pub rows: u64,
    /// The device.
    pub hardware_id: String,
    /// The start of the period in which they were recorded.
    pub period: Option<Timestamp>,
    /// Why: `limit`, `undecidable`, `late`, `gone`, `copy`, or the server's code.
    pub reason: &'static str,
    /// Since when.
    pub since: Option<Timestamp>,
    /// What moves it on by itself.
    pub next_step: &'static str,
    /// When that is at the latest, where it is known.
    pub next_at: Option<Timestamp>,
}

/// A licence as `check_license` tells it, with everything pending counted.
#[derive(Clone, Debug)]
pub struct LicenseView {
    /// The licence.
    pub license: License,
    /// The licence's own counter, then its features'.
    pub standings: Vec<Standings>,
}

impl Conservation {
    /// Whether the sum is right.
    pub fn holds(&self) -> bool {
        let parts = [
            self.settled,
            self.pending,
            self.in_flight,
            self.unknown,
            self.held,
            self.waived,
        ];
        let sum: i128 = parts.into_iter().map(i128::from).sum();
        sum == i128::from(self.recorded)
    }
}

impl Exposure {
    fn of(cap: Option<i64>, counted: Total, total: Total) -> Self {
        let Some(cap) = cap else {
            return Self::default();
        };
        let (counted, total) = (counted.get(), total.get());
        Self {
            now: total.saturating_sub(counted).max(0),
            // Where the limit sank, this device has stopped at its old one already.
            at_worst: cap.max(total).saturating_sub(counted).max(0),
        }
    }
}

impl LicenseStatus {
    /// Who holds it, as may be shown to anybody.
    pub fn masked_holder(&self) -> String {
        let value = self.holder_value.clone();
        match self.holder {
            "license_key" => Holder::LicenseKey(value).masked(),
            _ => value,
        }
    }
}

impl Core {
    /// Everything at a glance.
    pub fn status(&self, now: Moment) -> Status {
        let licenses: Vec<LicenseStatus> = self
            .book
            .licenses()
            .filter(|license| !self.book.is_forgotten(license))
            .flat_map(|license| {
                let accounts = self.book.accounts_of(license.no);
                accounts.map(move |account| self.license_status(now, license, account))
            })
            .collect();
        Status {
            version: env!("CARGO_PKG_VERSION"),
            connection: connection(&self.link, self.owed_to(), now),
            time: now.time,
            time_proven: now.proven,
            server_keeps_idempotency_keys: self.keeps_keys(),
            synced: !self.owes(),
            busy: self.busy() > 0,
            evidence: self.book.evidence(),
            evidence_ever: self.book.evidence_ever(),
            copy: self.copy_status(),
            findings: self.book.findings().to_vec(),
            licenses,
        }
    }

    fn copy_status(&self) -> Option<CopyStatus> {
        let mut known = self.book.copies();
        let explains = known.to_answer().len();
        let copied = known.open.pop()?;
        let held = self.book.batches();
        let held = held.filter(|batch| batch.state == BatchState::Held(Hold::Copy));
        Some(CopyStatus {
            seq: copied.seq.0,
            what: copied.kind,
            since: copied.at,
            newest: copied.newest.0,
            differs: copied.differs,
            host: copied.host,
            path: copied.path,
            written_at: copied.written_at,
            explains: explains as u64,
            held: held
                .map(|batch| batch.units.get())
                .fold(0, i64::saturating_add),
        })
    }

    /// Whether anything is left to send but what is held.
    fn owes(&self) -> bool {
        self.book
            .licenses()
            .flat_map(|license| self.book.accounts_of(license.no))
            .any(|account| {
                let batches = self.book.batches_of(account.no);
                batches
                    .iter()
                    .any(|batch| !matches!(batch.state, BatchState::Held(_)))
            })
    }

    /// Whether something is under way, or due at once.
    pub fn is_working(&self, now: Moment) -> bool {
        self.busy() > 0 || self.wakeup(now).is_some_and(|at| at <= now.mono)
    }

    /// A licence as `check_license` tells it.
    pub fn view(&self, now: Moment, license: &License) -> LicenseView {
        let standings = self
            .book
            .accounts_of(license.no)
            // What is no counter any more stands as the server describes it.
            .filter(|account| account.refused.is_none())
            .filter_map(|account| {
                let standing = effective(&self.book, account);
                let pool = self.book.decide_by_pool(account, Units::ZERO, now.time);
                let told = (self.judged_total(now, account), pool.ok().flatten());
                answer(license, account, &standing, told)
            })
            .collect();
        LicenseView {
            license: license.clone(),
            standings,
        }
    }

    fn judged_total(&self, now: Moment, account: &Account) -> Total {
        let total = account.standing.total_at(now.time);
        let pending = self.book.pending(account, now.time);
        pending
            .and_then(|pending| total.checked_add(pending))
            .unwrap_or(total)
    }

    fn held(&self, now: Moment, account: &Account, batch: &Batch) -> Option<HeldBatch> {
        let BatchState::Held(hold) = batch.state else {
            return None;
        };
        let turn = account.standing.reset.map(|period| period.next(now.time));
        let (reason, next_step, next_at) = match hold {
            Hold::Limit { .. } if self.is_contradicted(account) => {
                let wait = account.watch.contradicted.until;
                let at = now.time.plus(wait.saturating_sub(now.mono));
                (
                    "limit",
                    "tried again now and then, since its total leaves room",
                    Some(at),
                )
            }
            Hold::Limit { .. } if turn.is_some() => (
                "limit",
                "sent when the limit rises or the period turns",
                turn,
            ),
            Hold::Limit { .. } => ("limit", "sent when the limit rises", None),
            Hold::Refused(code) => (code.as_str(), "sent when the server accepts it again", None),
            Hold::Defect(code) => (
                code.as_str(),
                "none: the server refuses the request as wrong",
                None,
            ),
            Hold::Undecidable => (
                "undecidable",
                "none: a person must decide whether it was counted",
                None,
            ),
            Hold::Late => (
                "late",
                "none: a person must decide whether it is sent after its period",
                None,
            ),
            Hold::Gone(_) => (
                "gone",
                "none: its total cannot be read any more; a person must decide whether it was counted",
                None,
            ),
            Hold::Copy => (
                "copy",
                "none: this ledger is a copy; a person must say which one goes on",
                None,
            ),
        };
        let lane = self.book.lane(batch.lane)?;
        Some(HeldBatch {
            batch: batch.no.0,
            units: batch.units,
            rows: batch.rows,
            hardware_id: lane.key.hardware_id.clone(),
            period: lane.key.period,
            reason,
            since: batch.held_at,
            next_step,
            next_at,
        })
    }

    fn other_names(&self, license: &License) -> Vec<String> {
        let names = self.book.names_of(license.no).map(|(name, _)| &name.holder);
        let others: BTreeSet<&Holder> = names.filter(|name| **name != license.holder).collect();
        others
            .into_iter()
            .map(|name| name.value().to_owned())
            .collect()
    }

    fn license_status(&self, now: Moment, license: &License, account: &Account) -> LicenseStatus {
        let standing = effective(&self.book, account);
        let batches = self.book.batches_of(account.no);
        let counted = account.standing.total_at(now.time);
        let total = self.judged_total(now, account);
        LicenseStatus {
            id: license.server_id(),
            product: license.product.clone(),
            holder: license.holder.field(),
            holder_value: license.holder.value().to_owned(),
            other_names: self.other_names(license),
            feature: account.feature.clone(),
            devices: license.devices.keys().cloned().collect(),
            refused: license
                .blocked
                .or_else(|| license.devices.values().flatten().next().copied())
                // Where nothing was ever consumed, that a counter is none is no news.
                .or(account.refused.filter(|_| account.rows > 0))
                .map(tally_shared::wire::ErrorCode::as_str),
            refused_with_room: self.refused_with_room(now, account),
            unknown: self.unknown_batch(now, account),
            pool: self.pool_status(now, account),
            cap: standing.limits.cap(),
            max_consumptions: standing.limits.max_consumptions,
            unlimited: standing.limits.allow_unlimited_consumptions,
            server_total: account.standing.total,
            total,
            uncounted: total.get().saturating_sub(counted.get()),
            period: standing.reset,
            resets_at: standing.reset.map(|period| period.next(now.time)),
            refreshed_at: license.refreshed_at,
            conservation: conservation(account, &batches),
            late: account.late,
            shared: account.shared,
            exposure: Exposure::of(standing.limits.cap(), counted, total),
            held: batches
                .iter()
                .filter_map(|batch| self.held(now, account, batch))
                .collect(),
        }
    }
}

fn connection(link: &Link, owed_to: Option<&str>, now: Moment) -> Connection {
    let state = match link.state() {
        LinkState::Online => "online",
        LinkState::Offline => "offline",
        LinkState::Unreachable => "unreachable",
        LinkState::Refused => "refused",
        LinkState::OtherServer => "other_server",
    };
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let since_ms = millis(now.mono.saturating_sub(link.since()));
    let last = link.reached_at().map(|at| now.mono.saturating_sub(at));
    let pause = link.paused_until().checked_sub(now.mono);
    let pause = pause.filter(|pause| !pause.is_zero() && link.may_be_used());
    Connection {
        state,
        since: now
            .time
            .plus_millis(i64::try_from(since_ms).map_or(i64::MIN, |ms| -ms)),
        since_ms,
        network: link.mode(),
        refused: link.stopped().map(tally_shared::wire::ErrorCode::as_str),
        owed_to: owed_to.map(str::to_owned),
        last_answer_ms: last.map(millis),
        next_try_ms: pause.map(millis),
    }
}

/// Where an account's units are. A sum that does not fit is shown at its bound, and does not hold.
fn conservation(account: &Account, batches: &[&Batch]) -> Conservation {
    let mut sums = Conservation {
        recorded: account.recorded.get(),
        settled: account.settled.get(),
        waived: account.waived.get(),
        ..Conservation::default()
    };
    for batch in batches {
        let part = match batch.state {
            BatchState::Open | BatchState::Sealed => &mut sums.pending,
            BatchState::Sent => &mut sums.in_flight,
            BatchState::Unknown { .. } => &mut sums.unknown,
            BatchState::Held(_) => &mut sums.held,
            BatchState::Settled | BatchState::Superseded | BatchState::Waived => continue,
        };
        *part = part.saturating_add(batch.units.get());
    }
    sums
}
