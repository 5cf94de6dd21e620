//! What testers order, whoever asks: the control surface, a scenario that is played, or a program that has
//! the stub inside it. Each order is told to whoever listens.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tally_shared::{
    period::Period,
    time::Timestamp,
    wire::{ApiError, ErrorCode},
};

use crate::{
    api::{error::Failure, state::Shared},
    engine::{
        clock::{Clock, Reading},
        state::License,
    },
    faults::{
        plan::{self, Plan},
        spec::Fault,
    },
    network::{self, spec::NetworkState},
    seed::{ApiKey, ApiKeyState, complete_licenses},
};

/// One way to move the stub's clock: to a time, to the start of the next period, or by some time.
/// `advance_ms` also goes with `next_period`, and means before or after it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockChange {
    /// To this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<Timestamp>,
    /// To the moment when the next period of this kind begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_period: Option<Period>,
    /// Forward by so many seconds, or back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advance_seconds: Option<i64>,
    /// Forward by so many milliseconds, or back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advance_ms: Option<i64>,
}

impl ClockChange {
    /// What the clock shows after it, if it shows `now` before.
    ///
    /// # Errors
    ///
    /// What is wrong, where it is not one way to move a clock.
    pub fn applied_to(&self, now: Timestamp) -> Result<Timestamp, &'static str> {
        match (
            self.now,
            self.next_period,
            self.advance_seconds,
            self.advance_ms,
        ) {
            (Some(to), None, None, None) => Ok(to),
            (None, Some(period), None, more_ms) => {
                Ok(period.next(now).plus_millis(more_ms.unwrap_or(0)))
            }
            (None, None, Some(seconds), None) => Ok(now.plus_millis(seconds.saturating_mul(1000))),
            (None, None, None, Some(ms)) => Ok(now.plus_millis(ms)),
            _ => Err(
                "give one of `now`, `advance_seconds`, `advance_ms`, and `next_period` with or without \
                 `advance_ms`",
            ),
        }
    }
}

/// Puts faults in force, in the place of all others.
pub(crate) fn set_faults(
    shared: &Shared,
    ordered: Vec<Fault>,
) -> Result<Vec<plan::Report>, ApiError> {
    let plan = Plan::new(ordered).map_err(|error| invalid(error.to_string()))?;
    let report = plan.report();
    // Told under the lock, so that nobody hears of an older list later.
    let mut current = shared.faults();
    *current = plan;
    shared.live.tell("faults", &report);
    Ok(report)
}

/// Puts a state of the network in force.
pub(crate) fn set_network(
    shared: &Shared,
    state: NetworkState,
) -> Result<network::Report, ApiError> {
    let set = shared.network.set(state);
    let report = set.map_err(|error| invalid(error.to_string()))?;
    tell_network(shared);
    Ok(report)
}

/// Tells who listens of the network as it is at this moment.
pub(crate) fn tell_network(shared: &Shared) {
    shared
        .network
        .tell(|report| shared.live.tell("network", report));
}

/// Tells who listens of every licence. Under the lock of the database, so that nobody hears of older totals later.
pub(crate) async fn tell_licenses(shared: &Arc<Shared>) -> Result<(), ApiError> {
    if !shared.live.is_heard() {
        return Ok(());
    }
    let told = shared.blocking(|shared| {
        let mut store = shared.store();
        let licenses = store.begin()?.licenses(shared.clock.now())?;
        shared.live.tell("licenses", &licenses);
        Ok(())
    });
    told.await
}

/// Moves the clock; a restart does not turn it back.
pub(crate) async fn move_clock(
    shared: &Arc<Shared>,
    change: &ClockChange,
) -> Result<Reading, ApiError> {
    let shown = change.applied_to(shared.clock.now()).map_err(invalid)?;
    let offset_ms = Clock::offset_to_show(shown);
    let reading = shared
        .blocking(move |shared| {
            let mut store = shared.store();
            let tx = store.begin()?;
            tx.set_clock_offset_ms(offset_ms)?;
            tx.commit()?;
            shared.clock.set_offset(offset_ms);
            Ok(shared.clock.read())
        })
        .await?;
    shared.live.tell("clock", &reading);
    // A period may have turned, and totals with it.
    tell_licenses(shared).await?;
    Ok(reading)
}

/// The answer to who asks for idempotency keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Idempotency {
    /// True where `Idempotency-Key` is heeded.
    pub enabled: bool,
}

/// Says if idempotency keys are kept at this moment.
pub(crate) fn idempotency(shared: &Shared) -> Idempotency {
    let enabled = shared.keeps_keys();
    Idempotency { enabled }
}

/// Keeps idempotency keys from now on, or no longer, as where a server is upgraded. Keys that are kept stay kept; a start
/// takes what its command line says.
pub(crate) fn keep_keys(shared: &Shared, enabled: bool) -> Idempotency {
    shared.keep_keys(enabled);
    let report = idempotency(shared);
    shared.live.tell("idempotency", &report);
    report
}

/// An order about an API key; fields that are left out stay as they are.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyEdit {
    /// The secret that signs; a new key needs one.
    pub shared_key: Option<String>,
    /// The key's rights.
    pub state: Option<ApiKeyState>,
}

impl std::fmt::Debug for ApiKeyEdit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiKeyEdit")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// Every API key, by name.
pub(crate) async fn api_keys(shared: &Arc<Shared>) -> Result<Vec<ApiKey>, ApiError> {
    let read = shared.blocking(|shared| Ok(shared.store().begin()?.api_keys()?));
    read.await
}

/// The API key of that name.
pub(crate) async fn api_key(shared: &Arc<Shared>, name: &str) -> Result<ApiKey, ApiError> {
    let wanted = name.to_owned();
    let found = shared.blocking(move |shared| Ok(shared.store().begin()?.api_key(&wanted)?));
    found.await?.ok_or_else(|| no_such_api_key(name))
}

/// Adds an API key, or changes the one of that name; the idempotency keys that belong to it stay its own.
pub(crate) async fn put_api_key(
    shared: &Arc<Shared>,
    name: String,
    edit: ApiKeyEdit,
) -> Result<ApiKey, ApiError> {
    let stored = shared.blocking(move |shared| {
        let mut store = shared.store();
        let tx = store.begin()?;
        let earlier = tx.api_key(&name)?;
        let state = earlier
            .as_ref()
            .map_or_else(ApiKeyState::default, |it| it.state);
        let secret = edit.shared_key.or(earlier.map(|it| it.shared_key));
        let key = ApiKey {
            api_key: name,
            shared_key: secret
                .filter(|secret| !secret.is_empty())
                .ok_or_else(|| invalid("an API key needs a `shared_key`"))?,
            state: edit.state.unwrap_or(state),
        };
        tx.put_api_key(&key)?;
        tx.commit()?;
        Ok(key)
    });
    stored.await
}

/// Removes an API key: nobody has it any more.
pub(crate) async fn remove_api_key(
    shared: &Arc<Shared>,
    name: String,
) -> Result<Vec<ApiKey>, ApiError> {
    let removed = shared.blocking(move |shared| {
        let mut store = shared.store();
        let tx = store.begin()?;
        if !tx.remove_api_key(&name)? {
            return Err(no_such_api_key(&name).into());
        }
        let left = tx.api_keys()?;
        tx.commit()?;
        Ok(left)
    });
    removed.await
}

/// Removes a licence: it is there no more, under no name.
pub(crate) async fn remove_license(shared: &Arc<Shared>, id: i64) -> Result<License, ApiError> {
    let removed = shared.blocking(move |shared| {
        let mut store = shared.store();
        let now = shared.clock.now();
        let tx = store.begin()?;
        let license = tx.license(id, now)?.ok_or_else(|| no_such_license(id))?;
        tx.remove_license(id, now)?;
        tx.commit()?;
        Ok(license)
    });
    let removed = removed.await?;
    tell_licenses(shared).await?;
    Ok(removed)
}

/// Every licence, its total as it stands at this moment.
pub(crate) async fn licenses(shared: &Arc<Shared>) -> Result<Vec<License>, ApiError> {
    let read = shared.blocking(|shared| {
        let now = shared.clock.now();
        Ok(shared.store().begin()?.licenses(now)?)
    });
    read.await
}

/// The licence of that id.
pub(crate) async fn license(shared: &Arc<Shared>, id: i64) -> Result<License, ApiError> {
    let found = shared.blocking(move |shared| {
        let now = shared.clock.now();
        Ok(shared.store().begin()?.license(id, now)?)
    });
    found.await?.ok_or_else(|| no_such_license(id))
}

/// Adds a licence, or puts it in the place of the one with its id.
pub(crate) async fn put_license(
    shared: &Arc<Shared>,
    license: License,
) -> Result<License, ApiError> {
    edit_license(shared, license.id, move |_| Ok(license)).await
}

/// Changes fields of a licence; null gives a field its default (RFC 7396, on the top level).
pub(crate) async fn patch_license(
    shared: &Arc<Shared>,
    id: i64,
    fields: Map<String, Value>,
) -> Result<License, ApiError> {
    edit_license(shared, id, move |license| {
        let license = license.ok_or_else(|| no_such_license(id))?;
        patched(license, fields)
    })
    .await
}

fn patched(license: &License, fields: Map<String, Value>) -> Result<License, ApiError> {
    let mut whole = serde_json::to_value(license).map_err(|error| invalid(error.to_string()))?;
    if let Some(whole) = whole.as_object_mut() {
        for (name, value) in fields {
            whole.insert(name, value);
        }
        whole.retain(|_, value| !value.is_null());
    }
    let patched: License =
        serde_json::from_value(whole).map_err(|error| invalid(error.to_string()))?;
    if patched.id != license.id {
        return Err(invalid("the `id` of a licence cannot be changed"));
    }
    Ok(patched)
}

/// One transaction, so that nothing is consumed between reading and writing; a feature without an id keeps
/// that of the feature whose code it has.
async fn edit_license(
    shared: &Arc<Shared>,
    id: i64,
    edit: impl FnOnce(Option<&License>) -> Result<License, ApiError> + Send + 'static,
) -> Result<License, ApiError> {
    let stored = shared.blocking(move |shared| {
        let mut store = shared.store();
        let now = shared.clock.now();
        let tx = store.begin()?;
        let mut all = tx.licenses(now)?;
        let place = all.iter().position(|other| other.id == id);
        let earlier = place.map(|index| all.remove(index));
        let mut license = edit(earlier.as_ref())?;
        if let Some(earlier) = earlier {
            keep_feature_ids(&mut license, &earlier);
        }
        let products = tx.products()?;
        let products: Vec<&str> = products.iter().map(String::as_str).collect();
        all.insert(0, license);
        complete_licenses(&mut all, &products).map_err(|mistake| invalid(mistake.to_string()))?;
        let license = all.swap_remove(0);
        tx.put_license(&license, now)?;
        tx.commit()?;
        Ok::<_, Failure>(license)
    });
    let stored = stored.await?;
    tell_licenses(shared).await?;
    Ok(stored)
}

fn keep_feature_ids(license: &mut License, earlier: &License) {
    let features = license.features.iter_mut();
    for feature in features.filter(|feature| feature.id == 0) {
        let same = earlier.features.iter().find(|old| old.code == feature.code);
        feature.id = same.map_or(0, |old| old.id);
    }
}

/// A refusal of what a tester asked for.
pub(crate) fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::ValidationError, message)
}

fn no_such_api_key(name: &str) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("there is no API key `{name}`"))
}

fn no_such_license(id: i64) -> ApiError {
    let message = format!("there is no licence with id {id}");
    ApiError::new(ErrorCode::NotFound, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(change: &str, from: &str, to: &str) {
        let change: ClockChange = serde_json::from_str(change).unwrap();
        let shown = change.applied_to(Timestamp::parse(from).unwrap());
        assert_eq!(shown, Ok(Timestamp::parse(to).unwrap()));
    }

    #[test]
    fn a_clock_goes_to_the_turn_of_a_period_or_beside_it() {
        let wednesday = "2026-03-18T15:00:00Z";
        check(r#"{"next_period": "daily"}"#, wednesday, "2026-03-19");
        check(r#"{"next_period": "weekly"}"#, wednesday, "2026-03-23");
        check(r#"{"next_period": "monthly"}"#, wednesday, "2026-04-01");
        check(r#"{"next_period": "annually"}"#, wednesday, "2027-01-01");
        let before = r#"{"next_period": "monthly", "advance_ms": -2500}"#;
        check(before, wednesday, "2026-03-31T23:59:57.500Z");
    }

    #[test]
    fn two_ways_at_once_are_none() {
        let change = ClockChange {
            now: Some(Timestamp::default()),
            next_period: Some(Period::Daily),
            ..ClockChange::default()
        };
        assert!(change.applied_to(Timestamp::default()).is_err());
        assert!(
            ClockChange::default()
                .applied_to(Timestamp::default())
                .is_err()
        );
    }
}
