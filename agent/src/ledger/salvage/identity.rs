//! Whose the rows are, where the tables that say so are damaged.
//!
//! A row's hash covers what its lane stands for. So where a lane or an account is lost, each that is
//! possible can be tried, and the hash proves the right one. What cannot be proved is put under a
//! licence called `lost`, which is never asked about and never sent for.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, params};
use tally_shared::{
    limits::{OverageSetting, Standing},
    period::Period,
    time::Timestamp,
    units::{Total, Units},
    wire::ConsumptionEvent,
};

use super::mend;
use crate::{
    core::{
        book::{
            Account, AccountNo, AccountWatch, AppNo, LaneKey, LaneNo, License, NewestSettings, Seq,
        },
        chain::{self, Hash},
    },
    ledger::{LedgerError, store},
};

/// The product that stands for one that is not known any more.
pub(super) const LOST: &str = "lost";

/// So many rows of a lane are tried.
const SAMPLES: i64 = 3;

/// What was restored, and what was not.
#[derive(Debug, Default)]
pub(super) struct Restored {
    /// Lanes of which nobody knows whose they are.
    pub(super) lost_lanes: BTreeSet<i64>,
    /// What was put right, and is proved.
    pub(super) proved: Vec<String>,
    /// What is missing.
    pub(super) missing: Vec<String>,
}

/// A row, and the hash before it.
struct Sample {
    previous: Hash,
    hash: Hash,
    seq: Seq,
    app: AppNo,
    units: Units,
    total: Total,
    at: Timestamp,
    time_proven: bool,
}

struct Candidates {
    licenses: Vec<License>,
    accounts: BTreeMap<AccountNo, Account>,
    lanes: BTreeMap<LaneNo, LaneKey>,
    chain: chain::Key,
}

/// Restores what rows, batches and sums refer to.
pub(super) fn restore(
    connection: &Connection,
    chain: &chain::Key,
) -> Result<Restored, LedgerError> {
    let failed = LedgerError::while_doing("finding out whose the rows are");
    let mut restored = Restored::default();
    let contents = store::load(connection, chain)?;
    let mut known = Candidates {
        licenses: contents.licenses,
        accounts: contents
            .accounts
            .into_iter()
            .map(|found| (found.no, found))
            .collect(),
        lanes: contents.lanes.into_iter().collect(),
        chain: chain.clone(),
    };
    restore_all(connection, &mut known, &mut restored).map_err(failed)?;
    Ok(restored)
}

fn restore_all(
    connection: &Connection,
    known: &mut Candidates,
    restored: &mut Restored,
) -> rusqlite::Result<()> {
    for lane in used_lanes(connection)? {
        let samples = samples(connection, lane)?;
        let key = known.lanes.get(&LaneNo(lane)).cloned();
        let whose = key.as_ref().and_then(|key| known.whose(key));
        let fits = |sample: &Sample| {
            let (Some(key), Some((license, account))) = (&key, whose) else {
                return false;
            };
            let digest = chain::lane_digest(Some(license), Some(account), key);
            sample.fits(&digest, &known.chain)
        };
        if whose.is_some() && (samples.is_empty() || samples.iter().any(fits)) {
            continue;
        }
        let proof = samples
            .iter()
            .find_map(|sample| known.prove(sample, key.as_ref()));
        match proof {
            Some((license, feature, found)) => {
                let wanted = key.as_ref().map(|key| key.account);
                let account =
                    known.account(connection, (license, feature.as_deref()), wanted, restored)?;
                write_lane(connection, lane, &LaneKey { account, ..found })?;
                restored
                    .proved
                    .push(format!("whose the rows of lane {lane} are"));
            }
            None if key.is_none() => {
                restored.lost_lanes.insert(lane);
            }
            // Its account is made below, or its licence's name is another now: the chain says so.
            None => {}
        }
    }
    add_lost(connection, restored)
}

impl Candidates {
    fn whose(&self, key: &LaneKey) -> Option<(&License, &Account)> {
        let account = self.accounts.get(&key.account)?;
        let license = self
            .licenses
            .iter()
            .find(|license| license.no == account.license)?;
        Some((license, account))
    }

    /// The licence, feature and lane that the row's hash proves.
    fn prove(
        &self,
        sample: &Sample,
        like: Option<&LaneKey>,
    ) -> Option<(usize, Option<String>, LaneKey)> {
        let others = || self.lanes.values().chain(like);
        let starts = Period::ALL
            .into_iter()
            .map(|period| Some(period.start(sample.at)));
        let mut periods: Vec<Option<Timestamp>> = std::iter::once(None).chain(starts).collect();
        periods.extend(others().map(|lane| lane.period));
        periods.sort_unstable();
        periods.dedup();
        let maxima = self
            .accounts
            .values()
            .map(|account| account.standing.limits.max_overages);
        let maxima: BTreeSet<Option<i64>> = maxima.map(Some).chain([None, Some(0)]).collect();
        let mut settings: BTreeSet<OverageSetting> = others().map(|lane| lane.setting).collect();
        for allow_overages in [None, Some(true), Some(false)] {
            settings.extend(maxima.iter().map(|max_overages| OverageSetting {
                allow_overages,
                max_overages: *max_overages,
            }));
        }
        for (index, license) in self.licenses.iter().enumerate() {
            let known = others().map(|lane| &lane.hardware_id);
            let devices: BTreeSet<&String> = license.devices.keys().chain(known).collect();
            for feature in self.features(license) {
                let account = stand_in(license, feature.as_deref());
                for device in &devices {
                    let found = lane_keys(device, &periods, &settings).find(|key| {
                        let digest = chain::lane_digest(Some(license), Some(&account), key);
                        sample.fits(&digest, &self.chain)
                    });
                    if let Some(key) = found {
                        return Some((index, feature, key));
                    }
                }
            }
        }
        None
    }

    fn features(&self, license: &License) -> BTreeSet<Option<String>> {
        let of_accounts = self
            .accounts
            .values()
            .map(|account| account.feature.clone());
        let of_body = license.body.product_features.iter();
        of_accounts
            .chain(of_body.map(|feature| Some(feature.code.clone())))
            .chain([None])
            .collect()
    }

    /// The account of a licence and feature, made if it is lost.
    fn account(
        &mut self,
        connection: &Connection,
        (license, feature): (usize, Option<&str>),
        wanted: Option<AccountNo>,
        restored: &mut Restored,
    ) -> rusqlite::Result<AccountNo> {
        let Some(license) = self.licenses.get(license) else {
            return Ok(wanted.unwrap_or(AccountNo(1)));
        };
        let is_it = |account: &&Account| {
            account.license == license.no && account.feature.as_deref() == feature
        };
        if let Some(account) = self.accounts.values().find(is_it) {
            return Ok(account.no);
        }
        if let Some(account) = wanted.and_then(|no| self.accounts.get_mut(&no)) {
            // It is the lane's account, and does not say so any more.
            account.license = license.no;
            account.feature = feature.map(str::to_owned);
            connection.execute(
                "UPDATE accounts SET license = ?2, feature = ?3 WHERE no = ?1",
                params![account.no.0, license.no.0, feature],
            )?;
            return Ok(account.no);
        }
        let used = "SELECT max(coalesce((SELECT max(no) FROM accounts), 0),
                               coalesce((SELECT max(account) FROM lanes), 0)) + 1";
        let no = match wanted {
            Some(no) => no,
            None => AccountNo(connection.query_row(used, [], |row| row.get(0))?),
        };
        let account = Account {
            no,
            ..stand_in(license, feature)
        };
        write_account(connection, &account)?;
        restored
            .missing
            .push(format!("the sums of account {}", no.0));
        self.accounts.insert(no, account);
        Ok(no)
    }
}

fn lane_keys<'a>(
    hardware_id: &'a str,
    periods: &'a [Option<Timestamp>],
    settings: &'a BTreeSet<OverageSetting>,
) -> impl Iterator<Item = LaneKey> + 'a {
    let events = [ConsumptionEvent::Add, ConsumptionEvent::OfflineSync];
    events.into_iter().flat_map(move |event| {
        periods.iter().flat_map(move |period| {
            settings.iter().map(move |setting| LaneKey {
                account: AccountNo(0),
                hardware_id: hardware_id.to_owned(),
                event,
                period: *period,
                setting: *setting,
            })
        })
    })
}

/// An account as the server's last answer has it, with nothing recorded.
fn stand_in(license: &License, feature: Option<&str>) -> Account {
    let features = &license.body.product_features;
    let of_feature = features
        .iter()
        .find(|found| Some(found.code.as_str()) == feature);
    let standing: Standing = of_feature.map_or_else(
        || license.body.counter.standing(license.refreshed_at),
        |found| found.standing(license.refreshed_at),
    );
    Account {
        no: AccountNo(0),
        license: license.no,
        feature: feature.map(str::to_owned),
        standing,
        heard_at: std::time::Duration::ZERO,
        stale: false,
        unsure: false,
        shared: true,
        recorded: Units::ZERO,
        settled: Units::ZERO,
        waived: Units::ZERO,
        late: Units::ZERO,
        rows: 0,
        refused: None,
        settings: NewestSettings::default(),
        pool: None,
        watch: AccountWatch::default(),
    }
}

impl Sample {
    fn fits(&self, lane: &Hash, key: &chain::Key) -> bool {
        let link = chain::Link {
            seq: self.seq,
            lane,
            app: self.app,
            units: self.units,
            total: self.total,
            at: self.at,
            time_proven: self.time_proven,
        };
        key.next(&self.previous, &link) == self.hash
    }
}

fn used_lanes(connection: &Connection) -> rusqlite::Result<Vec<i64>> {
    let sql = "SELECT lane FROM consumptions UNION SELECT lane FROM batches
               UNION SELECT lane FROM daily ORDER BY 1";
    connection
        .prepare(sql)?
        .query_map([], |row| row.get(0))?
        .collect()
}

fn samples(connection: &Connection, lane: i64) -> rusqlite::Result<Vec<Sample>> {
    let sql = "SELECT * FROM (
                   SELECT coalesce((SELECT hash FROM consumptions WHERE seq = c.seq - 1),
                              (SELECT hash FROM notes WHERE seq = c.seq - 1),
                              (SELECT hash FROM anchors WHERE last_seq = c.seq - 1),
                              iif(c.seq = 1, zeroblob(32), NULL)) previous,
                          hash, seq, app, units, total, at, proven
                   FROM (SELECT * FROM consumptions WHERE lane = ?1 LIMIT 64) c)
               WHERE previous IS NOT NULL LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([lane, SAMPLES], |row| {
        Ok(Sample {
            previous: Hash(row.get(0)?),
            hash: Hash(row.get(1)?),
            seq: Seq(row.get(2)?),
            app: AppNo(row.get(3)?),
            units: Units::new(row.get(4)?),
            total: Total::new(row.get(5)?),
            at: Timestamp::from_millis(row.get(6)?),
            time_proven: row.get(7)?,
        })
    })?;
    rows.collect()
}

fn write_account(connection: &Connection, account: &Account) -> rusqlite::Result<()> {
    let Standing {
        limits,
        reset,
        total,
        as_of,
    } = account.standing;
    connection
        .execute(
            "INSERT INTO accounts
                 (no, license, feature, max_consumptions, allow_unlimited_consumptions,
                  allow_negative_consumptions, allow_overages, max_overages, period, total, as_of,
                  shared, recorded, settled, row_count, stale)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, 1, 0, 0, 0, 1)",
            params![
                account.no.0,
                account.license.0,
                account.feature,
                limits.max_consumptions,
                limits.allow_unlimited_consumptions,
                limits.allow_negative_consumptions,
                limits.allow_overages,
                limits.max_overages,
                reset.map(Period::as_str),
                total.get(),
                as_of.as_millis(),
            ],
        )
        .map(|_| ())
}

fn write_lane(connection: &Connection, no: i64, key: &LaneKey) -> rusqlite::Result<()> {
    connection
        .execute(
            "INSERT OR REPLACE INTO lanes VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                no,
                key.account.0,
                key.hardware_id,
                key.event.as_str(),
                key.period.map(Timestamp::as_millis),
                key.setting.allow_overages,
                key.setting.max_overages,
            ],
        )
        .map(|_| ())
}

/// Stands in for what is referred to and lost.
fn add_lost(connection: &Connection, restored: &mut Restored) -> rusqlite::Result<()> {
    let apps = connection.execute(
        "INSERT OR IGNORE INTO apps
         SELECT DISTINCT app, 'lost-' || app
         FROM (SELECT app FROM consumptions UNION SELECT app FROM daily)
         WHERE app NOT IN (SELECT no FROM apps)",
        [],
    )?;
    if apps > 0 {
        restored
            .missing
            .push(format!("the names of {apps} applications"));
    }
    if !restored.lost_lanes.is_empty() {
        let used = "SELECT max(coalesce((SELECT max(no) FROM accounts), 0),
                               coalesce((SELECT max(account) FROM lanes), 0)) + 1";
        let account: i64 = connection.query_row(used, [], |row| row.get(0))?;
        for lane in &restored.lost_lanes {
            let key = LaneKey {
                account: AccountNo(account),
                hardware_id: LOST.to_owned(),
                event: ConsumptionEvent::Add,
                period: None,
                setting: OverageSetting::default(),
            };
            write_lane(connection, *lane, &key)?;
        }
        let lanes = restored.lost_lanes.len();
        restored
            .missing
            .push(format!("whose the rows of {lanes} lanes are"));
    }
    let accounts = connection.execute(
        "INSERT OR IGNORE INTO accounts
             (no, license, feature, max_consumptions, allow_unlimited_consumptions,
              allow_negative_consumptions, allow_overages, max_overages, period, total, as_of,
              shared, recorded, settled, row_count, waived, late, seal, stale)
         SELECT DISTINCT account, (SELECT coalesce(max(no), 0) + 1 FROM licenses),
                'lost-' || account, 0, 0, 0, 0, 0, NULL, 0, 0, 1, 0, 0, 0, 0, 0, NULL, 1
         FROM lanes WHERE account NOT IN (SELECT no FROM accounts)",
        [],
    )?;
    if accounts > 0 {
        restored
            .missing
            .push(format!("whose {accounts} accounts are, and their sums"));
    }
    let mut statement = connection.prepare(
        "SELECT DISTINCT license FROM accounts WHERE license NOT IN (SELECT no FROM licenses)",
    )?;
    let licenses: Vec<i64> = statement
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for no in licenses {
        let holder = format!("{LOST}-{no}");
        connection.execute(
            "INSERT INTO licenses VALUES (?1, ?2, 'license_key', ?3, 0, ?4, NULL, 0)",
            params![no, LOST, holder, mend::unknown_body(0)],
        )?;
        restored
            .missing
            .push(format!("which licence number {no} was"));
    }
    connection.execute(
        "DELETE FROM devices WHERE license NOT IN (SELECT no FROM licenses)",
        [],
    )?;
    restore_devices(connection)?;
    restore_names(connection)
}

/// A licence is used on each device that something of it is owed for.
fn restore_devices(connection: &Connection) -> rusqlite::Result<()> {
    connection
        .execute(
            "INSERT OR IGNORE INTO devices
             SELECT DISTINCT licenses.no, hardware_id, NULL
             FROM batches JOIN lanes ON lanes.no = batches.lane
             JOIN accounts ON accounts.no = account JOIN licenses ON licenses.no = license
             WHERE state NOT IN ('settled', 'superseded', 'waived') AND product <> ?1",
            [LOST],
        )
        .map(|_| ())
}

/// A licence opens under the name that it was first known by where nothing says how else; the server's answers say the rest
/// again. One that no name opens is marked as not found on that device, and stays so.
fn restore_names(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute(
        "DELETE FROM names WHERE license NOT IN (SELECT no FROM licenses)",
        [],
    )?;
    connection
        .execute(
            "INSERT OR IGNORE INTO names
             SELECT product, holder_field, holder_value, devices.hardware_id, licenses.no, NOT EXISTS (
                 SELECT 1 FROM names other
                 WHERE other.product = licenses.product AND other.holder_field = licenses.holder_field
                   AND other.holder_value = licenses.holder_value
                   AND other.hardware_id = devices.hardware_id AND other.is_default
             )
             FROM licenses JOIN devices ON devices.license = licenses.no
             WHERE coalesce(devices.blocked, '') <> 'license_not_found' AND NOT EXISTS (
                 SELECT 1 FROM names known
                 WHERE known.license = licenses.no AND known.hardware_id = devices.hardware_id
             )",
            [],
        )
        .map(|_| ())
}
