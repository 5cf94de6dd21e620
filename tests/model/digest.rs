//! When two states of the world are the same: a digest of all that can matter from here on.
//!
//! Times are told relative to now, and where only "over or not" matters, no finer than that. Left out
//! is what no decision depends on: ids, hashes, when a batch was sealed or sent (that is for people and for
//! keys older than a day), how many failures there were (with a constant source of random bits each pause is
//! the shortest), and the licence's description apart from its counter.

use std::{
    fmt::{self, Debug, Write as _},
    hash::{DefaultHasher, Hasher as _},
    time::Duration,
};

use tally_agent::core::book::{Account, Batch, BatchState, License, Op};

use crate::{
    network::LICENSE,
    world::{MINUTE, SETTLE_WAIT, SYNC_INTERVAL, World},
};

/// A total that is older than this when the next one is read is old, whatever its age.
const CLOSE: Duration = Duration::from_millis(2_001);

/// More attempts than these are all the same.
const ATTEMPTS_MAX: u32 = 4;

/// Hashes what is written to it.
#[derive(Default)]
struct Digest(DefaultHasher);

impl fmt::Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

impl Digest {
    fn take(&mut self, fact: &dyn Debug) {
        // Writing to a hasher does not fail.
        let _ = write!(self, "{fact:?};");
    }
}

/// The digest of the world.
pub(crate) fn of(world: &World<'_>) -> u64 {
    let mut digest = Digest::default();
    let (outside, now) = (&world.outside, world.outside.now);
    let ahead = |at: Duration| at.saturating_sub(now.mono);
    let book = world.core.book();

    if let Some(license) = book.license(LICENSE) {
        take_license(&mut digest, license, &ahead);
    }
    if let Some(account) = book.account_of(LICENSE, None) {
        take_account(&mut digest, world, account);
        let looked_up = book.license(LICENSE).and_then(looked_up_at);
        let asked = [looked_up, world.refresh.map(|(at, _)| at)];
        for batch in book.batches_of(account.no) {
            take_batch(&mut digest, world, batch, &ahead);
            take_readings(&mut digest, batch, asked);
        }
    }
    let link = world.core.link();
    digest.take(&(
        book.keeper(),
        link.is_up(),
        // The only word that tells a doubtful link from one that is down.
        format!("{link:?}").contains("Doubtful"),
        ahead(link.paused_until()),
    ));
    for row in &outside.disk.rows {
        digest.take(&(row.lane, row.units));
    }
    for (no, key) in outside.disk.lanes() {
        digest.take(&(no, key.event, key.period));
    }
    for batch in outside.disk.batches.values() {
        digest.take(&(batch.no, batch.first, batch.last, batch.state));
    }
    digest.take(&outside.stale_facts());
    digest.take(&outside.server.facts());
    digest.take(&world.exchange);
    for stray in &outside.strays {
        digest.take(&(&stray.request, ahead(stray.since + SETTLE_WAIT)));
    }
    digest.take(
        &world
            .refresh
            .map(|(at, total)| (now.mono.saturating_sub(at), total)),
    );
    digest.take(&(outside.budget, outside.overlapped, world.resolved));
    digest.take(&(&world.kept, world.disk_is_full, &world.lost_numbers));
    if world.setup.turns {
        digest.take(&now.time);
    }
    digest.0.finish()
}

fn take_license(digest: &mut Digest, license: &License, ahead: &dyn Fn(Duration) -> Duration) {
    digest.take(&(license.blocked, &license.devices));
    digest.take(&(
        // Compared with `heard_at` and `look_at`, which are told with the account and the batch.
        matches!(license.op, Op::LookingUp(_)),
        license.op != Op::Idle,
        ahead(license.pause.until),
        ahead(license.probe.until),
        ahead(license.refresh_at),
    ));
}

/// When the licence was asked for whose answer is awaited.
fn looked_up_at(license: &License) -> Option<Duration> {
    match license.op {
        Op::LookingUp(since) => Some(since),
        Op::Idle | Op::Sending(_) => None,
    }
}

fn take_account(digest: &mut Digest, world: &World<'_>, account: &Account) {
    let now = world.outside.now;
    let asked_at = world.core.book().license(LICENSE).and_then(looked_up_at);
    let refresh = world.refresh.map(|(at, _)| at);
    let is_old = |asked: Option<Duration>| asked.is_some_and(|at| at < account.heard_at);
    let age = now.time.saturating_since(account.standing.as_of);
    digest.take(&(
        account.standing.total,
        account.standing.limits,
        age.min(MINUTE),
        is_old(asked_at),
        is_old(refresh),
        // What was asked for in a commit that failed is as old as the process.
        account.heard_at > Duration::ZERO,
        asked_at.map(|at| now.mono.saturating_sub(at)),
        account.stale,
        account.shared,
    ));
    let watch = &account.watch;
    digest.take(&(
        world.ahead(watch.read_at),
        watch.fell_at.map(|at| world.ahead(at + SETTLE_WAIT)),
        (watch.is_replayed, account.unsure),
        &watch.settled,
    ));
    digest.take(&(account.recorded, account.settled, account.rows));
    if world.setup.turns {
        digest.take(&account.standing.as_of);
    }
}

fn take_batch(
    digest: &mut Digest,
    world: &World<'_>,
    batch: &Batch,
    ahead: &dyn Fn(Duration) -> Duration,
) {
    let state = match batch.state {
        BatchState::Unknown { look_at } => BatchState::Unknown {
            look_at: ahead(look_at),
        },
        other => other,
    };
    let waits_from = (batch.opened_at > Duration::ZERO).then_some(batch.opened_at);
    digest.take(&(
        (batch.no, batch.lane, batch.first, batch.last),
        (batch.units, batch.rows, batch.closed, batch.refusals),
        state,
        waits_from.map(|from| ahead(from + SYNC_INTERVAL)),
    ));
    let sealed = batch.sealed.as_ref().map(|sealed| {
        let before = sealed.before;
        // When that total was right is for the period alone.
        let as_of = world.setup.turns.then_some(before.as_of);
        let age = world.outside.now.time.saturating_since(before.as_of);
        let is_of_this_process = sealed.since.is_some();
        (
            (before.total, before.limits, as_of, age.min(CLOSE)),
            (sealed.doubtful, sealed.peer.is_some()),
            is_of_this_process,
            sealed.refused_at.is_some(),
            sealed.attempts.min(ATTEMPTS_MAX),
            (
                ahead(sealed.readings.arrives_until),
                sealed.readings.is_begun,
                sealed.readings.without_at.map(|at| ahead(at + SETTLE_WAIT)),
                (sealed.readings.reached, sealed.readings.is_repeated),
            ),
        )
    });
    digest.take(&sealed);
}

/// What the readings under way, asked for at these times, can say of the batch.
fn take_readings(digest: &mut Digest, batch: &Batch, asked: [Option<Duration>; 2]) {
    let Some(sealed) = &batch.sealed else {
        return;
    };
    let readings = sealed.readings;
    digest.take(&(readings.limits_are_read, readings.is_said_to_be_there));
    for asked_at in asked.into_iter().flatten() {
        digest.take(&(
            asked_at < readings.since,
            asked_at < readings.arrives_until,
            sealed.refused_at.map(|refused_at| refused_at <= asked_at),
            readings
                .without_at
                .map(|first| asked_at < first + SETTLE_WAIT),
        ));
    }
}
