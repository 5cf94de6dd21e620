//! What was consumed of a licence over time, by application: for people who look at a chart, on a
//! connection of their own.

use std::{collections::BTreeMap, path::Path};

use rusqlite::{Connection, OptionalExtension as _, named_params};
use serde::{Deserialize, Serialize};
use tally_shared::{period::Period, time::Timestamp};

use super::{LedgerError, schema};

/// So many rows are summed at most, the newest ones: a chart takes a moment, however long the ledger is.
const ROWS_MAX: i64 = 1_000_000;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// How far back to look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Span {
    /// An hour, by the minute.
    Hour,
    /// A day, by the half hour.
    #[default]
    Day,
    /// A week, by four hours.
    Week,
    /// 31 days, by the day.
    Month,
}

/// Whose consumption to sum.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
pub struct Question {
    /// The product.
    pub product: String,
    /// The licence: its key, or its user.
    pub license: String,
    /// The server's id of the licence, where a user holds several.
    pub id: Option<i64>,
    /// The feature; the licence's own units where it is not given.
    pub feature: Option<String>,
    /// How far back.
    #[serde(default)]
    pub span: Span,
}

/// What was consumed of a licence over time. Fields are added, never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Usage {
    /// When the first step begins.
    pub from: Timestamp,
    /// When the last one ends.
    pub to: Timestamp,
    /// How long a step is, in milliseconds.
    pub step_ms: i64,
    /// The applications, by name.
    pub apps: Vec<AppUsage>,
    /// When the total returned to zero, and does by the end of the last step.
    pub resets: Vec<Timestamp>,
    /// The place of the first row that was summed, where there were too many for all.
    pub from_seq: Option<i64>,
}

/// What an application consumed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AppUsage {
    /// The application.
    pub name: String,
    /// Its units, step by step.
    pub units: Vec<i64>,
}

impl Span {
    /// The length of a step, and how many there are.
    const fn steps(self) -> (i64, usize) {
        match self {
            Self::Hour => (MINUTE, 60),
            Self::Day => (HOUR / 2, 48),
            Self::Week => (4 * HOUR, 42),
            Self::Month => (DAY, 31),
        }
    }
}

/// Sums what was consumed up to now. Rows that were folded into daily sums count at the start of their
/// day, where that is within the span.
///
/// # Errors
///
/// [`LedgerError`].
pub fn usage(
    path: &Path,
    question: &Question,
    now: Timestamp,
    period: Option<Period>,
) -> Result<Usage, LedgerError> {
    let (step_ms, steps) = question.span.steps();
    let length = step_ms * i64::try_from(steps).unwrap_or(0);
    let to = (now.as_millis().div_euclid(step_ms) + 1) * step_ms;
    let (from, to) = (
        Timestamp::from_millis(to.saturating_sub(length)),
        Timestamp::from_millis(to),
    );
    let connection = schema::open_read_only(path)?;
    let failed = LedgerError::while_doing("summing what was consumed");
    let (sums, from_seq) = sum(&connection, question, (from, to), step_ms).map_err(failed)?;
    let mut apps: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for (app, step, units) in sums {
        let units_of = apps.entry(app).or_insert_with(|| vec![0; steps]);
        if let Some(sum) = usize::try_from(step)
            .ok()
            .and_then(|it| units_of.get_mut(it))
        {
            *sum = sum.saturating_add(units);
        }
    }
    Ok(Usage {
        from,
        to,
        step_ms,
        apps: apps
            .into_iter()
            .map(|(name, units)| AppUsage { name, units })
            .collect(),
        resets: resets(period, from, to),
        from_seq,
    })
}

fn resets(period: Option<Period>, from: Timestamp, to: Timestamp) -> Vec<Timestamp> {
    let Some(period) = period else {
        return Vec::new();
    };
    let mut resets = Vec::new();
    // From a moment before, so that a reset at the start itself is among them.
    let mut next = period.next(from.plus_millis(-1));
    while next <= to {
        resets.push(next);
        next = period.next(next);
    }
    resets
}

/// An application, a step, and the units in it.
type Sum = (String, i64, i64);

fn sum(
    connection: &Connection,
    question: &Question,
    (from, to): (Timestamp, Timestamp),
    step_ms: i64,
) -> rusqlite::Result<(Vec<Sum>, Option<i64>)> {
    let newest: Option<i64> =
        connection.query_row("SELECT max(seq) FROM consumptions", [], |row| row.get(0))?;
    let first = first_since(connection, from, newest.unwrap_or(0))?;
    let bound = newest.unwrap_or(0).saturating_sub(ROWS_MAX - 1);
    let from_seq = (bound > first).then_some(bound);
    let mut statement = connection.prepare(
        "WITH wanted AS (
             SELECT lanes.no FROM lanes
             JOIN accounts ON accounts.no = lanes.account
             JOIN licenses ON licenses.no = accounts.license
             WHERE product = :product AND holder_value = :license AND feature IS :feature
                 AND (:id IS NULL OR id = :id)
         ), sums AS (
             SELECT app, (at - :from) / :step AS step, units FROM consumptions
             WHERE seq >= :first AND at >= :from AND at < :to AND lane IN wanted
             UNION ALL
             SELECT app, (day - :from) / :step, units FROM daily
             WHERE day >= :from AND day < :to AND lane IN wanted
         )
         SELECT name, step, sum(units) FROM sums JOIN apps ON apps.no = app GROUP BY app, step",
    )?;
    let parameters = named_params! {
        ":product": question.product,
        ":license": question.license,
        ":feature": question.feature,
        ":id": question.id,
        ":from": from.as_millis(),
        ":to": to.as_millis(),
        ":step": step_ms,
        ":first": first.max(bound),
    };
    let rows = statement.query_map(parameters, |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    })?;
    Ok((rows.collect::<rusqlite::Result<_>>()?, from_seq))
}

/// The first place whose row is not older. Rows are in the order of time, so halving finds it.
fn first_since(connection: &Connection, from: Timestamp, newest: i64) -> rusqlite::Result<i64> {
    let mut statement = connection
        .prepare("SELECT seq, at FROM consumptions WHERE seq >= ?1 ORDER BY seq LIMIT 1")?;
    let (mut low, mut high) = (1, newest + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        let found: Option<(i64, i64)> = statement
            .query_row([middle], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        match found {
            Some((seq, at)) if at < from.as_millis() => low = seq + 1,
            _ => high = middle,
        }
    }
    Ok(low)
}
