//! The audit of totals: what the server counted that it should not have.

use super::*;
use crate::core::book::{BatchState, Hold};

#[test]
fn a_refusal_after_the_batch_was_counted_is_a_finding_and_a_person_decides() {
    let refusals = [
        SendOutcome::RefusedLimit,
        SendOutcome::Throttled(None),
        SendOutcome::RefusedCredentials(ErrorCode::RevokedApiKey),
    ];
    for refusal in refusals {
        let mut world = World::new(100, KeyEcho::Absent);
        world.record(5).unwrap();
        let first = world.sent();
        world.answer(first.0, refusal, KeyEcho::Absent);
        if world.core.status(world.now).busy {
            world.look_up(5);
        } else {
            world.tell(Event::Nudge);
            world.look_up(5);
        }
        assert_eq!(world.sums().held, 5);
        assert_eq!(world.findings(), [(FindingKind::RefusedButCounted, 5)]);
    }
}

#[test]
fn a_refusal_that_left_the_total_alone_is_believed() {
    let mut world = World::new(100, KeyEcho::Absent);
    world.record(5).unwrap();
    let first = world.sent();
    world.answer(first.0, SendOutcome::Throttled(None), KeyEcho::Absent);
    world.tell(Event::Nudge);
    assert!(matches!(
        world.look_up(0).as_slice(),
        [Command::Send { .. }]
    ));
    assert!(world.findings().is_empty());
}

#[test]
fn where_units_may_be_returned_any_move_may_hide_a_refused_batch() {
    for moved in [1_000_000, -1_000_000, 3] {
        let mut world = World::new(100, KeyEcho::Absent);
        let told = |world: &World, total| {
            let mut found = world.found(total);
            found.body.counter.allow_negative_consumptions = true;
            found
        };
        let (found, now) = (told(&world, 0), world.now);
        world.core.learn(now, &found, now.mono, KeyEcho::Absent);
        world.core.book_mut().committed();
        world.record(-5).unwrap();
        let (batch, _, _) = world.sent();
        let refusal = SendOutcome::RefusedCredentials(ErrorCode::RevokedApiKey);
        world.answer(batch, refusal, KeyEcho::Absent);
        world.tell(Event::Nudge);
        let found = told(&world, moved);
        assert!(world.looked_up(found, KeyEcho::Absent).is_empty());
        assert_eq!(world.sums().held, -5, "{moved}");
    }
}

#[test]
fn a_refusal_by_a_server_that_looked_the_key_up_is_certain_under_other_credentials_too() {
    let mut world = World::new(100, KeyEcho::Echoed);
    world.record(5).unwrap();
    let (batch, _, _) = world.sent();
    let refusal = SendOutcome::RefusedLicense(ErrorCode::LicenseNotEnabled);
    world.answer(batch, refusal, KeyEcho::New);
    world.core.set_peer("other credentials".to_owned());
    world.tell(Event::Nudge);
    // Another device consumed as many units.
    assert!(matches!(
        world.look_up(5).as_slice(),
        [Command::Send { .. }]
    ));
    assert!(world.findings().is_empty());
}

#[test]
fn a_refusal_under_a_key_that_the_server_has_forgotten_is_not_believed_before_the_total_was_read() {
    let mut world = World::new(100, KeyEcho::Echoed);
    world.record(5).unwrap();
    let (batch, _, _) = world.sent();
    let refusal = SendOutcome::RefusedCredentials(ErrorCode::RevokedApiKey);
    world.answer(batch, refusal, KeyEcho::Echoed);
    world.pass(Duration::from_hours(25));
    let asked = world.tell(Event::Nudge);
    assert!(
        matches!(asked.as_slice(), [Command::LookUp { .. }]),
        "{asked:?}"
    );
    world.look_up_echoing(5, KeyEcho::Echoed);
    assert_eq!(world.sums().held, 5);
    assert_eq!(world.findings(), [(FindingKind::RefusedButCounted, 5)]);
}

#[test]
fn a_refused_batch_goes_on_under_its_own_key_where_the_server_did_not_look_that_up() {
    // What stands between may have sent the request twice; others may have moved the total as well.
    for total in [0, 5, 12] {
        let mut world = World::new(100, KeyEcho::Echoed);
        world.record(5).unwrap();
        let (batch, key, _) = world.sent();
        let refusal = SendOutcome::RefusedLicense(ErrorCode::LicenseNotEnabled);
        world.answer(batch, refusal, KeyEcho::Echoed);
        world.tell(Event::Nudge);
        let commands = world.look_up_echoing(total, KeyEcho::Echoed);
        let [Command::Send { key: again, .. }] = commands.as_slice() else {
            panic!("{commands:?}");
        };
        assert_eq!(again.as_ref().map(|key| key.id), key);
        let counted = world.applied(total.max(5));
        world.answer(batch, counted, KeyEcho::Replayed);
        assert_eq!(world.sums().settled, 5);
    }
}

#[test]
fn of_a_batch_that_was_refused_for_the_limit_where_others_consume_a_person_decides() {
    // A part of it would go under another key.
    let mut world = World::new(100, KeyEcho::Echoed);
    world.record(5).unwrap();
    let (batch, _, _) = world.sent();
    world.answer(batch, SendOutcome::RefusedLimit, KeyEcho::Echoed);
    world.tell(Event::Nudge);
    world.look_up_echoing(13, KeyEcho::Echoed);
    assert_eq!(world.sums().held, 5);
    assert_eq!(
        world.core.book().batch(batch).map(|batch| batch.state),
        Some(BatchState::Held(Hold::Undecidable))
    );
}

#[test]
fn a_reading_that_was_asked_for_before_a_refusal_proves_nothing_of_it() {
    let mut world = World::new(100, KeyEcho::Absent);
    world.record(5).unwrap();
    let (batch, _, _) = world.sent();
    // Somebody adds a device meanwhile; the batch is counted, and refused when it comes a second time.
    let asked_at = world.now.mono;
    world.pass(Duration::from_millis(700));
    let refusal = SendOutcome::RefusedLicense(ErrorCode::LicenseNotEnabled);
    world.answer(batch, refusal, KeyEcho::Absent);
    world.pass(Duration::from_millis(200));
    let (found, now) = (world.found(5), world.now);
    world.core.learn(now, &found, asked_at, KeyEcho::Absent);
    world.core.book_mut().committed();
    assert_eq!(world.sums().held, 5, "it goes on under no other id");
    world.tell(Event::Nudge);
    world.look_up(5);
    assert_eq!(world.sums().held, 5);
    assert_eq!(world.findings(), [(FindingKind::RefusedButCounted, 5)]);
}

#[test]
fn a_refused_batch_that_goes_again_under_its_key_explains_a_total_that_moved_by_it() {
    let mut world = World::new(100, KeyEcho::Echoed);
    world.record(2).unwrap();
    let (batch, _, _) = world.sent();
    // It is counted, and its second copy refused.
    let refusal = SendOutcome::RefusedCredentials(ErrorCode::RevokedApiKey);
    world.answer(batch, refusal, KeyEcho::Echoed);
    world.pass(Duration::from_millis(100));
    let (found, now) = (world.found(2), world.now);
    world.core.learn(now, &found, now.mono, KeyEcho::Echoed);
    world.core.book_mut().committed();
    world.tell(Event::Nudge);
    let outcome = world.applied(2);
    world.answer(batch, outcome, KeyEcho::Replayed);
    let status = world.core.status(world.now);
    assert!(!status.licenses[0].shared, "nobody else has used it");
}

#[test]
fn the_total_before_the_first_of_several_refusals_under_a_key_is_the_one_to_compare_with() {
    let mut world = World::new(100, KeyEcho::Echoed);
    world.record(5).unwrap();
    let (batch, _, _) = world.sent();
    let refusal = || SendOutcome::RefusedCredentials(ErrorCode::RevokedApiKey);
    world.answer(batch, refusal(), KeyEcho::Echoed);
    let found = world.found(5);
    let now = world.now;
    world.core.learn(now, &found, now.mono, KeyEcho::Echoed);
    world.core.book_mut().committed();
    let again = world.tell(Event::Nudge);
    assert!(
        matches!(again.as_slice(), [Command::Send { .. }]),
        "{again:?}"
    );
    world.answer(batch, refusal(), KeyEcho::Echoed);
    world.pass(Duration::from_hours(25));
    world.tell(Event::Nudge);
    world.look_up_echoing(5, KeyEcho::Echoed);
    assert_eq!(world.sums().held, 5);
}

#[test]
fn a_refused_batch_whose_name_moves_goes_under_no_other_id_before_the_total_was_read() {
    let mut world = World::new(100, KeyEcho::Echoed);
    world.record(5).unwrap();
    let (batch, _, _) = world.sent();
    let refusal = SendOutcome::RefusedCredentials(ErrorCode::RevokedApiKey);
    world.answer(batch, refusal, KeyEcho::Echoed);
    let by_another = LicenseFound {
        subject: Subject::by_key("p", "K2", "h"),
        ..world.found(5)
    };
    let mut moved = world.found(0);
    moved.body.counter.id = 2;
    let now = world.now;
    for found in [by_another, moved] {
        world.core.learn(now, &found, now.mono, KeyEcho::Echoed);
        world.core.book_mut().committed();
    }
    let waiting = world.core.book().batch(batch).unwrap();
    let sealed = waiting.sealed.as_ref().unwrap();
    assert!(sealed.refused_at.is_some() && sealed.peer.is_none());
}

#[test]
fn own_units_that_are_counted_after_a_refusal_are_no_sign_that_the_refused_were() {
    let mut world = World::new(100, KeyEcho::Echoed);
    world.record(5).unwrap();
    let (batch, _, _) = world.sent();
    let wrong = SendOutcome::RefusedRequest(ErrorCode::ValidationError, "no".to_owned());
    world.answer(batch, wrong, KeyEcho::Echoed);
    world.record(5).unwrap();
    let (batch, _, _) = world.sent();
    let outcome = world.applied(5);
    world.answer(batch, outcome, KeyEcho::New);
    world.core.set_peer("other credentials".to_owned());
    world.pass(Duration::from_hours(1));
    world.reads();
    world.look_up(5);
    assert!(world.findings().is_empty());
}

#[test]
fn an_answer_that_moved_the_total_twice_is_settled_with_a_finding() {
    let mut world = World::new(10_000, KeyEcho::Absent);
    world.record(5).unwrap();
    let (batch, _, _) = world.sent();
    let outcome = world.applied(10);
    world.answer(batch, outcome, KeyEcho::Absent);
    assert_eq!(world.sums().settled, 5);
    assert_eq!(world.findings(), [(FindingKind::CountedMoreThanOnce, 5)]);
    // Another amount shows that others use the licence, which explains this one too.
    world.record(4).unwrap();
    let (batch, _, _) = world.sent();
    let outcome = world.applied(1_014);
    world.answer(batch, outcome, KeyEcho::Absent);
    assert!(world.findings().is_empty());
    assert!(world.core.status(world.now).licenses[0].shared);
}

#[test]
fn a_batch_that_arrives_again_after_it_was_settled_is_a_finding() {
    let mut world = World::new(100, KeyEcho::Absent);
    world.record(5).unwrap();
    let (batch, _, _) = world.sent();
    let outcome = world.applied(5);
    world.answer(batch, outcome, KeyEcho::Absent);
    world.pass(Duration::from_hours(1));
    world.reads();
    world.look_up(10);
    assert_eq!(world.findings(), [(FindingKind::CountedMoreThanOnce, 5)]);
}

#[test]
fn a_total_that_fell_is_believed_when_it_was_read_twice_and_is_a_finding() {
    let mut world = World::new(100, KeyEcho::Absent);
    world.record(5).unwrap();
    let (batch, _, _) = world.sent();
    let outcome = world.applied(5);
    world.answer(batch, outcome, KeyEcho::Absent);
    world.pass(Duration::from_hours(1));
    world.reads();
    world.look_up(2);
    assert!(world.findings().is_empty(), "one reading may be old");
    let account = world.core.book().account_of(LicenseNo(1), None).unwrap();
    assert!(account.stale, "a restart does not forget it");
    assert_eq!(world.core.status(world.now).licenses[0].total.get(), 5);
    world.pass(SETTLE_WAIT);
    world.reads();
    world.look_up(2);
    assert_eq!(world.findings(), [(FindingKind::TotalFell, 3)]);
    assert_eq!(world.core.status(world.now).licenses[0].total.get(), 2);
    let finding = world.core.status(world.now).findings[0].seq;
    world.core.see_finding(world.now, finding, None).unwrap();
    world.core.book_mut().committed();
    assert!(world.findings().is_empty());
}

#[test]
fn a_replay_whose_units_the_total_does_not_hold_is_a_finding() {
    let mut world = World::new(100, KeyEcho::Echoed);
    world.record(5).unwrap();
    let (batch, _, _) = world.sent();
    let outcome = world.applied(5);
    world.answer(batch, outcome, KeyEcho::Replayed);
    world.look_up(0);
    world.pass(SETTLE_WAIT);
    world.reads();
    world.look_up(0);
    assert_eq!(world.findings(), [(FindingKind::ReplayDidNotCount, 5)]);
}
