//! Why a consumption was granted: the limits, the totals and the time it was judged by.

use std::path::Path;

use rusqlite::{OptionalExtension as _, params};
use serde::{Deserialize, Serialize};
use tally_shared::{
    limits::{Limits, OverageSetting, Standing},
    period::Period,
    time::Timestamp,
    units::Total,
};

use super::{
    LedgerError,
    reader::{self, LogRow},
    schema,
};

/// A row, and what it was judged by. Fields are added, never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Explained {
    /// The row.
    pub row: LogRow,
    /// The overage setting that came with the request and is sent with it.
    pub setting: OverageSetting,
    /// What the consumption was judged by; `None` for what is no consumption, and for rows from before
    /// this was kept.
    pub judged_by: Option<JudgedBy>,
}

/// What a consumption was judged by. Fields are added, never changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JudgedBy {
    /// The limits.
    #[serde(flatten)]
    pub limits: Limits,
    /// The highest total that they allow, overage included; `None` without bound.
    pub cap: Option<i64>,
    /// How often the total returns to zero.
    pub period: Option<Period>,
    /// The start of the period that the units count in.
    pub period_start: Option<Timestamp>,
    /// The server's total, as it was known.
    pub server_total: i64,
    /// When that was right.
    pub server_total_at: Timestamp,
    /// The part of it that counts in the period.
    pub counted: i64,
    /// What was granted here in the period and not counted by the server.
    pub uncounted: i64,
    /// Both together: the total before the consumption.
    pub total_before: i64,
}

impl JudgedBy {
    /// Of a consumption at that time, with that total before it.
    pub fn new(standing: &Standing, at: Timestamp, total_before: i64) -> Self {
        let counted = standing.total_at(at).get();
        Self {
            limits: standing.limits,
            cap: standing.limits.cap(),
            period: standing.reset,
            period_start: standing.period_start(at),
            server_total: standing.total.get(),
            server_total_at: standing.as_of,
            counted,
            uncounted: total_before.saturating_sub(counted),
            total_before,
        }
    }
}

/// Explains the row at a place; `None` where there is none, or it was folded.
///
/// # Errors
///
/// [`LedgerError`].
pub fn explain(path: &Path, seq: i64) -> Result<Option<Explained>, LedgerError> {
    let page = reader::Page {
        after: Some(seq.saturating_sub(1)),
        limit: Some(1),
        ..reader::Page::default()
    };
    let found = reader::rows(path, &page)?.rows.into_iter().next();
    let Some(row) = found.filter(|row| row.seq == seq) else {
        return Ok(None);
    };
    let connection = schema::open_read_only(path)?;
    let failed = LedgerError::while_doing("reading what a row was judged by");
    let sql =
        "SELECT lanes.allow_overages, lanes.max_overages, j.total, j.as_of, j.max_consumptions,
                      j.allow_unlimited_consumptions, j.allow_negative_consumptions,
                      j.allow_overages, j.max_overages, j.period
               FROM consumptions c JOIN lanes ON lanes.no = c.lane
               LEFT JOIN (SELECT seq AS since, * FROM judgements) j
                   ON j.account = lanes.account AND since = (
                       SELECT max(seq) FROM judgements
                       WHERE account = lanes.account AND seq <= c.seq)
               WHERE c.seq = ?1";
    let found = connection
        .query_row(sql, params![seq], |row| {
            let setting = OverageSetting {
                allow_overages: row.get(0)?,
                max_overages: row.get(1)?,
            };
            let Some(total) = row.get::<_, Option<i64>>(2)? else {
                return Ok((setting, None));
            };
            let period: Option<String> = row.get(9)?;
            let standing = Standing {
                limits: Limits {
                    max_consumptions: row.get(4)?,
                    allow_unlimited_consumptions: row.get(5)?,
                    allow_negative_consumptions: row.get(6)?,
                    allow_overages: row.get(7)?,
                    max_overages: row.get(8)?,
                },
                reset: period.and_then(|name| {
                    let mut all = Period::ALL.into_iter();
                    all.find(|period| period.as_str() == name)
                }),
                total: Total::new(total),
                as_of: Timestamp::from_millis(row.get(3)?),
            };
            Ok((setting, Some(standing)))
        })
        .optional()
        .map_err(failed)?;
    let (setting, standing) = found.unwrap_or_default();
    let judged_by = standing
        .map(|standing| JudgedBy::new(&standing, row.at, row.total.saturating_sub(row.units)));
    Ok(Some(Explained {
        row,
        setting,
        judged_by,
    }))
}
