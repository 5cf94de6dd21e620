//! Deciding one consumption, and writing it into the book.

use tally_shared::{
    limits::{Limits, OverageSetting, Refusal, Standing, decide},
    units::{Total, Units},
    wire::{
        AddConsumption, ApiError, ConsumptionEvent, Counter, ErrorCode, FeatureCounter, InPool,
        PoolCounter, check_license::LICENSE_TYPE_CONSUMPTION,
    },
};

use super::{
    book::{Account, AccountNo, AppNo, Batch, BatchNo, Book, LaneKey, License, Row, Seq},
    chain,
    clock::Moment,
    refusal::Judged,
};

/// A granted consumption.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Its row; `None` where there was nothing to record, because it added and set nothing.
    pub seq: Option<Seq>,
    /// The answer for the application.
    pub answer: Standings,
}

/// How a licence or a feature stands, with everything pending counted.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(untagged)]
pub enum Standings {
    /// The answer of `add_consumption`.
    License(InPool<Counter>),
    /// The answer of `add_feature_consumption`.
    Feature(InPool<FeatureCounter>),
}

/// Why nothing was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// Refused, as the server would.
    Refused(ApiError),
    /// The licence, the device or the feature is not known here; the server may know it.
    Unknown,
}

pub(super) fn record(
    book: &mut Book,
    now: Moment,
    app: AppNo,
    request: &AddConsumption,
    offline: bool,
) -> Result<Recorded, Rejected> {
    let license = book.find(&request.subject).ok_or(Rejected::Unknown)?;
    let device = license.devices.get(&request.subject.hardware_id);
    let refused = device.ok_or(Rejected::Unknown)?;
    check_license(license, request, now).map_err(Rejected::Refused)?;
    if let Some(code) = refused {
        return Err(Rejected::Refused(device_refusal(*code, request)));
    }
    let account = book.account_of(license.no, request.feature.as_deref());
    let account = account.ok_or(Rejected::Unknown)?;

    if let Some(code) = account.refused {
        let why = match account.feature {
            Some(_) => "the licence server refuses this feature",
            None => "the licence server refuses consumptions of this licence",
        };
        return Err(Rejected::Refused(ApiError::new(code, why)));
    }
    let standing = effective(book, account);
    let refused = |refusal: Refusal| {
        let code = ErrorCode::from_refusal(refusal, request.feature.is_some());
        Rejected::Refused(ApiError::new(code, refusal.to_string()))
    };
    let pending = book
        .pending(account, now.time)
        .ok_or_else(|| refused(Refusal::Overflow))?;
    let grant = decide(&standing, pending, &request.request(), now.time).map_err(refused)?;
    let pool = book.decide_by_pool(account, request.units, now.time);
    let pool = pool.map_err(refused)?;
    book.decide_by_refusals(account, pending, request.units, now.time)
        .map_err(refused)?;
    if account.recorded.checked_add(request.units).is_none() {
        return Err(refused(Refusal::Overflow));
    }

    let after = Standing {
        limits: grant.limits,
        ..standing
    };
    let answer = answer(license, account, &after, (grant.total, pool)).ok_or(Rejected::Unknown)?;
    // A setting that is in force already need not be sent: it would split requests for nothing.
    let setting = if grant.limits == standing.limits {
        OverageSetting::default()
    } else {
        request.setting
    };
    if request.units == Units::ZERO && setting.is_empty() {
        return Ok(Recorded { seq: None, answer });
    }
    let key = LaneKey {
        account: account.no,
        hardware_id: request.subject.hardware_id.clone(),
        event: event_of(request, offline),
        period: standing.period_start(now.time),
        setting,
    };
    let account = account.no;
    let seq = enter(book, now, app, key, request.units, grant.total);
    book.judge(account, seq, standing);
    Ok(Recorded {
        seq: Some(seq),
        answer,
    })
}

/// What a request is judged by, where its account is known.
pub(super) fn judged(book: &Book, now: Moment, request: &AddConsumption) -> Option<Judged> {
    let license = book.find(&request.subject)?;
    let account = book.account_of(license.no, request.feature.as_deref())?;
    let standing = effective(book, account);
    let pending = book.pending(account, now.time)?;
    Some(Judged {
        standing,
        total_before: standing.total_at(now.time).checked_add(pending)?,
    })
}

/// How an account stands with the overage settings that were granted and not settled yet, as far as they are sent.
pub(super) fn effective(book: &Book, account: &Account) -> Standing {
    let is_set = |batch: &Batch| !book.setting_of(batch).is_empty();
    let batches = book
        .batches_of_counter(account)
        .filter(|batch| is_set(batch));
    let mut settings: Vec<_> = batches
        .map(|batch| (batch.first, book.setting_of(batch)))
        .collect();
    if settings.is_empty() {
        return account.standing;
    }
    settings.sort_by_key(|(first, _)| *first);
    let settings = settings.into_iter().map(|(_, setting)| setting);
    let limits = settings.fold(account.standing.limits, Limits::with);
    Standing {
        limits,
        ..account.standing
    }
}

/// The answer for a licence or a feature that stands so.
pub(super) fn answer(
    license: &License,
    account: &Account,
    standing: &Standing,
    (total, pool): (Total, Option<PoolCounter>),
) -> Option<Standings> {
    let Some(code) = &account.feature else {
        let counter = Counter::new(license.body.counter.id, standing, total);
        return Some(Standings::License(InPool { counter, pool }));
    };
    let feature = license
        .body
        .product_features
        .iter()
        .find(|feature| &feature.code == code)?;
    let counter = feature.with(standing, total);
    Some(Standings::Feature(InPool { counter, pool }))
}

/// The server's checks that come before the limit, in its order, by what it last said.
fn check_license(license: &License, request: &AddConsumption, now: Moment) -> Result<(), ApiError> {
    let refuse = |code: ErrorCode, why: &str| Err(ApiError::new(code, why));
    if let Some(code) = license.blocked {
        return refuse(code, "the licence server refuses this licence");
    }
    let body = &license.body;
    if !body.license_enabled {
        return refuse(
            ErrorCode::LicenseNotEnabled,
            "the vendor disabled this licence",
        );
    }
    if !body.license_active {
        return refuse(ErrorCode::LicenseNotActive, "this licence is not active");
    }
    if body.is_over(now.time) {
        return refuse(
            ErrorCode::LicenseExpired,
            "the validity period of this licence is over",
        );
    }
    if request.feature.is_none() && body.license_type != LICENSE_TYPE_CONSUMPTION {
        return refuse(
            ErrorCode::LicenseNotConsumption,
            "this licence is not of type consumption",
        );
    }
    Ok(())
}

fn device_refusal(code: ErrorCode, request: &AddConsumption) -> ApiError {
    let device = &request.subject.hardware_id;
    ApiError::new(
        code,
        format!("the licence server refuses the device {device:?}"),
    )
}

/// An application that is itself an agent says which of its units were consumed offline.
const fn event_of(request: &AddConsumption, offline: bool) -> ConsumptionEvent {
    if offline {
        ConsumptionEvent::OfflineSync
    } else {
        request.event
    }
}

/// Appends the row and counts it in its account and in its lane's open batch.
fn enter(
    book: &mut Book,
    now: Moment,
    app: AppNo,
    key: LaneKey,
    units: Units,
    total: Total,
) -> Seq {
    let account = key.account;
    if !key.setting.is_empty() {
        // What was granted before a setting changed must reach the server before it.
        close_open_batches(book, account);
    }
    let lane = book.lane_of(key);
    let digest = book
        .lane(lane)
        .map_or(chain::Hash::ORIGIN, |lane| lane.digest);
    let (seq, hash) = book.add_row(|seq, previous, key| {
        let link = chain::Link {
            seq,
            lane: &digest,
            app,
            units,
            total,
            at: now.time,
            time_proven: now.proven,
        };
        let hash = key.next(previous, &link);
        Row {
            seq,
            lane,
            app,
            units,
            total,
            at: now.time,
            time_proven: now.proven,
            hash,
        }
    });
    let open = book
        .any_batches_of(account)
        .filter(|batch| batch.lane == lane && batch.accepts(units))
        .min_by_key(|batch| batch.first);
    let no = match open.map(|batch| batch.no) {
        Some(no) => no,
        None => book.add_batch(|no| Batch::open(no, lane, account, seq, now.mono)),
    };
    book.grow(account, no, (seq, hash), units);
    seq
}

fn close_open_batches(book: &mut Book, account: AccountNo) {
    let open: Vec<BatchNo> = book
        .any_batches_of(account)
        .filter(|batch| batch.is_open())
        .map(|batch| batch.no)
        .collect();
    for no in open {
        if let Some(batch) = book.batch_mut(no) {
            batch.closed = true;
        }
    }
}
