//! What is true of a state: all that the properties ask for.

use tally_agent::core::book::{BatchNo, BatchState, Hold};

use crate::{
    network::{Exchange, LICENSE},
    world::{Action, REFRESH_INTERVAL, World},
};

/// What an action did to the batch whose fate was unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Resolved {
    /// Nothing.
    #[default]
    Nothing,
    /// The total showed that it was counted.
    Applied,
    /// The total showed that it was not; it was sent again.
    Resent,
    /// The total could not tell.
    Undecidable,
}

/// What the properties are about.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a property, or a part of one"
)]
pub(crate) struct Facts {
    /// The server counted no row twice.
    pub(crate) counted_once: bool,
    /// Every recorded row has one place, and the sums agree.
    pub(crate) nothing_forgotten: bool,
    /// The server counted every row that the agent takes as settled.
    pub(crate) settled_is_counted: bool,
    /// At most one batch is sent or unknown, and one exchange under way.
    pub(crate) one_at_a_time: bool,
    /// A batch is held because the total could not tell.
    pub(crate) undecidable: bool,
    /// A batch is held for the limit.
    pub(crate) limited: bool,
    /// All rows are settled.
    pub(crate) all_settled: bool,
    /// Nothing is found about the total that others explain: it may be by chance, where they add exactly a batch.
    pub(crate) no_false_alarm: bool,
    /// Left alone from here, everything is settled, or held with a reason that stands.
    pub(crate) comes_to_rest: bool,
    pub(crate) resolved: Resolved,
}

impl World<'_> {
    /// The states of all batches that are not at their end.
    pub(crate) fn batches(&self) -> impl Iterator<Item = BatchState> {
        let book = self.core.book();
        let account = book.account_of(LICENSE, None).map(|account| account.no);
        let batches = account.map(|no| book.batches_of(no)).unwrap_or_default();
        batches.into_iter().map(|batch| batch.state)
    }

    /// Whether something is held for the limit although its first row would fit.
    pub(crate) fn holds_what_fits(&self) -> bool {
        let (disk, time) = (&self.outside.disk, self.outside.now.time);
        let room = self.setup.max - self.outside.server.clone().total(time);
        disk.batches
            .values()
            .filter(|batch| matches!(batch.state, BatchState::Held(Hold::Limit { .. })))
            .filter_map(|batch| disk.rows.get(disk.index(batch.first)))
            .any(|row| row.units.get() <= room)
    }

    /// The batch of unknown fate.
    pub(crate) fn unknown(&self) -> Option<BatchNo> {
        let book = self.core.book();
        let account = book.account_of(LICENSE, None)?;
        book.batches_of(account.no)
            .into_iter()
            .find(|batch| matches!(batch.state, BatchState::Unknown { .. }))
            .map(|batch| batch.no)
    }

    /// What a step did to it.
    pub(crate) fn became_of(&self, unknown: Option<BatchNo>) -> Resolved {
        let Some(no) = unknown else {
            return Resolved::Nothing;
        };
        // A settled batch is no longer in the book.
        let in_book = self.core.book().batch(no);
        let on_disk = self.outside.disk.batches.get(&no);
        match in_book.or(on_disk).map(|batch| batch.state) {
            Some(BatchState::Settled) => Resolved::Applied,
            Some(BatchState::Sent) => Resolved::Resent,
            Some(BatchState::Held(Hold::Undecidable)) => Resolved::Undecidable,
            _ => Resolved::Nothing,
        }
    }
}

/// Whether time brings on more than the next reading of a licence that owes nothing.
pub(crate) fn is_worth_waiting(world: &World<'_>) -> bool {
    let soon = world.outside.now.mono + REFRESH_INTERVAL / 2;
    let is_owing = world.batches().any(|state| !is_held(state));
    world.wakeup().is_some_and(|at| is_owing || at < soon)
}

fn is_held(state: BatchState) -> bool {
    matches!(state, BatchState::Held(_))
}

impl Facts {
    /// The facts of this world; to tell how it goes on, it is let go on.
    pub(crate) fn of(mut world: World<'_>) -> Self {
        let mut facts = Self::now(&world);
        facts.comes_to_rest = rests(&mut world) && Self::now(&world).hold();
        facts
    }

    fn hold(&self) -> bool {
        self.counted_once
            && self.nothing_forgotten
            && self.settled_is_counted
            && self.one_at_a_time
            && self.no_false_alarm
    }

    fn now(world: &World<'_>) -> Self {
        let (disk, counted) = (&world.outside.disk, &world.outside.server.counted);
        let settled_rows = disk.settled_rows();
        let units = |row: &usize| disk.rows[*row].units.get();
        let recorded: i64 = (0..disk.rows.len()).map(|row| units(&row)).sum();
        let settled: i64 = settled_rows.iter().map(units).sum();
        let status = world.core.status(world.outside.now);
        let sums = status.licenses[0].conservation;
        let of_unknown_fate =
            |state: &BatchState| matches!(state, BatchState::Sent | BatchState::Unknown { .. });
        let undecidable = BatchState::Held(Hold::Undecidable);
        Self {
            counted_once: counted.iter().all(|times| *times <= 1),
            nothing_forgotten: sums.holds()
                && sums.recorded == recorded
                && sums.settled == settled
                && disk.is_each_row_in_one_batch(),
            settled_is_counted: settled_rows.iter().all(|row| counted[*row] > 0),
            one_at_a_time: !world.outside.overlapped
                && world.batches().filter(of_unknown_fate).count() <= 1,
            undecidable: world.batches().any(|state| state == undecidable),
            limited: world
                .batches()
                .any(|state| matches!(state, BatchState::Held(Hold::Limit { .. }))),
            all_settled: settled_rows.len() == world.setup.rows.len(),
            no_false_alarm: disk.findings().is_empty()
                || world.setup.others_units < 1_000
                || world.setup.disk_lies,
            comes_to_rest: true,
            resolved: world.resolved,
        }
    }
}

/// Lets the world go on with no more faults, and says whether it comes to rest as it should.
fn rests(world: &mut World<'_>) -> bool {
    const STEPS_MAX: usize = 60;
    for _ in 0..STEPS_MAX {
        let step = match &world.exchange {
            Some(Exchange::Send(_, None) | Exchange::LookUp(_, None)) => Action::Arrive,
            Some(_) => Action::Answer,
            None if is_worth_waiting(world) => Action::Wait,
            None => return world.batches().all(is_held) && !world.holds_what_fits(),
        };
        world.step(step);
    }
    false
}
