//! A ledger in which an older version kept several entries of one licence.

use super::*;
use crate::core::book::{
    Account, AccountNo, Batch, LaneKey, LaneNo, License, LicenseNo, Name, Op, Pause,
};

#[test]
fn several_entries_of_one_licence_have_one_limit_and_are_sent_one_at_a_time() {
    let mut world = World::new(vec![(5, held(&[key("K"), user()], &[DEVICE]))]);
    // As an older version left it: an entry of each name, with units owed of each.
    let mut contents = contents();
    for (no, holder) in [(1, key("K")), (2, user())] {
        contents.licenses.push(License {
            no: LicenseNo(no),
            product: "p".to_owned(),
            holder: holder.clone(),
            id: 5,
            body: body(5, 0),
            blocked: None,
            devices: BTreeMap::from([(DEVICE.to_owned(), None)]),
            refreshed_at: world.now.time,
            op: Op::Idle,
            pause: Pause::default(),
            probe: Pause::default(),
            refresh_at: Duration::ZERO,
        });
        let name = Name::of(&subject(&holder, None, DEVICE));
        contents.names.push((name, LicenseNo(no), true));
    }
    world.add(&subject(&user(), None, DEVICE), 4).unwrap();
    add_owed(&world, &mut contents);
    let server = std::mem::take(&mut world.server);
    let mut world = World::on(contents, server.into_iter().collect());
    let full = world.record(&subject(&user(), None, DEVICE), 3);
    assert!(matches!(full, Err(Rejected::Refused(_))), "{full:?}");
    world.record(&subject(&user(), None, DEVICE), 2).unwrap();
    world.pass(Duration::from_mins(2));
    assert_eq!(world.totals(), [(5, 10)]);
    assert_eq!(
        world.known(),
        [5],
        "an entry that owes nothing is not shown"
    );
    assert!(world.core.status(world.now).findings.is_empty());
    assert!(!world.core.status(world.now).licenses[0].shared);
    let asked = world.pass(Duration::from_hours(10));
    assert!(asked <= 14, "{asked} requests");
}

/// What the one entry of a world owes is owed of each of two entries.
fn add_owed(world: &World, contents: &mut Contents) {
    let book = world.core.book();
    let account = book.accounts.values().next().unwrap();
    let lane = book.lanes.values().next().unwrap();
    let batch = book.batches.values().next().unwrap();
    for no in [1, 2] {
        let (account_no, license) = (AccountNo(no), LicenseNo(no));
        contents.accounts.push(Account {
            no: account_no,
            license,
            ..account.clone()
        });
        let key = LaneKey {
            account: account_no,
            ..lane.key.clone()
        };
        contents.lanes.push((LaneNo(no), key));
        contents.batches.push(Batch {
            no: BatchNo(no),
            lane: LaneNo(no),
            account: account_no,
            first: Seq(no),
            last: Seq(no),
            ..batch.clone()
        });
    }
    contents.head.0 = Seq(2);
    contents.last_batch = BatchNo(2);
}
