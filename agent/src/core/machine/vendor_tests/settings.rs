//! Overage settings that reach the server late, or never.

use super::*;

const fn allow(allow: bool) -> OverageSetting {
    OverageSetting {
        allow_overages: Some(allow),
        max_overages: None,
    }
}

const fn overages(max: i64) -> OverageSetting {
    OverageSetting {
        allow_overages: Some(true),
        max_overages: Some(max),
    }
}

#[test]
fn a_setting_that_a_later_one_replaced_is_not_sent_after_a_hold() {
    let mut world = World::new(10, true);
    world.online = false;
    world.consume("h1", None, 12, overages(5)).unwrap();
    world.server.own.total = 8;
    world.online = true;
    world.run(HOUR);
    assert_eq!(world.sums(None).held, 12);
    let told = world.consume("h1", None, 0, allow(false)).unwrap();
    world.run(HOUR);
    let view = world
        .core
        .view(world.now, world.core.book().licenses().next().unwrap());
    let later = serde_json::to_value(&view.standings[0]).unwrap();
    for field in ["allow_overages", "max_overages"] {
        assert_eq!(told[field], later[field], "{field}");
    }
    world.server.own.max = 20;
    world.run(HOUR);
    assert_eq!(
        (world.server.own.total, world.server.own.overages),
        (20, (false, 5))
    );
    assert_eq!(world.sums(None).settled, 12);
    assert_eq!(world.add(1), Err(ErrorCode::LicenseNotEnoughConsumptions));
}

#[test]
fn settings_reach_the_server_in_the_order_in_which_they_were_granted() {
    for keys in [true, false] {
        let mut world = World::new(10, keys);
        world.online = false;
        world.add(8).unwrap();
        world.consume("h1", None, 7, overages(5)).unwrap();
        world.consume("h1", None, 0, allow(false)).unwrap();
        world.consume("h1", None, 0, allow(true)).unwrap();
        world.online = true;
        world.run(HOUR);
        let units: Vec<i64> = world.server.counted.iter().map(|row| row.2).collect();
        assert_eq!(units, [8, 7, 0, 0]);
        assert_eq!(world.server.own.overages, (true, 5));
    }
}

#[test]
fn a_batch_of_nothing_but_a_replaced_setting_ends_without_a_request() {
    for keys in [true, false] {
        let mut world = World::new(10, keys);
        world.server.devices.insert("h1", Some("blacklisted"));
        world.consume("h1", None, 0, overages(5)).unwrap();
        world.run(HOUR);
        world.consume("h2", None, 0, allow(false)).unwrap();
        world
            .consume(
                "h2",
                None,
                0,
                OverageSetting {
                    allow_overages: None,
                    max_overages: Some(3),
                },
            )
            .unwrap();
        world.run(HOUR);
        world.server.devices.insert("h1", None);
        world.run(HOUR);
        assert_eq!(world.core.book().batches().count(), 0);
        assert!(
            world.server.counted.iter().all(|row| row.0 == "h2"),
            "{:?}",
            world.server.counted
        );
        assert_eq!(world.server.own.overages, (false, 3));
    }
}

#[test]
fn a_lost_setting_undoes_no_edit_of_the_vendors() {
    for (keys, units) in [(true, 0), (false, 0), (true, 4), (false, 4)] {
        let mut world = World::new(10, keys);
        world.online = false;
        world.consume("h1", None, units, overages(5)).unwrap();
        world.online = true;
        world.server.fates.push_back(Fate::Lost);
        world.server.then = Some(|server| server.own.overages = (true, 2));
        world.run(HOUR);
        if units > 0 && !keys {
            let batch = world.batch();
            assert_eq!(world.sums(None).held, units, "an edit makes it undecidable");
            world
                .core
                .resolve(world.now, batch, Decision::NotApplied, None)
                .unwrap();
            world.core.book_mut().committed();
            world.run(HOUR);
        }
        assert_eq!(world.server.own.overages, (true, 2), "{keys} {units}");
        if units == 0 || !keys {
            assert_eq!(
                (world.server.own.total, world.sums(None).settled),
                (units, units)
            );
            assert_eq!(world.core.book().batches().count(), 0);
        }
    }
}
