//! What the server said is told again where its first commit failed, and says the same then.

use super::*;

impl World {
    /// The disk fails when this is to be committed; later it does not.
    fn tell_twice(&mut self, event: &Event) -> Vec<Command> {
        let commands = self.core.handle(self.now, event.clone());
        self.core.roll_back(&commands);
        self.tell(event.clone())
    }

    fn reading(&self, total: i64) -> Event {
        Event::LookedUp {
            license: LicenseNo(1),
            hardware_id: "h".to_owned(),
            outcome: LookUpOutcome::Found(Box::new(self.found(total))),
            key: KeyEcho::Absent,
        }
    }
}

#[test]
fn a_reading_that_is_told_again_is_as_old_as_it_was() {
    let mut world = World::new(10_000, KeyEcho::Absent);
    world.record(5).unwrap();
    let (batch, _, _) = world.sent();
    world.lose(batch);
    world.look_up(0);
    world.pass(SETTLE_WAIT);
    world.reads();
    // Others use the licence: nobody can tell, now that the batch can no longer arrive.
    let reading = world.reading(1_000);
    world.tell_twice(&reading);
    assert_eq!((world.sums().held, world.sums().unknown), (5, 0));
}

#[test]
fn a_refusal_that_the_total_does_not_explain_is_tried_again_though_the_disk_failed_at_first() {
    let mut world = World::new(100, KeyEcho::Absent);
    world.record(5).unwrap();
    let (batch, _, _) = world.sent();
    let asked = world.answer(batch, SendOutcome::RefusedLimit, KeyEcho::Absent);
    assert!(matches!(asked.as_slice(), [Command::LookUp { .. }]));
    let reading = world.reading(0);
    world.tell_twice(&reading);
    world.pass(Duration::from_mins(2));
    let asked = world.tell(Event::Tick);
    let is_tried = |command: &Command| matches!(command, Command::FindPrefix { .. });
    assert!(asked.iter().any(is_tried), "{asked:?}");
}
