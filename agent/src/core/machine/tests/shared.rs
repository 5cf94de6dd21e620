//! Batches whose answer was lost on a licence that others use too: the total is followed.

use super::*;

/// A licence that others are known to use, and a batch of 5 of it whose answer was lost, sent at a total of 3.
fn lost_on_a_shared_licence() -> World {
    lost_after_others_added(3)
}

/// The same, where others added as many units before.
fn lost_after_others_added(others: i64) -> World {
    let mut world = World::new(1_000, KeyEcho::Absent);
    let found = world.found(others);
    let asked_at = world.now.mono;
    world
        .core
        .learn(world.now, &found, asked_at, KeyEcho::NoAnswer);
    world.core.book_mut().committed();
    world.record(5).unwrap();
    world.reads();
    let sent = world.look_up(others);
    let [Command::Send { batch, .. }] = sent.as_slice() else {
        panic!("a batch should be sent, not {sent:?}");
    };
    world.lose(*batch);
    world
}

/// Reads what the server says at each time, in seconds, until something is decided. Returns when that was.
fn follow(world: &mut World, mut total: impl FnMut(u64) -> i64) -> u64 {
    let start = world.now.mono;
    let since = |world: &World| world.now.mono.saturating_sub(start).as_secs();
    let told = total(0);
    world.look_up(told);
    while world.sums().unknown > 0 {
        assert!(since(world) < 100, "nothing is decided");
        world.reads();
        let told = total(since(world));
        world.look_up(told);
    }
    since(world)
}

#[test]
fn small_steps_of_others_show_that_a_batch_was_not_counted_however_far_they_lead() {
    let mut world = lost_on_a_shared_licence();
    let took = follow(&mut world, |second| 3 + i64::try_from(second).unwrap());
    assert_eq!(world.sums().in_flight, 5, "it is sent again");
    assert!(took >= 60, "a replica may be behind, until {took} s");
}

#[test]
fn a_step_as_large_as_the_batch_may_be_the_batch_or_not() {
    for step in [5, 6, 100] {
        let mut world = lost_on_a_shared_licence();
        follow(&mut world, |second| 3 + if second < 20 { 0 } else { step });
        assert_eq!(world.sums().held, 5, "by {step}");
    }
}

#[test]
fn a_total_that_moved_by_the_batch_at_once_settles_it_and_one_that_did_so_later_does_not() {
    let mut world = lost_on_a_shared_licence();
    world.look_up(8);
    assert_eq!(world.sums().settled, 5);
    let mut world = lost_on_a_shared_licence();
    world.pass(Duration::from_secs(3));
    follow(&mut world, |_| 8);
    assert_eq!(world.sums().held, 5, "others had time to add as many");
}

#[test]
fn a_step_that_others_made_lately_may_be_theirs_again() {
    let mut world = lost_after_others_added(5);
    world.look_up(10);
    follow(&mut world, |_| 10);
    assert_eq!(world.sums().held, 5, "others add five at a time");
    let mut world = lost_on_a_shared_licence();
    world.look_up(7);
    world.look_up(12);
    follow(&mut world, |_| 12);
    assert_eq!(world.sums().held, 5, "others added four, then maybe five");
}

#[test]
fn a_licence_that_more_devices_are_activated_for_is_shared_before_they_consume() {
    let lost = |activated: i64| {
        let mut world = World::new(1_000, KeyEcho::Absent);
        let found = |total| {
            let mut found = world.found(total);
            let activated = ("times_activated".to_owned(), activated.into());
            found.body.other.extend([activated]);
            found
        };
        let (before, after) = (found(0), found(5));
        world
            .core
            .learn(world.now, &before, world.now.mono, KeyEcho::NoAnswer);
        world.core.book_mut().committed();
        world.record(5).unwrap();
        let (batch, ..) = world.sent();
        world.lose(batch);
        world.looked_up(before, KeyEcho::NoAnswer);
        while world.sums().unknown > 0 {
            world.reads();
            world.looked_up(after.clone(), KeyEcho::NoAnswer);
        }
        world.sums()
    };
    assert_eq!(lost(1).settled, 5, "nobody else can have added them");
    assert_eq!(lost(2).held, 5, "the other device may have added them");
}

#[test]
fn a_replica_that_is_behind_takes_nothing_back() {
    let mut world = lost_on_a_shared_licence();
    follow(&mut world, |second| match second {
        0..4 => 7,
        4..10 => 4,
        10..60 => 11,
        _ => 13,
    });
    assert_eq!(world.sums().in_flight, 5);
}

#[test]
fn a_total_that_fell_behind_what_was_read_says_nothing() {
    let mut world = lost_on_a_shared_licence();
    follow(&mut world, |second| if second < 30 { 7 } else { 4 });
    assert_eq!(world.sums().held, 5);
}

#[test]
fn the_total_is_followed_at_a_bounded_pace() {
    let mut world = lost_on_a_shared_licence();
    let mut times = 0;
    follow(&mut world, |_| {
        times += 1;
        3
    });
    assert!((25..=40).contains(&times), "{times} readings in a minute");
}

#[test]
fn what_was_followed_does_not_outlive_the_process() {
    let mut world = lost_on_a_shared_licence();
    world.look_up(7);
    world.core.resume(world.now);
    world.tell(Event::Tick);
    // 8 units from the total before, 4 from the one that is forgotten.
    follow(&mut world, |_| 11);
    assert_eq!(world.sums().held, 5);
}

#[test]
fn what_is_lost_again_and_again_is_followed_no_more() {
    let mut world = lost_on_a_shared_licence();
    let mut readings = Vec::new();
    for _ in 0..4 {
        let mut times = 0;
        follow(&mut world, |_| {
            times += 1;
            3
        });
        readings.push(times);
        let batch = world.core.book().batches().next().unwrap().no;
        world.lose(batch);
    }
    assert!(
        readings[..3].iter().all(|times| *times > 20),
        "{readings:?}"
    );
    assert_eq!(readings[3], 3);
}
