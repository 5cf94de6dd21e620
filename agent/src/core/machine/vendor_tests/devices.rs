//! Several devices of a licence, of which the server refuses some.

use super::*;

#[test]
fn of_several_refused_devices_each_is_asked_about_whatever_waits_for_a_total() {
    let mut world = World::new(100, false);
    world.server.devices.insert("h1", Some("blacklisted"));
    world.server.devices.insert("h2", Some("blacklisted"));
    world.ask("h2");
    // Refused, so that its total is to be read, which no device can.
    world.add(5).unwrap();
    world.run(HOUR);
    assert_eq!(world.sums(None).held, 5);
    world.server.devices.insert("h2", None);
    world.run(HOUR * 2);
    world
        .consume("h2", None, 1, OverageSetting::default())
        .unwrap();
}

#[test]
fn a_lost_setting_whose_device_is_gone_is_asked_for_under_its_key() {
    let mut world = World::new(100, true);
    let setting = OverageSetting {
        allow_overages: Some(true),
        max_overages: Some(5),
    };
    world.consume("h1", None, 5, setting).unwrap();
    world.server.fates.push_back(Fate::AnswerLost);
    world.server.then = Some(|server| {
        server.devices.insert("h1", Some("blacklisted"));
        server.devices.insert("h2", Some("blacklisted"));
    });
    assert_calm(&world.run(HOUR));
    assert_eq!((world.sums(None).settled, world.server.own.total), (5, 5));
}
