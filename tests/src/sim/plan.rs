//! What happens to a simulated world, drawn from a seed. A plan is a list, so that a failing one can be
//! made shorter.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{
    asked::{Overage, Wish},
    counter::{Period, Presence},
    kinds::Kinds,
    server::{Instant, Shape},
    trouble,
};

/// Units that others consume at once. No sum of the agent's own comes near it, so that the agent can
/// always tell the two apart where it looks: that two amounts are equal by chance is beyond anybody, and
/// the model of the whole (`tests/model`) shows it.
pub(super) const FOREIGN: i64 = 1_000_003;

/// How the world is made.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    /// Whether the server keeps idempotency keys.
    pub(super) keeps_keys: bool,
    /// Whether late units are held.
    pub(super) holds_late: bool,
    /// How long settled rows are kept, in milliseconds.
    pub(super) retention: Instant,
    /// How far the wall clock is off at first.
    pub(super) wall_error: Instant,
    /// For each licence, its counters.
    pub(super) licenses: Vec<Vec<CounterSetup>>,
    /// How many of the licences are known to the agent at first.
    pub(super) known: usize,
    /// What the other kinds add.
    pub(super) more: More,
}

/// How the world is made by the kinds of trouble that can be switched.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each can be so by itself")]
pub(super) struct More {
    /// Whether the server refuses licence and device before it looks a key up.
    pub(super) refuses_first: bool,
    /// Whether it answers a known key with 409.
    pub(super) says_duplicate: bool,
    /// The licences that the user has as well.
    pub(super) users: Vec<usize>,
    /// The licences that have a second device.
    pub(super) second_device: Vec<usize>,
    /// Number of devices that others have activated for each licence; `None` where the server does not say.
    pub(super) elsewhere: Option<usize>,
    /// The limit of the pool, and the licences that share it.
    pub(super) pool: Option<(i64, Vec<usize>)>,
    /// Whether the disk is copied.
    pub(super) copies: bool,
    /// The device that is refused for good.
    pub(super) stays_refused: Option<usize>,
    /// Whether what is taken away stays away when the world is calm.
    pub(super) stays_gone: bool,
}

/// A counter: its limit, period and first total, and whether negative units are allowed.
pub(super) type CounterSetup = (i64, Option<Period>, i64, bool);

/// How likely each trouble is, in percent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weather {
    /// No connection.
    pub(super) unreached: u8,
    /// The request is lost.
    pub(super) lost_before: u8,
    /// The answer is lost.
    pub(super) lost_after: u8,
    /// The request arrives after the agent gave up on it.
    pub(super) late: u8,
    /// The request arrives twice.
    pub(super) twice: u8,
    /// The answer is not the contract's.
    pub(super) garbled: u8,
    /// A gateway answers for the server, which may have counted the request.
    pub(super) gateway: u8,
    /// The server has no time.
    pub(super) throttled: u8,
    /// The longest time on the way, in milliseconds.
    pub(super) slowness: Instant,
}

/// What stands between the agent and the server: how likely each trouble of it is, in percent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Between {
    /// A gateway that loses an answer repeats the request if it carries a key, and says 502 if it does not.
    pub(super) gateway: u8,
    /// A balancer repeats the request, and passes the second answer on.
    pub(super) balancer: u8,
    /// Of those, how many are refused before the server looks at the second.
    pub(super) refused_after: u8,
    /// A read is answered by a cache.
    pub(super) cache: u8,
    /// Whether that answer says its age.
    pub(super) shows_age: bool,
    /// A read is answered by a replica.
    pub(super) replica: u8,
    /// How far that is behind.
    pub(super) lag: Instant,
    /// The connection breaks before the request is through, and the agent hears it at once.
    pub(super) cut_before: u8,
    /// The same after the server answered.
    pub(super) cut_after: u8,
}

/// Something that happens.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// Time passes, and what is due happens.
    Pass(Instant),
    Consume(Wish),
    /// An application asks again with the key of a request that had no answer.
    Retry,
    /// Several applications at once.
    Burst {
        license: usize,
        count: i64,
    },
    Foreign {
        license: usize,
        counter: usize,
        units: i64,
    },
    SetLimit {
        license: usize,
        counter: usize,
        max: i64,
    },
    SetTotal {
        license: usize,
        counter: usize,
    },
    SetEnabled {
        license: usize,
        enabled: bool,
    },
    SetDevice {
        license: usize,
        device: usize,
        active: bool,
    },
    /// The licence expires after so long, or has no end.
    SetExpiry {
        license: usize,
        after: Option<Instant>,
    },
    /// The vendor sets the overage.
    SetOverage {
        license: usize,
        overage: Overage,
    },
    SetFeature {
        license: usize,
        counter: usize,
        presence: Presence,
    },
    SetShape {
        license: usize,
        shape: Shape,
    },
    /// A licence is taken away, or one device of it; or given back.
    SetGone {
        license: usize,
        device: Option<usize>,
        gone: bool,
    },
    /// The key of a licence opens another from here on.
    MoveKey {
        license: usize,
        to: usize,
    },
    /// The server refuses for the limit, whatever its total.
    Contradict {
        license: usize,
        on: bool,
    },
    /// The server starts to keep keys, or stops.
    KeepKeys(bool),
    /// Somebody makes a copy of the server, or puts it back.
    BackUp,
    RollBack,
    /// The agent's credentials are replaced.
    Rotate,
    Weather(Weather),
    Between(Between),
    /// The device sleeps, and its monotonic clock with it.
    Sleep(Instant),
    /// Somebody copies the whole disk, puts it back, or starts it in another device.
    Snapshot,
    PutBack,
    Twin,
    /// The other of the two devices is switched on, and this one off.
    Swap,
    /// The process is killed now.
    Kill,
    /// The process is killed in its next turn, after the commit and before anybody hears of it.
    KillInTurn,
    LosePower {
        seed: u64,
    },
    /// The power fails in the middle of a commit.
    LosePowerAfter {
        changes: u64,
        seed: u64,
    },
    Reboot {
        wall_error: Instant,
    },
    SetWall(Instant),
    /// The disk has room for so many more bytes.
    Room(Option<u64>),
    /// The disk refuses to write, or to sync.
    DiskFails {
        sync: bool,
        times: Option<u64>,
    },
    DiskHeals,
    /// Somebody wants to sync now.
    Nudge,
    Network {
        online: bool,
    },
    /// Somebody decides about a held batch, and knows the truth.
    Resolve {
        nth: usize,
        waive: bool,
    },
    /// Somebody takes a licence off the device.
    Forget {
        license: usize,
    },
    /// Somebody imports an answer that the server signed once, or signs now.
    TakeIn {
        license: usize,
        now: bool,
    },
}

/// Draws a world and what happens to it.
pub(super) fn draw(seed: u64, kinds: Kinds) -> (Setup, Vec<Step>) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut setup = draw_setup(&mut random);
    let counts: Vec<usize> = setup.licenses.iter().map(Vec::len).collect();
    let length = random.random_range(8..38);
    let mut steps = (0..length)
        .map(|_| draw_step(&mut random, &counts))
        .collect();
    // Drawn apart, so that the other worlds stay as they are.
    let mut random = StdRng::seed_from_u64(seed ^ 0xf0_4637);
    if random.random_bool(0.35) {
        draw_membership(&mut random, &mut setup, &mut steps);
    }
    trouble::draw(seed, kinds, &mut setup, &mut steps);
    (setup, steps)
}

/// Licences that come and go: some are not known at first, are forgotten, and come back.
fn draw_membership(random: &mut StdRng, setup: &mut Setup, steps: &mut Vec<Step>) {
    setup.known = random.random_range(0..=setup.licenses.len());
    for _ in 0..random.random_range(1..8) {
        let license = random.random_range(0..setup.licenses.len());
        let at = random.random_range(0..=steps.len());
        let step = if random.random_bool(0.6) {
            Step::Forget { license }
        } else {
            let now = random.random_bool(0.5);
            Step::TakeIn { license, now }
        };
        steps.insert(at, step);
    }
}

fn draw_setup(random: &mut StdRng) -> Setup {
    let licenses = (0..random.random_range(1..=3)).map(|_| {
        (0..random.random_range(1..=2))
            .map(|_| {
                let room = [15, 60, 400, FOREIGN + 30, 3 * FOREIGN + 80];
                let period = match random.random_range(0..4) {
                    0 => Some(Period::Daily),
                    1 => Some(Period::Weekly),
                    _ => None,
                };
                let total = [0, 5, FOREIGN][random.random_range(0..3)];
                let max = total + room[random.random_range(0..room.len())];
                (max, period, total, random.random_bool(0.2))
            })
            .collect()
    });
    let licenses: Vec<Vec<CounterSetup>> = licenses.collect();
    Setup {
        keeps_keys: random.random_bool(0.4),
        holds_late: random.random_bool(0.3),
        retention: [1, 3_600_000, 90 * 86_400_000][random.random_range(0..3)],
        wall_error: draw_wall_error(random),
        known: licenses.len(),
        licenses,
        more: More::default(),
    }
}

fn draw_wall_error(random: &mut StdRng) -> Instant {
    const DAY: i64 = 86_400_000;
    match random.random_range(0..6) {
        0 => random.random_range(-4000 * DAY..0),
        1 => random.random_range(0..4000 * DAY),
        2 => random.random_range(-2 * DAY..2 * DAY),
        3 => random.random_range(-600_000..600_000),
        _ => random.random_range(-500..500),
    }
}

fn draw_weather(random: &mut StdRng) -> Weather {
    let percent = |random: &mut StdRng, most: u8| random.random_range(0..=most);
    match random.random_range(0..6) {
        0 => Weather {
            slowness: 50,
            ..Weather::default()
        },
        1 => Weather {
            unreached: 100,
            ..Weather::default()
        },
        2 => Weather {
            lost_after: 100,
            slowness: 200,
            ..Weather::default()
        },
        _ => Weather {
            unreached: percent(random, 30),
            lost_before: percent(random, 30),
            lost_after: percent(random, 50),
            late: percent(random, 30),
            twice: percent(random, 20),
            garbled: percent(random, 20),
            gateway: percent(random, 20),
            throttled: percent(random, 10),
            slowness: [20, 500, 20_000][random.random_range(0..3)],
        },
    }
}

fn draw_pass(random: &mut StdRng) -> Instant {
    match random.random_range(0..10) {
        0..4 => random.random_range(1..200),
        4..7 => random.random_range(200..20_000),
        7 | 8 => random.random_range(20_000..600_000),
        _ if random.random_bool(0.5) => random.random_range(600_000..6 * 3_600_000),
        _ => random.random_range(20 * 3_600_000..40 * 3_600_000),
    }
}

fn draw_step(random: &mut StdRng, counts: &[usize]) -> Step {
    let license = random.random_range(0..counts.len());
    let counter = random.random_range(0..counts[license]);
    let units = match random.random_range(0..12) {
        0 => 0,
        1 => -random.random_range(1..4),
        2 => random.random_range(5..30),
        _ => random.random_range(1..5),
    };
    match random.random_range(0..100) {
        0..30 => Step::Pass(draw_pass(random)),
        30..52 => {
            let app = random.random_range(0..2);
            let keyed = random.random_bool(0.5);
            let max = random.random_bool(0.06).then(|| random.random_range(0..20));
            let overage = max.filter(|_| counter == 0).map(|max| Overage {
                allow: true,
                max: Some(max),
            });
            Step::Consume(Wish {
                app,
                keyed,
                overage,
                ..Wish::of((license, counter), units)
            })
        }
        52..55 => Step::Retry,
        55..59 => Step::Burst {
            license,
            count: random.random_range(2..9),
        },
        59..63 => Step::Foreign {
            license,
            counter,
            units: if random.random_bool(0.8) {
                FOREIGN
            } else {
                -FOREIGN
            },
        },
        63..65 => {
            let max = [0, 20, 100, 2 * FOREIGN, 4 * FOREIGN + 50][random.random_range(0..5)];
            Step::SetLimit {
                license,
                counter,
                max,
            }
        }
        65 => Step::SetTotal { license, counter },
        66 | 67 => Step::SetEnabled {
            license,
            enabled: random.random_bool(0.5),
        },
        68 => Step::SetDevice {
            license,
            device: 0,
            active: random.random_bool(0.5),
        },
        69..77 => Step::Weather(draw_weather(random)),
        77..80 => Step::Kill,
        80..83 => Step::KillInTurn,
        83 => Step::LosePower {
            seed: random.random(),
        },
        84..86 => Step::LosePowerAfter {
            changes: random.random_range(0..12),
            seed: random.random(),
        },
        86 => Step::Reboot {
            wall_error: draw_wall_error(random),
        },
        87 => Step::SetWall(draw_wall_error(random)),
        88..90 => Step::Room(Some(random.random_range(0..40_000))),
        90 => Step::Room(None),
        91 => Step::DiskFails {
            sync: random.random_bool(0.5),
            times: random.random_bool(0.5).then(|| random.random_range(1..4)),
        },
        92 | 93 => Step::DiskHeals,
        94..96 => Step::Nudge,
        96 => Step::Network {
            online: random.random_bool(0.7),
        },
        _ => Step::Resolve {
            nth: random.random_range(0..3),
            waive: random.random_bool(0.2),
        },
    }
}
