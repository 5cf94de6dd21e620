//! What a vendor does to a licence while units of it are owed: scenarios against a server that answers in the contract's
//! words.

mod devices;
mod settings;
mod world;

use std::time::Duration;

use serde_json::{Value, json};
use tally_shared::{
    limits::OverageSetting,
    wire::{ErrorCode, Subject},
};

use self::world::{Counter, Fate, World, exchange};
use crate::core::{
    Decision, LateUsage, Policy, UndecidablePolicy,
    event::Event,
    outcome::{LicenseFound, LookUpOutcome, of_look_up},
    report::Conservation,
};

const SETTLE_WAIT: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_hours(1);
const QUARTER: Duration = Duration::from_mins(15);

/// The settings as they come.
fn policy() -> Policy {
    Policy {
        sync_interval: Duration::from_secs(5),
        settle_wait: SETTLE_WAIT,
        refresh_interval: QUARTER,
        undecidable: UndecidablePolicy::Hold,
        late_usage: LateUsage::Report,
    }
}

/// A licence of which nothing new happens is asked about a few times an hour: refreshes and slow probes.
#[track_caller]
fn assert_calm(requests: &[String]) {
    assert!(requests.len() <= 40, "{} requests", requests.len());
}

/// Another licence, as an answer describes it.
fn found_other(body: Value) -> LicenseFound {
    let subject = Subject::by_key("p", "K2", "h1");
    let answer = of_look_up(exchange((200, body)), &subject, None);
    let LookUpOutcome::Found(found) = answer else {
        panic!("{answer:?}");
    };
    *found
}

#[test]
fn a_feature_that_is_taken_off_is_refused_alone_and_goes_on_when_it_is_back() {
    for (keys, how) in [
        (true, None),
        (false, None),
        (true, Some("activation")),
        (false, Some("activation")),
    ] {
        let mut world = World::new(100, keys);
        let feature = world.server.features["f"];
        world.add_feature(5).unwrap();
        world.server.features.clear();
        if let Some(kind) = how {
            world.server.features.insert("f", (kind, feature.1));
        }
        assert_calm(&world.run(HOUR));
        assert_eq!(world.sums(Some("f")).held, 5);
        assert_eq!(
            world.status(Some("f")).refused,
            Some("unsupported_product_feature")
        );
        assert_eq!(
            world.status(Some("f")).held[0].reason,
            "unsupported_product_feature"
        );
        assert_eq!(
            world.add_feature(1),
            Err(ErrorCode::UnsupportedProductFeature)
        );
        world.add(3).unwrap();
        assert_calm(&world.run(HOUR));
        assert_eq!(world.sums(None).settled, 3);
        assert_eq!(world.status(None).refused, None);
        world.server.features.insert("f", feature);
        world.run(HOUR);
        assert_eq!(world.sums(Some("f")).settled, 5);
        assert_eq!(world.server.features["f"].1.total, 5);
        world.add_feature(1).unwrap();
    }
}

#[test]
fn a_feature_that_was_taken_off_while_totals_are_in_doubt_is_not_asked_for_without_end() {
    let mut world = World::new(100, false);
    world.add(1).unwrap();
    world.run(HOUR);
    world
        .server
        .features
        .insert("f", ("activation", Counter::of(9)));
    world.core.distrust_totals();
    world.add(3).unwrap();
    assert_calm(&world.run(HOUR));
    assert_eq!(world.sums(None).settled, 4);
}

#[test]
fn what_is_unknown_of_a_feature_that_is_gone_is_held_and_the_total_decides_when_it_is_back() {
    for fate in [Fate::AnswerLost, Fate::Lost] {
        let mut world = World::new(100, false);
        world.add_feature(5).unwrap();
        world.server.fates.push_back(fate);
        world.server.then = Some(|server| {
            server.features.get_mut("f").unwrap().0 = "activation";
        });
        world.run(Duration::from_secs(25));
        assert_eq!(world.sums(Some("f")).unknown, 5, "it could still arrive");
        assert_calm(&world.run(HOUR));
        assert_eq!(world.status(Some("f")).held[0].reason, "gone");
        if fate == Fate::Lost {
            // A person knows it: then it waits for the feature alone.
            let batch = world.batch();
            let decided = world
                .core
                .resolve(world.now, batch, Decision::NotApplied, None);
            decided.unwrap();
            world.core.book_mut().committed();
            let reason = world.status(Some("f")).held[0].reason;
            assert_eq!(reason, "unsupported_product_feature");
        }
        world.add(3).unwrap();
        assert_calm(&world.run(HOUR));
        assert_eq!(world.sums(None).settled, 3);
        world.server.features.get_mut("f").unwrap().0 = "consumption";
        world.run(HOUR);
        assert_eq!(world.sums(Some("f")).settled, 5);
        assert_eq!(world.server.features["f"].1.total, 5);
    }
}

#[test]
fn the_licences_own_counter_in_trouble_refuses_no_feature_and_delays_none() {
    for keys in [true, false] {
        let mut world = World::new(100, keys);
        world.add(5).unwrap();
        world.server.license_type = "perpetual";
        world.add_feature(2).unwrap();
        assert_calm(&world.run(HOUR));
        assert_eq!(
            (world.sums(None).held, world.sums(Some("f")).settled),
            (5, 2)
        );
        assert_eq!(world.add(1), Err(ErrorCode::LicenseNotConsumption));
        assert_eq!(world.status(Some("f")).refused, None);
        world.add_feature(3).unwrap();
        assert_calm(&world.run(HOUR));
        assert_eq!(world.sums(Some("f")).settled, 5);
        assert_eq!(world.core.status(world.now).findings.len(), 0);
        world.server.license_type = "consumption";
        world.run(HOUR);
        assert_eq!((world.sums(None).settled, world.server.own.total), (5, 5));
    }
}

#[test]
fn a_counter_that_is_refused_against_its_description_is_tried_again_ever_more_slowly() {
    for keys in [true, false] {
        let mut world = World::new(100, keys);
        world.server.contradicts = true;
        world.add_feature(5).unwrap();
        let asked = world.run(HOUR);
        assert_calm(&asked);
        world.add(3).unwrap();
        assert_calm(&world.run(HOUR));
        assert_eq!(world.sums(None).settled, 3);
        world.server.contradicts = false;
        world.run(HOUR);
        assert_eq!(world.sums(Some("f")).settled, 5);
    }
}

#[test]
fn readings_for_others_do_not_shorten_the_pause_of_a_counter_that_is_refused() {
    let mut world = World::new(100, true);
    world.server.contradicts = true;
    world.add_feature(5).unwrap();
    let mut sent = 0;
    for _ in 0..600 {
        world.ask("h1");
        let asked = world.run(Duration::from_secs(1));
        sent += asked.iter().filter(|what| *what == "add f5").count();
    }
    assert!(sent <= 15, "{sent} times");
}

#[test]
fn a_counter_that_is_back_soon_goes_on_before_the_licence_is_read_anyway() {
    let mut world = World::new(100, true);
    world.run(Duration::from_mins(1));
    let feature = world.server.features["f"];
    world.server.features.clear();
    world.add_feature(5).unwrap();
    world.run(Duration::from_secs(10));
    assert_eq!(world.sums(Some("f")).held, 5);
    world.server.features.insert("f", feature);
    world.run(Duration::from_mins(3));
    assert_eq!(world.sums(Some("f")).settled, 5);
}

/// 5 units whose answer was lost, and no device that the total could be read by.
fn gone(counted: bool, keys: bool) -> World {
    let mut world = World::new(100, keys);
    let fate = if counted {
        Fate::AnswerLost
    } else {
        Fate::Lost
    };
    world.server.fates.push_back(fate);
    world.server.then = Some(|server| server.devices.clear());
    world.add(5).unwrap();
    world.run(Duration::from_secs(6));
    world
}

#[test]
fn what_is_unknown_of_a_device_that_is_gone_is_held_and_a_person_decides() {
    for counted in [true, false] {
        let mut world = gone(counted, false);
        let asked = world.run(HOUR);
        assert_calm(&asked);
        let status = world.status(None);
        assert_eq!(
            status.held.first().map(|held| held.reason),
            Some("gone"),
            "{asked:?} {status:?}"
        );
        let batch = world.batch();
        let decision = if counted {
            Decision::Applied
        } else {
            Decision::NotApplied
        };
        world
            .core
            .resolve(world.now, batch, decision, None)
            .unwrap();
        world.core.book_mut().committed();
        let sums = world.sums(None);
        assert_eq!(
            if counted { sums.settled } else { sums.pending },
            5,
            "{sums:?}"
        );
    }
}

#[test]
fn what_is_gone_is_decided_by_the_total_when_the_server_accepts_again() {
    for (counted, by) in [(true, "h1"), (false, "h1"), (true, "h2"), (false, "h2")] {
        let mut world = gone(counted, false);
        world.run(HOUR);
        world.server.devices.insert(by, None);
        world
            .server
            .devices
            .insert("h1", (by != "h1").then_some("blacklisted"));
        world.run(HOUR * 2);
        world.server.devices.insert("h1", None);
        world.run(HOUR * 2);
        assert_eq!(world.sums(None).settled, 5, "{counted} {by}");
        assert_eq!(world.server.own.total, 5);
    }
}

#[test]
fn with_keys_a_refusal_says_of_what_is_gone_that_it_was_not_counted() {
    let mut world = gone(false, true);
    world.run(HOUR);
    let status = world.status(None);
    assert_eq!(status.held[0].reason, "device_not_found");
    world.server.devices.insert("h1", None);
    world.run(HOUR);
    assert_eq!((world.sums(None).settled, world.server.own.total), (5, 5));
    let mut world = gone(true, true);
    world.run(HOUR);
    assert_eq!((world.sums(None).settled, world.server.own.total), (5, 5));
}

#[test]
fn a_device_that_is_gone_leaves_the_total_to_be_read_by_another() {
    let mut world = gone(true, false);
    world.server.devices.insert("h2", None);
    world.run(Duration::from_mins(5));
    assert_eq!(world.sums(None).settled, 5);
}

#[test]
fn a_person_decides_about_what_is_unknown_once_it_can_no_longer_arrive() {
    let mut world = World::new(100, false);
    world.server.fates.push_back(Fate::Lost);
    world.add(5).unwrap();
    world.run(Duration::from_secs(6));
    world.online = false;
    world.run(Duration::from_secs(4));
    let batch = world.batch();
    let early = world
        .core
        .resolve(world.now, batch, Decision::Applied, None);
    let early = early.unwrap_err().to_string();
    assert!(
        early.contains("could still arrive") && early.contains("26 s"),
        "{early}"
    );
    world.run(SETTLE_WAIT);
    assert_eq!(world.sums(None).unknown, 5);
    world
        .core
        .resolve(world.now, batch, Decision::NotApplied, None)
        .unwrap();
    world.core.book_mut().committed();
    world.online = true;
    world.run(HOUR);
    assert_eq!((world.sums(None).settled, world.server.own.total), (5, 5));
}

#[test]
fn what_was_never_sent_can_be_given_up_and_nothing_else_be_said_of_it() {
    let mut world = World::new(100, true);
    world.online = false;
    world.add(5).unwrap();
    let batch = world.batch();
    for decision in [Decision::Applied, Decision::NotApplied, Decision::Resend] {
        let refused = world.core.resolve(world.now, batch, decision, None);
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("--waive"), "{refused}");
    }
    world
        .core
        .resolve(world.now, batch, Decision::Waive, Some("test"))
        .unwrap();
    world.core.book_mut().committed();
    world.online = true;
    world.run(HOUR);
    let waived = Conservation {
        recorded: 5,
        waived: 5,
        ..Conservation::default()
    };
    assert_eq!((world.sums(None), world.server.own.total), (waived, 0));
}

#[test]
fn a_refused_device_keeps_nothing_of_another_from_going_on() {
    let mut world = World::new(25, true);
    world.server.fates.push_back(Fate::Throttled);
    world
        .consume("h1", None, 5, OverageSetting::default())
        .unwrap();
    world.run(Duration::from_secs(5));
    world.server.devices.insert("h1", Some("blacklisted"));
    world.ask("h1");
    world.server.own.total = 10;
    world.online = false;
    world
        .consume("h2", None, 20, OverageSetting::default())
        .unwrap();
    world.online = true;
    world.run(HOUR);
    assert_eq!(world.sums(None).held, 20);
    world.server.own.max = 1_000;
    world.run(HOUR);
    assert_eq!(world.server.own.total, 30, "{:?}", world.sums(None));
    world.server.devices.insert("h1", None);
    world.run(HOUR);
    assert_eq!(world.server.own.total, 35);
}

#[test]
fn a_sync_reads_the_licence_by_a_device_that_is_accepted() {
    let mut world = World::new(10, true);
    world
        .consume("h2", None, 1, OverageSetting::default())
        .unwrap();
    world.server.devices.insert("h2", Some("blacklisted"));
    world.run(HOUR);
    world.server.own.total = 10;
    world.online = false;
    world.add(9).unwrap();
    world.online = true;
    world.run(HOUR);
    assert_eq!(world.sums(None).held, 10);
    world.server.own.max = 1_000;
    world.tell(Event::Nudge);
    world.run(Duration::from_secs(6));
    assert_eq!(world.server.own.total, 19);
    // Nor does the refused one postpone the ordinary reading.
    world.server.own.max = 2_000;
    world.run(QUARTER);
    assert_eq!(world.status(None).cap, Some(2_000));
}

#[test]
fn a_refusal_that_the_total_does_not_explain_is_paused_for_longer_and_longer() {
    for keys in [true, false] {
        let mut world = World::new(100, keys);
        let pool = Counter::of(3);
        world.server.pool = Some((pool, false));
        world.online = false;
        for _ in 0..50 {
            world.add(1).unwrap();
        }
        world.online = true;
        let asked = world.run(HOUR);
        // Each one that is counted begins the pauses anew.
        assert!(asked.len() <= 80, "{} requests", asked.len());
        let status = world.status(None);
        assert_eq!(status.held[0].reason, "limit");
        assert!(status.refused_with_room.is_some(), "{asked:?}");
        assert_eq!(world.add(1), Err(ErrorCode::LicenseNotEnoughConsumptions));
        assert_calm(&world.run(HOUR));
        assert_calm(&world.run(HOUR));
        assert_eq!(world.server.own.total, 3, "what fits is counted");
        world.server.pool = Some((Counter::of(1_000), false));
        let asked = world.run(HOUR * 3);
        assert_eq!(world.server.own.total, 50, "{asked:?}");
        assert_eq!(world.status(None).refused_with_room, None);
        world.add(1).unwrap();
    }
}

#[test]
fn a_restart_does_not_forget_that_the_total_explains_nothing() {
    let mut world = World::new(100, true);
    world.server.pool = Some((Counter::of(3), false));
    world.add(5).unwrap();
    world.run(HOUR);
    for _ in 0..5 {
        world.restart();
        assert!(world.run(Duration::from_secs(10)).len() <= 5);
    }
}

#[test]
fn a_pool_limits_what_its_licences_have_left() {
    for keys in [true, false] {
        let mut world = World::new(100, keys);
        world.server.pool = Some((Counter::of(10), true));
        world.ask("h1");
        let told = world.add(6).unwrap();
        assert_eq!(told["pool"]["id"], json!(3));
        assert_eq!(told["pool"]["name"], json!("Fleet"));
        assert_eq!(told["pool"]["total_consumptions"], json!(6));
        assert_eq!(world.add(5), Err(ErrorCode::LicenseNotEnoughConsumptions));
        world.run(HOUR);
        assert_eq!(world.server.own.total, 6);
        assert_eq!(world.add(5), Err(ErrorCode::LicenseNotEnoughConsumptions));
        world.online = false;
        for _ in 0..4 {
            world.add(1).unwrap();
        }
        // Another licence of the pool takes a part.
        world.server.pool.as_mut().unwrap().0.total = 8;
        world.online = true;
        assert_calm(&world.run(HOUR));
        assert_eq!((world.server.own.total, world.sums(None).held), (8, 2));
        assert_eq!(world.status(None).refused_with_room, None);
        world.server.pool.as_mut().unwrap().0.max = 20;
        world.run(HOUR);
        assert_eq!(world.server.own.total, 10);
        let license = world.core.book().licenses().next().unwrap();
        let view = world.core.view(world.now, license);
        let standing = serde_json::to_value(&view.standings[0]).unwrap();
        assert_eq!(standing["pool"]["total_consumptions"], json!(12));
    }
}

#[test]
fn two_licences_of_a_pool_share_what_is_left() {
    let mut world = World::new(100, true);
    world.server.pool = Some((Counter::of(10), true));
    world.ask("h1");
    let mut other = world.server.description();
    other["id"] = json!(2);
    // One of them is described later than the other.
    world.run(Duration::from_secs(1));
    world.learn_other(other, Duration::ZERO);
    world.online = false;
    world.add(6).unwrap();
    let mut of_other = |units| world.consume_of("K2", "h1", None, units, OverageSetting::default());
    assert_eq!(of_other(5), Err(ErrorCode::LicenseNotEnoughConsumptions));
    let told = of_other(4).unwrap();
    assert_eq!(told["total_consumptions"], json!(4));
    assert_eq!(told["pool"]["total_consumptions"], json!(10));
    assert_eq!(world.add(1), Err(ErrorCode::LicenseNotEnoughConsumptions));
}

#[test]
fn an_answer_that_another_one_overtook_takes_nothing_back_of_a_pool() {
    let mut world = World::new(100, true);
    world.server.pool = Some((Counter::of(10), true));
    world.ask("h1");
    let mut other = world.server.description();
    other["id"] = json!(2);
    world.add(6).unwrap();
    world.run(HOUR);
    world.online = false;
    // The server made it before it counted these units, and it was long on its way.
    world.learn_other(other.clone(), 2 * HOUR);
    assert_eq!(world.add(5), Err(ErrorCode::LicenseNotEnoughConsumptions));
    // Asked for after that, it is news: the pool was emptied.
    world.run(Duration::from_secs(1));
    world.learn_other(other, Duration::ZERO);
    world.add(5).unwrap();
}

#[test]
fn an_answer_on_file_takes_nothing_back_of_a_pool() {
    let mut world = World::new(100, true);
    world.server.pool = Some((Counter::of(10), true));
    world.ask("h1");
    let mut other = world.server.description();
    other["id"] = json!(2);
    world.add(6).unwrap();
    world.run(HOUR);
    world.online = false;
    world.take_in_other(other);
    assert_eq!(world.add(5), Err(ErrorCode::LicenseNotEnoughConsumptions));
}

#[test]
fn what_a_licence_owes_counts_in_its_pool_while_the_licence_is_of_another_type() {
    let mut world = World::new(100, true);
    world.server.pool = Some((Counter::of(10), true));
    world.ask("h1");
    let mut other = world.server.description();
    other["id"] = json!(2);
    world.learn_other(other, Duration::ZERO);
    world.online = false;
    world.add(6).unwrap();
    world.server.license_type = "perpetual";
    world.ask("h1");
    let mut of_other = |units| world.consume_of("K2", "h1", None, units, OverageSetting::default());
    assert_eq!(of_other(5), Err(ErrorCode::LicenseNotEnoughConsumptions));
    of_other(4).unwrap();
}
