//! Idempotency keys: which are sent, and which are trusted.

use super::*;

#[test]
fn with_keys_an_unknown_batch_is_sent_again_byte_for_byte() {
    let mut world = World::new(100, KeyEcho::Echoed);
    world.record(5).unwrap();
    let first = world.sent();
    world.answer(first.0, lost(), KeyEcho::NoAnswer);
    assert_eq!(world.sums().unknown, 5);
    assert_eq!(world.sent(), first);
}

#[test]
fn without_an_echo_on_a_reading_a_batch_carries_no_key() {
    let mut world = World::new(100, KeyEcho::Absent);
    world.record(5).unwrap();
    assert_eq!(world.sent().1, None);
    let mut world = World::new(100, KeyEcho::Echoed);
    world.record(5).unwrap();
    assert!(world.sent().1.is_some());
}

#[test]
fn under_other_credentials_a_key_says_nothing_and_the_total_decides() {
    let mut world = World::new(100, KeyEcho::Echoed);
    world.record(5).unwrap();
    let first = world.sent();
    world.core.set_peer("other credentials".to_owned());
    world.lose(first.0);
    // This server keeps keys, as the reading says, and knows none of these credentials.
    world.look_up_echoing(5, KeyEcho::Echoed);
    world.reads();
    world.look_up_echoing(5, KeyEcho::Echoed);
    assert_eq!(world.sums().settled, 5);
}

#[test]
fn a_server_that_kept_no_keys_when_a_batch_was_sent_is_not_asked_under_its_key_later() {
    let mut world = World::new(100, KeyEcho::Absent);
    world.record(5).unwrap();
    let first = world.sent();
    world.lose(first.0);
    assert!(world.look_up_echoing(0, KeyEcho::Echoed).is_empty());
    world.pass(SETTLE_WAIT);
    world.reads();
    world.look_up_echoing(5, KeyEcho::Echoed);
    world.reads();
    world.look_up_echoing(5, KeyEcho::Echoed);
    assert_eq!(world.sums().settled, 5);
}

#[test]
fn a_key_whose_age_one_of_two_clocks_does_not_know_is_not_trusted() {
    for jump in [Duration::from_hours(25), Duration::from_mins(1)] {
        let mut world = World::new(100, KeyEcho::Echoed);
        world.record(5).unwrap();
        let first = world.sent();
        world.answer(first.0, lost(), KeyEcho::NoAnswer);
        // The monotonic clock stood still meanwhile.
        world.now.time = world.now.time.plus(jump);
        world.reads();
    }
}

#[test]
fn a_conflict_is_no_defect_and_the_total_decides() {
    let mut world = World::new(100, KeyEcho::Echoed);
    world.record(5).unwrap();
    let first = world.sent();
    let duplicate = SendOutcome::Duplicate("duplicate".to_owned());
    let asked = world.answer(first.0, duplicate, KeyEcho::Echoed);
    assert!(matches!(asked.as_slice(), [Command::LookUp { .. }]));
    world.look_up(5);
    assert_eq!(world.sums().settled, 5);
}

#[test]
fn a_refusal_of_a_second_attempt_is_believed_only_from_a_server_that_knows_the_key() {
    let mut world = World::new(100, KeyEcho::Echoed);
    world.record(5).unwrap();
    let first = world.sent();
    world.answer(first.0, lost(), KeyEcho::NoAnswer);
    let again = world.sent();
    world.answer(again.0, SendOutcome::RefusedLimit, KeyEcho::Absent);
    assert_eq!((world.sums().unknown, world.sums().held), (5, 0));
}

#[test]
fn so_it_is_where_the_first_attempt_was_refused_and_may_have_been_counted_all_the_same() {
    let mut world = World::new(100, KeyEcho::Echoed);
    world.record(5).unwrap();
    let first = world.sent();
    world.answer(first.0, SendOutcome::Throttled(None), KeyEcho::NoAnswer);
    let again = world.sent();
    assert_eq!(again, first);
    let refused = SendOutcome::RefusedLicense(ErrorCode::LicenseNotEnabled);
    world.answer(again.0, refused, KeyEcho::Echoed);
    assert_eq!((world.sums().unknown, world.sums().held), (5, 0));
}

#[test]
fn a_second_attempt_that_was_not_sent_leaves_the_first_one_unknown() {
    let mut world = World::new(100, KeyEcho::Echoed);
    world.record(5).unwrap();
    let first = world.sent();
    world.answer(first.0, lost(), KeyEcho::NoAnswer);
    let again = world.sent();
    world.answer(
        again.0,
        SendOutcome::Unreached("gone".to_owned()),
        KeyEcho::NoAnswer,
    );
    let sums = world.sums();
    assert_eq!(sums.unknown, 5, "{sums:?}");
}

#[test]
fn a_refusal_of_an_earlier_attempt_says_nothing_of_the_licence_now() {
    let mut world = World::new(100, KeyEcho::Echoed);
    world.record(5).unwrap();
    let first = world.sent();
    world.answer(first.0, lost(), KeyEcho::NoAnswer);
    let again = world.sent();
    let refused = || SendOutcome::RefusedLicense(ErrorCode::LicenseNotEnabled);
    let sent = world.answer(again.0, refused(), KeyEcho::Replayed);
    let [Command::Send { batch, key, .. }] = sent.as_slice() else {
        panic!("it should be sent anew, not {sent:?}");
    };
    assert_ne!(key.as_ref().map(|key| key.id), first.1);
    world.record(1).unwrap();
    // A first attempt has no stored answer, whatever a server says.
    world.answer(*batch, refused(), KeyEcho::Replayed);
    assert_eq!(world.sums().held, 5);
    world.record(1).unwrap_err();
}
