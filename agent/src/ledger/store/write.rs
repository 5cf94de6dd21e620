//! Writing a book's changes into the ledger.

use rusqlite::{Connection, named_params, params};
use tally_shared::{limits::Standing, period::Period, time::Timestamp, wire::ErrorCode};

use super::{
    CHAIN_KEY, CLOCK, COPY, DEFECT, GENERATION, GONE, KEEPER, LATE, LEDGER_ID, LIMIT, SERVER,
    UNDECIDABLE, UNSURE,
};
use crate::core::{
    book::{Account, AppNo, Batch, BatchState, Book, Hold, Lane, License, Name, Opens},
    chain,
    clock::SavedClock,
};
use crate::ledger::LedgerError;

/// Writes all of a book's changes, within a transaction.
pub fn write_changes(connection: &Connection, book: &Book) -> rusqlite::Result<()> {
    for license in book.changed_licenses() {
        write_license(connection, license)?;
    }
    for (name, opens) in book.changed_names() {
        write_name(connection, name, opens)?;
    }
    for account in book.changed_accounts() {
        write_account(connection, account, book.chain())?;
    }
    for lane in book.new_lanes() {
        write_lane(connection, lane)?;
    }
    write_rows(connection, book)?;
    write_judgements(connection, book)?;
    write_notes(connection, book)?;
    for batch in book.changed_batches() {
        write_batch(connection, batch)?;
    }
    for account in book.grown_accounts() {
        write_account_sums(connection, account, book.chain())?;
    }
    for batch in book.grown_batches() {
        write_batch_sums(connection, batch)?;
    }
    if book.keeper_changed() {
        write_meta(connection, KEEPER, book.keeper().unwrap_or_default())?;
    }
    if book.id_changed() {
        write_meta(connection, LEDGER_ID, &book.id().to_string())?;
    }
    if let (true, Some(home)) = (book.home_changed(), book.home()) {
        write_meta(connection, SERVER, &json(home)?)?;
    }
    Ok(())
}

/// About how many pages a commit of these changes writes: one for each thing that changed, and for rows
/// about one for each sixty.
pub fn pages_of(book: &Book) -> u64 {
    let others = book.changed_accounts().count() + book.changed_batches().count();
    pages_of_rows(book.new_rows().len()) + u64::try_from(others).unwrap_or(u64::MAX)
}

/// The same for a commit of nothing but so many rows, added or taken away.
pub fn pages_of_rows(rows: usize) -> u64 {
    u64::try_from(3 + rows.div_ceil(60)).unwrap_or(u64::MAX)
}

/// Writes the clock.
pub fn write_clock(connection: &Connection, clock: &SavedClock) -> rusqlite::Result<()> {
    write_meta(connection, CLOCK, &json(clock)?)
}

/// Seals the sums of all accounts anew, as they stand.
///
/// # Errors
///
/// [`LedgerError`] where the ledger cannot be read or written.
pub fn seal_accounts(connection: &Connection, key: &chain::Key) -> Result<(), LedgerError> {
    let book = Book::new(super::load(connection, key)?);
    for account in book
        .licenses()
        .flat_map(|license| book.accounts_of(license.no))
    {
        write_account_sums(connection, account, key)
            .map_err(LedgerError::while_doing("sealing its sums"))?;
    }
    Ok(())
}

/// Writes which key the chain has.
pub fn write_chain_key(connection: &Connection, fingerprint: &str) -> rusqlite::Result<()> {
    write_meta(connection, CHAIN_KEY, fingerprint)
}

/// Writes how often more than rows was committed.
pub fn write_generation(connection: &Connection, generation: u64) -> rusqlite::Result<()> {
    write_meta(connection, GENERATION, &generation.to_string())
}

/// The number of an application, made if it has none.
pub fn app_no(connection: &Connection, name: &str) -> rusqlite::Result<AppNo> {
    connection.execute("INSERT OR IGNORE INTO apps (name) VALUES (?1)", [name])?;
    connection
        .query_row("SELECT no FROM apps WHERE name = ?1", [name], |row| {
            row.get(0)
        })
        .map(AppNo)
}

/// Writes a fact that has one value.
pub(in crate::ledger) fn write_fact(
    connection: &Connection,
    key: &str,
    value: &str,
) -> rusqlite::Result<()> {
    write_meta(connection, key, value)
}

fn write_meta(connection: &Connection, key: &str, value: &str) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")?
        .execute([key, value])
        .map(|_| ())
}

fn write_license(connection: &Connection, license: &License) -> rusqlite::Result<()> {
    let body = json(&license.body)?;
    connection
        .prepare_cached(
            "INSERT INTO licenses
         VALUES (:no, :product, :field, :value, :id, :body, :blocked, :refreshed_at)
         ON CONFLICT (no) DO UPDATE SET
             id = :id, body = :body, blocked = :blocked, refreshed_at = :refreshed_at",
        )?
        .execute(named_params! {
            ":no": license.no.0,
            ":product": license.product,
            ":field": license.holder.field(),
            ":value": license.holder.value(),
            ":id": license.id,
            ":body": body,
            ":blocked": license.blocked.map(ErrorCode::as_str),
            ":refreshed_at": license.refreshed_at.as_millis(),
        })?;
    if license.devices.is_empty() {
        // It was forgotten.
        connection
            .prepare_cached("DELETE FROM devices WHERE license = ?1")?
            .execute([license.no.0])?;
    }
    let mut statement = connection.prepare_cached(
        "INSERT OR REPLACE INTO devices (license, hardware_id, blocked) VALUES (?1, ?2, ?3)",
    )?;
    for (hardware_id, blocked) in &license.devices {
        statement.execute(params![
            license.no.0,
            hardware_id,
            blocked.map(ErrorCode::as_str)
        ])?;
    }
    Ok(())
}

fn write_name(connection: &Connection, name: &Name, opens: Option<&Opens>) -> rusqlite::Result<()> {
    let (field, value) = (name.holder.field(), name.holder.value());
    connection
        .prepare_cached(
            "DELETE FROM names
             WHERE product = ?1 AND holder_field = ?2 AND holder_value = ?3 AND hardware_id = ?4",
        )?
        .execute([&name.product, field, value, &name.hardware_id])?;
    let mut statement =
        connection.prepare_cached("INSERT INTO names VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
    let licenses = opens.map(|opens| &opens.licenses);
    for no in licenses.into_iter().flatten() {
        statement.execute(params![
            name.product,
            field,
            value,
            name.hardware_id,
            no.0,
            opens.is_some_and(|opens| opens.default == Some(*no)),
        ])?;
    }
    Ok(())
}

fn write_account(
    connection: &Connection,
    account: &Account,
    key: &chain::Key,
) -> rusqlite::Result<()> {
    let Standing {
        limits,
        reset,
        total,
        as_of,
    } = account.standing;
    connection
        .prepare_cached(
            "INSERT INTO accounts
         VALUES (:no, :license, :feature, :max, :unlimited, :negative, :overages, :max_overages,
                 :period, :total, :as_of, :shared, :recorded, :settled, :rows, :waived, :late,
                 :seal, :stale, :refused, :allow_seq, :max_seq, :pool)
         ON CONFLICT (no) DO UPDATE SET
             max_consumptions = :max, allow_unlimited_consumptions = :unlimited,
             allow_negative_consumptions = :negative, allow_overages = :overages,
             max_overages = :max_overages, period = :period, total = :total, as_of = :as_of,
             shared = :shared, recorded = :recorded, settled = :settled, row_count = :rows,
             waived = :waived, late = :late, seal = :seal, stale = :stale, refused = :refused,
             allow_seq = :allow_seq, max_seq = :max_seq, pool = :pool",
        )?
        .execute(named_params! {
            ":no": account.no.0,
            ":license": account.license.0,
            ":feature": account.feature,
            ":max": limits.max_consumptions,
            ":unlimited": limits.allow_unlimited_consumptions,
            ":negative": limits.allow_negative_consumptions,
            ":overages": limits.allow_overages,
            ":max_overages": limits.max_overages,
            ":period": reset.map(Period::as_str),
            ":total": total.get(),
            ":as_of": as_of.as_millis(),
            ":shared": account.shared,
            ":recorded": account.recorded.get(),
            ":settled": account.settled.get(),
            ":rows": i64::try_from(account.rows).unwrap_or(i64::MAX),
            ":waived": account.waived.get(),
            ":late": account.late.get(),
            ":seal": key.seal_account(account).0,
            ":stale": if account.unsure { UNSURE } else { i64::from(account.stale) },
            ":refused": account.refused.map(ErrorCode::as_str),
            ":allow_seq": account.settings.allow_overages.0,
            ":max_seq": account.settings.max_overages.0,
            ":pool": account.pool.as_ref().map(json).transpose()?,
        })
        .map(|_| ())
}

/// Touches no index, unlike [`write_account`].
fn write_account_sums(
    connection: &Connection,
    account: &Account,
    key: &chain::Key,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE accounts SET recorded = ?2, row_count = ?3, seal = ?4 WHERE no = ?1",
        )?
        .execute(params![
            account.no.0,
            account.recorded.get(),
            i64::try_from(account.rows).unwrap_or(i64::MAX),
            key.seal_account(account).0,
        ])
        .map(|_| ())
}

fn write_lane(connection: &Connection, lane: &Lane) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT INTO lanes VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
        .execute(params![
            lane.no.0,
            lane.key.account.0,
            lane.key.hardware_id,
            lane.key.event.as_str(),
            lane.key.period.map(Timestamp::as_millis),
            lane.key.setting.allow_overages,
            lane.key.setting.max_overages,
        ])
        .map(|_| ())
}

fn write_rows(connection: &Connection, book: &Book) -> rusqlite::Result<()> {
    let mut statement = connection
        .prepare_cached("INSERT INTO consumptions VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?;
    for row in book.new_rows() {
        statement.execute(params![
            row.seq.0,
            row.lane.0,
            row.app.0,
            row.units.get(),
            row.total.get(),
            row.at.as_millis(),
            row.time_proven,
            row.hash.0,
        ])?;
    }
    Ok(())
}

fn write_judgements(connection: &Connection, book: &Book) -> rusqlite::Result<()> {
    for judgement in book.new_judgements() {
        let Standing {
            limits,
            reset,
            total,
            as_of,
        } = judgement.standing;
        connection
            .prepare_cached(
                "INSERT INTO judgements VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?
            .execute(params![
                judgement.account.0,
                judgement.seq.0,
                total.get(),
                as_of.as_millis(),
                limits.max_consumptions,
                limits.allow_unlimited_consumptions,
                limits.allow_negative_consumptions,
                limits.allow_overages,
                limits.max_overages,
                reset.map(Period::as_str),
            ])?;
    }
    Ok(())
}

fn write_notes(connection: &Connection, book: &Book) -> rusqlite::Result<()> {
    let mut statement =
        connection.prepare_cached("INSERT INTO notes VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
    for note in book.new_notes() {
        statement.execute(params![
            note.seq.0,
            note.at.as_millis(),
            note.time_proven,
            note.kind.as_str(),
            note.body,
            note.hash.0,
        ])?;
    }
    Ok(())
}

fn write_batch(connection: &Connection, batch: &Batch) -> rusqlite::Result<()> {
    let (state, reason) = state_names(batch.state);
    let sealed = batch.sealed.as_ref();
    let before_limits = sealed
        .map(|sealed| json(&(sealed.before.limits, sealed.before.reset)))
        .transpose()?;
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO batches
         VALUES (:no, :lane, :first, :last, :rows, :units, :state, :reason, :closed,
                 :id, :sealed_at, :attempts, :before_total, :before_as_of, :sent_at,
                 :before_limits, :held_at, :late, :ended_at, :sealed_proven, :refusals, :peer, :dropped, :refused)",
        )?
        .execute(named_params! {
            ":no": batch.no.0,
            ":lane": batch.lane.0,
            ":first": batch.first.0,
            ":last": batch.last.0,
            ":rows": i64::try_from(batch.rows).unwrap_or(i64::MAX),
            ":units": batch.units.get(),
            ":state": state,
            ":reason": reason,
            ":closed": batch.closed,
            ":id": sealed.map(|sealed| sealed.id.to_string()),
            ":sealed_at": sealed.map(|sealed| sealed.at.as_millis()),
            ":attempts": sealed.map(|sealed| sealed.attempts),
            ":before_total": sealed.map(|sealed| sealed.before.total.get()),
            ":before_as_of": sealed.map(|sealed| sealed.before.as_of.as_millis()),
            ":sent_at": sealed.map(|sealed| sealed.sent_at.as_millis()),
            ":before_limits": before_limits,
            ":held_at": batch.held_at.map(Timestamp::as_millis),
            ":late": batch.late,
            ":sealed_proven": sealed.is_some_and(|sealed| sealed.at_proven),
            ":ended_at": batch.ended_at.map(Timestamp::as_millis),
            ":refusals": batch.refusals,
            ":peer": sealed.and_then(|sealed| sealed.peer.as_deref()),
            ":dropped": batch.dropped.bits(),
            ":refused": sealed.is_some_and(|sealed| sealed.refused_at.is_some()),
        })
        .map(|_| ())
}

/// Touches no index, unlike [`write_batch`].
fn write_batch_sums(connection: &Connection, batch: &Batch) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE batches SET last_seq = ?2, row_count = ?3, units = ?4 WHERE no = ?1",
        )?
        .execute(params![
            batch.no.0,
            batch.last.0,
            i64::try_from(batch.rows).unwrap_or(i64::MAX),
            batch.units.get(),
        ])
        .map(|_| ())
}

fn state_names(state: BatchState) -> (&'static str, Option<String>) {
    match state {
        BatchState::Open => ("open", None),
        BatchState::Sealed => ("sealed", None),
        BatchState::Sent => ("sent", None),
        BatchState::Unknown { .. } => ("unknown", None),
        BatchState::Settled => ("settled", None),
        BatchState::Superseded => ("superseded", None),
        BatchState::Waived => ("waived", None),
        BatchState::Held(hold) => (
            "held",
            Some(match hold {
                Hold::Limit { .. } => LIMIT.to_owned(),
                Hold::Undecidable => UNDECIDABLE.to_owned(),
                Hold::Late => LATE.to_owned(),
                Hold::Refused(code) => code.as_str().to_owned(),
                Hold::Defect(code) => format!("{DEFECT}{}", code.as_str()),
                Hold::Gone(code) => format!("{GONE}{}", code.as_str()),
                Hold::Copy => COPY.to_owned(),
            }),
        ),
    }
}

fn json(value: &impl serde::Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}
