//! The ways to check a world: all of it, for one failure, or for whether its states are told apart.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::Instant,
};

use stateright::{Checker, Expectation, HasDiscoveries, Model};

use crate::{setup::Setup, states::State, world::Action};

/// Visits all states; no property may fail, and just these that are to be met are met.
#[track_caller]
pub(crate) fn check(setup: Setup, met: &[&str]) {
    let started = Instant::now();
    let budget = setup.budget;
    let checker = setup.checker().threads(2).spawn_bfs().join();
    println!(
        "{} unique states, {} steps deep, in {:.1?}: {budget:?}",
        checker.unique_state_count(),
        checker.max_depth(),
        started.elapsed(),
    );
    let discoveries = checker.discoveries();
    for property in checker.model().properties() {
        let is_met = discoveries.get(property.name);
        match (property.expectation, is_met) {
            (Expectation::Sometimes, _) => {
                let should_be = met.contains(&property.name);
                assert_eq!(is_met.is_some(), should_be, "{}", property.name);
            }
            (_, None) => {}
            (_, Some(path)) => panic!("not {}: {:?}", property.name, path.clone().into_actions()),
        }
    }
}

/// Finds a shortest way in which a property fails.
#[track_caller]
pub(crate) fn counterexample(setup: Setup, property: &'static str) -> Vec<Action> {
    let first = HasDiscoveries::AnyOf(BTreeSet::from([property]));
    let checker = setup
        .checker()
        .threads(1)
        .finish_when(first)
        .spawn_bfs()
        .join();
    let path = checker.discovery(property).expect("a counterexample");
    let actions = path.into_actions();
    println!("not {property}: {actions:?}");
    actions
}

/// Visits all states, and asks of each way to a state whether it leads on as the first way to it does.
#[track_caller]
pub(crate) fn check_futures(setup: &Setup) {
    let follow = |state: &State| {
        let mut actions = Vec::new();
        setup.actions(state, &mut actions);
        let next = actions.into_iter().map(|action| {
            let state = setup.next_state(state, action).expect("a state");
            (action, state)
        });
        next.collect::<Vec<_>>()
    };
    let mut seen: HashMap<State, Vec<(Action, State)>> = HashMap::new();
    let mut waiting = VecDeque::from(setup.init_states());
    while let Some(state) = waiting.pop_front() {
        let future = follow(&state);
        let Some((first, theirs)) = seen.get_key_value(&state) else {
            waiting.extend(future.iter().map(|(_, state)| state.clone()));
            seen.insert(state, future);
            continue;
        };
        if theirs != &future {
            let (a, b) = theirs
                .iter()
                .zip(&future)
                .find(|(a, b)| a != b)
                .expect("one");
            panic!("one state, two futures:\n{first:?}\n{state:?}\n{a:?}\n{b:?}");
        }
    }
    println!("{} states have one future each", seen.len());
}
