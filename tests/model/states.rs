//! The states that are checked, and the steps between them.
//!
//! The core can be neither copied nor compared: it is the real one. So a state is how to get there:
//! all that was outside of the process when it last started, and the steps since. To go on from a state
//! is to take those steps again. Two states are equal when their [digests](crate::digest) are.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use stateright::{Model, Property};

use crate::{
    digest,
    facts::{Facts, Resolved, is_worth_waiting},
    network::Exchange,
    setup::Setup,
    world::{Action, MINUTE, Outside, World},
};

/// A state: how to get there, and what it is like there.
#[derive(Clone)]
pub(crate) struct State {
    /// All that outlived the process before, when the present one started.
    start: Arc<Outside>,
    /// What happened since.
    steps: Vec<Action>,
    digest: u64,
    /// What can happen next.
    next: Vec<Action>,
    pub(crate) facts: Facts,
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for State {}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.digest.hash(hasher);
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} then {:?}", self.steps, self.facts)
    }
}

impl State {
    fn new(setup: &Setup, start: Arc<Outside>, steps: Vec<Action>) -> Self {
        let world = replay(setup, &start, &steps);
        Self {
            digest: digest::of(&world),
            next: enabled(&world),
            facts: Facts::of(world),
            start,
            steps,
        }
    }
}

fn replay<'a>(setup: &'a Setup, start: &Outside, steps: &[Action]) -> World<'a> {
    let mut world = World::start(setup, start.clone());
    for step in steps {
        world.step(*step);
    }
    world
}

impl Model for Setup {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let start = Arc::new(Outside::new(self));
        vec![State::new(self, start, Vec::new())]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.extend_from_slice(&state.next);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        if action == Action::Crash {
            let outside = replay(self, &state.start, &state.steps).crash();
            return Some(State::new(self, Arc::new(outside), Vec::new()));
        }
        let mut steps = state.steps.clone();
        steps.push(action);
        Some(State::new(self, Arc::clone(&state.start), steps))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(COUNTED_ONCE, |_, state: &State| state.facts.counted_once),
            Property::always(NOTHING_FORGOTTEN, |_, state: &State| {
                state.facts.nothing_forgotten
            }),
            Property::always(SETTLED_IS_COUNTED, |_, state: &State| {
                state.facts.settled_is_counted
            }),
            Property::always(NO_FALSE_ALARM, |_, state: &State| {
                state.facts.no_false_alarm
            }),
            Property::always(ONE_AT_A_TIME, |_, state: &State| state.facts.one_at_a_time),
            Property::always(COMES_TO_REST, |_, state: &State| state.facts.comes_to_rest),
            Property::always(DECIDABLE_ALONE, |setup: &Self, state: &State| {
                setup.budget.others > 0 || setup.turns || !state.facts.undecidable
            }),
            Property::sometimes(APPLIED, |_, state: &State| {
                state.facts.resolved == Resolved::Applied
            }),
            Property::sometimes(RESENT, |_, state: &State| {
                state.facts.resolved == Resolved::Resent
            }),
            Property::sometimes(UNDECIDABLE, |_, state: &State| {
                state.facts.resolved == Resolved::Undecidable
            }),
            Property::sometimes(LIMITED, |_, state: &State| state.facts.limited),
            Property::sometimes(ALL_SETTLED, |_, state: &State| state.facts.all_settled),
        ]
    }
}

/// The server counts each row at most once.
pub(crate) const COUNTED_ONCE: &str = "never counted twice";
/// Every row that was recorded has its place.
pub(crate) const NOTHING_FORGOTTEN: &str = "never forgotten";
/// What the agent takes as settled, the server counted.
pub(crate) const SETTLED_IS_COUNTED: &str = "what is settled was counted";
/// The audit of the total finds nothing where nothing was counted twice.
pub(crate) const NO_FALSE_ALARM: &str = "no false alarm";
/// One exchange, and one batch of unknown fate.
pub(crate) const ONE_AT_A_TIME: &str = "one request at a time";
/// Left alone, the agent finishes.
pub(crate) const COMES_TO_REST: &str = "left alone, all is settled or held";
/// Where no other device adds, the total can always tell.
pub(crate) const DECIDABLE_ALONE: &str = "alone, nothing is undecidable";
/// A lost acknowledgement, found out.
pub(crate) const APPLIED: &str = "the total shows that a batch was counted";
/// A lost request, found out.
pub(crate) const RESENT: &str = "a batch that was not counted is sent again";
/// Neither.
pub(crate) const UNDECIDABLE: &str = "the total cannot tell";
/// A batch is held for the limit.
pub(crate) const LIMITED: &str = "a batch does not fit";
/// All rows are settled.
pub(crate) const ALL_SETTLED: &str = "everything is settled";

/// What can happen next.
fn enabled(world: &World<'_>) -> Vec<Action> {
    let mut next = Vec::new();
    let mut may = |action: Action, is_enabled: bool| {
        if is_enabled {
            next.push(action);
        }
    };
    let (outside, budget) = (&world.outside, world.outside.budget);
    let (waiting, answered) = match &world.exchange {
        None => (false, false),
        Some(Exchange::Send(_, reply)) => (reply.is_none(), reply.is_some()),
        Some(Exchange::LookUp(_, total)) => (total.is_none(), total.is_some()),
    };
    let is_send = matches!(world.exchange, Some(Exchange::Send(..)));
    let a_minute_on = outside.now.mono + MINUTE;
    may(
        Action::Record,
        outside.disk.rows.len() < world.setup.rows.len(),
    );
    may(Action::Arrive, waiting);
    may(Action::Answer, answered);
    may(Action::Wait, is_worth_waiting(world));
    for at in 0..outside.strays.len() {
        may(Action::ArriveLate(at), true);
    }
    // Reading changes nothing: it makes no difference whether the question or the answer is lost.
    let may_lose = waiting || (answered && is_send);
    may(Action::Lose, budget.losses > 0 && may_lose);
    may(Action::Refuse, budget.refusals > 0 && waiting);
    may(Action::Crash, budget.crashes > 0);
    may(Action::Other, budget.others > 0);
    may(
        Action::Minute,
        budget.minutes > 0 && world.wakeup().is_none_or(|at| at >= a_minute_on),
    );
    may(
        Action::FillDisk,
        budget.full_disks > 0 && !world.disk_is_full,
    );
    may(Action::Nudge, budget.nudges > 0);
    may(
        Action::Refresh,
        budget.refreshes > 0 && world.refresh.is_none(),
    );
    may(Action::Refreshed, world.refresh.is_some());
    next
}
