//! The agent is killed again and again, at named points of its code and at random moments, while
//! applications consume and the network fails. In the end, the server has counted what was granted.

mod consumers;
mod rounds;

use std::{collections::BTreeSet, path::Path};

use tally_tests::{Result, stub::Keys};

use self::rounds::Scene;

/// When a point is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// Again and again while the agent works; it is killed at the latest at this time of them.
    Working(u64),
    /// Once, before the agent is ready, where an earlier run has left work.
    Starting,
    /// Once, after it was asked to stop.
    Stopping,
}

/// A named point of the agent's code.
#[derive(Clone, Copy, Debug)]
struct Point {
    name: &'static str,
    when: When,
}

const fn point(name: &'static str, when: When) -> Point {
    Point { name, when }
}

const START_OPENED: Point = point("start.opened", When::Starting);
const START_BEFORE_READY: Point = point("start.before-ready", When::Starting);
const HTTP_BEFORE_RECORD: Point = point("http.before-record", When::Working(30));
const TURN_BEFORE_COMMIT: Point = point("turn.before-commit", When::Working(30));
const TURN_AFTER_COMMIT: Point = point("turn.after-commit", When::Working(30));
const HTTP_AFTER_RECORD: Point = point("http.after-record", When::Working(30));
const TURN_BEFORE_RELEASE: Point = point("turn.before-release", When::Working(4));
const SEND_BEFORE_REQUEST: Point = point("send.before-request", When::Working(4));
const SEND_AFTER_ANSWER: Point = point("send.after-answer", When::Working(4));
const LOOK_UP_AFTER_ANSWER: Point = point("look-up.after-answer", When::Working(3));
const FOLD_BEFORE_COMMIT: Point = point("fold.before-commit", When::Starting);
const FOLD_AFTER_COMMIT: Point = point("fold.after-commit", When::Starting);
const STOP_BEFORE_LEDGER: Point = point("stop.before-ledger", When::Stopping);
const STOP_BEFORE_CLOCK: Point = point("stop.before-clock", When::Stopping);

/// How often each point kills the agent, in each mode of the stub.
const KILLS_PER_POINT: u32 = 10;

/// How often it is killed at random moments, in each mode.
const KILLS_AT_RANDOM: u32 = 30;

const MODES: u32 = 2;

const KILLS_MIN: u32 = 300;

#[track_caller]
fn check_point(point: Point, keys: Keys) -> Result {
    let mut scene = Scene::set(keys)?;
    let killed = scene.play(|scene| {
        for round in 0..KILLS_PER_POINT {
            scene.kill_at(point, round)?;
        }
        Ok(())
    })?;
    assert_eq!(killed.at_points, KILLS_PER_POINT, "{point:?}");
    Ok(())
}

#[track_caller]
fn check_random(keys: Keys) -> Result {
    let mut scene = Scene::set(keys)?;
    let killed = scene.play(|scene| {
        for _ in 0..KILLS_AT_RANDOM {
            scene.kill_at_random()?;
        }
        Ok(())
    })?;
    assert_eq!(killed.from_outside, KILLS_AT_RANDOM);
    Ok(())
}

/// One test for each point and mode, so that they run side by side and each is named when it fails.
macro_rules! points {
    ($($name:ident: $point:ident,)*) => {
        const POINTS: &[Point] = &[$($point),*];

        $(
            mod $name {
                use super::*;

                #[test]
                fn with_keys() -> Result {
                    check_point($point, Keys::Kept)
                }

                #[test]
                fn without_keys() -> Result {
                    check_point($point, Keys::NotKept)
                }
            }
        )*
    };
}

points! {
    killed_when_the_ledger_is_open: START_OPENED,
    killed_before_it_is_ready: START_BEFORE_READY,
    killed_before_a_request_is_recorded: HTTP_BEFORE_RECORD,
    killed_before_a_commit: TURN_BEFORE_COMMIT,
    killed_after_a_commit: TURN_AFTER_COMMIT,
    killed_between_answers: HTTP_AFTER_RECORD,
    killed_before_an_order_is_released: TURN_BEFORE_RELEASE,
    killed_before_a_request_leaves: SEND_BEFORE_REQUEST,
    killed_before_the_ledger_hears_of_an_answer: SEND_AFTER_ANSWER,
    killed_before_the_ledger_hears_of_a_total: LOOK_UP_AFTER_ANSWER,
    killed_amid_a_fold: FOLD_BEFORE_COMMIT,
    killed_after_a_fold: FOLD_AFTER_COMMIT,
    killed_while_it_stops: STOP_BEFORE_LEDGER,
    killed_before_it_has_stopped: STOP_BEFORE_CLOCK,
}

#[test]
fn killed_at_random_with_keys() -> Result {
    check_random(Keys::Kept)
}

#[test]
fn killed_at_random_without_keys() -> Result {
    check_random(Keys::NotKept)
}

/// Each test asserts that its kills happened: together they are as many as promised.
#[test]
fn there_are_enough_kills() {
    let points = u32::try_from(POINTS.len()).unwrap();
    let kills = (points * KILLS_PER_POINT + KILLS_AT_RANDOM) * MODES;
    assert!(kills >= KILLS_MIN, "{kills}");
}

/// The names of the points in the sources below a folder.
fn marked(folder: &Path, found: &mut BTreeSet<String>) -> Result {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            marked(&path, found)?;
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        let names = text.split("fail_point!(\"").skip(1);
        found.extend(names.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
    }
    Ok(())
}

#[test]
fn each_point_of_the_code_has_its_test() -> Result {
    let mut found = BTreeSet::new();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/src");
    marked(&sources, &mut found)?;
    let tested = POINTS.iter().map(|point| point.name.to_owned());
    assert_eq!(found, tested.collect());
    Ok(())
}
