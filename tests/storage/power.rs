//! The power fails right before every change of the disk.

use crate::bench::Bench;

/// How many outcomes are tried for each moment: what was not synced may be kept, lost, torn, reordered.
const OUTCOMES: u64 = 6;

#[test]
fn nothing_acknowledged_is_lost_whenever_the_power_fails() {
    let mut whole = Bench::new();
    let before = whole.disk.changes();
    whole.live();
    whole.check("without a power loss");
    assert_eq!(whole.unknown, 0);
    let changes = whole.disk.changes() - before;
    let mut moments = 0;
    for change in 0..changes {
        for outcome in 0..OUTCOMES {
            let when = format!("power lost before change {change}, outcome {outcome}");
            let mut bench = Bench::new();
            bench.disk.cut_power_after(change);
            bench.live();
            bench.disk.power_on(change * OUTCOMES + outcome);
            bench
                .start()
                .unwrap_or_else(|error| panic!("{when}: {error:?}"));
            bench.check(&when);
            go_on(&mut bench, &when);
            moments += 1;
        }
    }
    println!("{moments} moments over {changes} changes of the disk");
    assert!(moments >= 2_000, "only {moments} moments");
}

/// After the loss everything works as before.
fn go_on(bench: &mut Bench, when: &str) {
    bench.learn();
    let answer = bench.record(1);
    assert!(
        matches!(&answer, Some(Ok(answer)) if answer.status == 200),
        "{when}: {answer:?}"
    );
    bench.check(when);
}

#[test]
fn a_kill_without_a_power_loss_keeps_everything_that_was_committed() {
    let mut bench = Bench::new();
    bench.live();
    bench.die();
    bench.start().unwrap();
    bench.check("after a kill");
    assert_eq!(bench.sums().recorded, bench.acknowledged);
}
