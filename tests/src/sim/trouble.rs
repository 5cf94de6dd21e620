//! The kinds of trouble that can be switched, drawn into a world: each as short episodes at any place among
//! the other steps, with parts of them left out at random.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{
    asked::{Naming, Overage, Wish},
    counter::Presence,
    kinds::{Kind, Kinds},
    plan::{Between, Setup, Step, Weather},
    server::{Instant, Shape},
};

/// How far a replica is behind at most. Two readings that are a settle wait apart must be enough to see what
/// the first could not, so this is no more than that.
pub(super) const LAG_MAX: Instant = 30_000;

const HOUR: Instant = 3_600_000;

/// What an episode is drawn with.
struct Draw<'a> {
    random: StdRng,
    setup: &'a mut Setup,
}

/// Adds the kinds that this seed has. Each has random numbers of its own, so that it is the same in worlds
/// where others are switched off.
pub(super) fn draw(seed: u64, kinds: Kinds, setup: &mut Setup, steps: &mut Vec<Step>) {
    for kind in Kind::all() {
        let mut random = StdRng::seed_from_u64(seed ^ kind.salt());
        let roll = random.random_range(0..100);
        if !kinds.has(*kind, roll) {
            continue;
        }
        let mut draw = Draw { random, setup };
        draw.set_up(*kind);
        for _ in 0..draw.random.random_range(1..=2) {
            let episode = draw.episode(*kind);
            let at = draw.random.random_range(0..=steps.len());
            let kept: Vec<Step> = episode
                .into_iter()
                .filter(|_| draw.random.random_bool(0.9))
                .collect();
            steps.splice(at..at, kept);
        }
        draw.rename(*kind, steps);
    }
}

impl Draw<'_> {
    fn license(&mut self) -> usize {
        self.random.random_range(0..self.setup.licenses.len())
    }

    fn some_licenses(&mut self, odds: f64) -> Vec<usize> {
        let all = 0..self.setup.licenses.len();
        all.filter(|_| self.random.random_bool(odds)).collect()
    }

    fn counter(&mut self, license: usize) -> usize {
        self.random
            .random_range(0..self.setup.licenses[license].len())
    }

    fn pass(&mut self, from: Instant, to: Instant) -> Step {
        Step::Pass(self.random.random_range(from..to))
    }

    fn consume(&mut self, license: usize) -> Step {
        let counter = self.counter(license);
        let units = self.random.random_range(1..6);
        Step::Consume(Wish {
            keyed: self.random.random_bool(0.3),
            ..Wish::of((license, counter), units)
        })
    }

    /// How the world is made for a kind.
    fn set_up(&mut self, kind: Kind) {
        let licenses = self.setup.licenses.len();
        match kind {
            Kind::Gateway | Kind::Balancer | Kind::Cache => {
                self.setup.keeps_keys &= self.random.random_bool(0.3);
            }
            Kind::Replica => {
                self.setup.keeps_keys &= self.random.random_bool(0.3);
                // Where a total may fall, nobody can tell one that is behind from one that fell.
                let counters = self.setup.licenses.iter_mut().flatten();
                counters.for_each(|counter| counter.3 = false);
            }
            Kind::EarlyRefusal => {
                self.setup.keeps_keys |= self.random.random_bool(0.8);
                self.setup.more.refuses_first = true;
            }
            Kind::Duplicate => {
                self.setup.keeps_keys |= self.random.random_bool(0.8);
                self.setup.more.says_duplicate = true;
            }
            Kind::Rotation | Kind::Sleep => {
                self.setup.keeps_keys |= self.random.random_bool(0.8);
            }
            Kind::Names => {
                self.setup.more.users = self.some_licenses(0.7);
                if self.random.random_bool(0.5) {
                    self.setup.more.second_device = vec![self.random.random_range(0..licenses)];
                }
            }
            Kind::Gone => self.setup.more.stays_gone = self.random.random_bool(0.5),
            Kind::Devices => {
                self.setup.more.second_device = (0..licenses).collect();
                let elsewhere = self.random.random_range(0..4_usize);
                self.setup.more.elsewhere = elsewhere.checked_sub(2);
                let device = self.random.random_range(0..2);
                self.setup.more.stays_refused = self.random.random_bool(0.5).then_some(device);
            }
            Kind::Pool => {
                let max = self.random.random_range(5..60);
                self.setup.more.pool = Some((max, self.some_licenses(0.8)));
            }
            Kind::PutBack | Kind::Copy => self.setup.more.copies = true,
            Kind::RollBack
            | Kind::Keys
            | Kind::Features
            | Kind::Settings
            | Kind::Removed
            | Kind::Contradiction => {}
        }
    }

    /// What happens once by a kind.
    fn episode(&mut self, kind: Kind) -> Vec<Step> {
        let license = self.license();
        match kind {
            Kind::Gateway | Kind::Balancer | Kind::Cache | Kind::Replica => {
                self.between(kind, license)
            }
            Kind::RollBack => self.roll_back(license),
            Kind::EarlyRefusal => self.around(
                license,
                &[false, true].map(|enabled| Step::SetEnabled { license, enabled }),
            ),
            Kind::Duplicate => {
                // What a gateway sends again, the server knows already.
                let gateway = self.random.random_range(0..=100);
                let between = Between {
                    gateway,
                    ..Between::default()
                };
                let mut steps = vec![Step::Between(between)];
                steps.extend(self.around(license, &[]));
                steps
            }
            Kind::Rotation => self.around(license, &[Step::Rotate]),
            Kind::Keys => {
                let first = self.random.random_bool(0.5);
                let mut steps = vec![Step::KeepKeys(!first)];
                steps.extend(self.around(license, &[Step::KeepKeys(first)]));
                steps
            }
            Kind::Sleep => {
                let time = [
                    self.random.random_range(1..20) * 60_000,
                    25 * HOUR,
                    31 * HOUR,
                ];
                let time = time[self.random.random_range(0..3)];
                self.around(license, &[Step::Sleep(time)])
            }
            Kind::PutBack | Kind::Copy => self.copy(kind, license),
            Kind::Names => self.names(license),
            Kind::Features => self.features(license),
            Kind::Gone => {
                let device = self.random.random_bool(0.5).then_some(0);
                let gone = |gone| Step::SetGone {
                    license,
                    device,
                    gone,
                };
                self.around(license, &[gone(true), gone(false)])
            }
            Kind::Settings => self.settings(license),
            Kind::Devices => {
                let device = self.random.random_range(0..2);
                let set = |active| Step::SetDevice {
                    license,
                    device,
                    active,
                };
                self.around(license, &[set(false), set(true)])
            }
            Kind::Removed => self.removed(license),
            Kind::Pool => vec![self.consume(license), self.consume(license)],
            Kind::Contradiction => {
                let set = |on| Step::Contradict { license, on };
                vec![
                    set(true),
                    self.consume(license),
                    self.pass(1_000, 120_000),
                    self.pass(1_000, 2 * HOUR),
                    set(false),
                ]
            }
        }
    }

    /// A batch is counted and its answer lost; then something happens, before it is heard of again.
    fn around(&mut self, license: usize, middle: &[Step]) -> Vec<Step> {
        let lost = Weather {
            lost_after: 100,
            slowness: 50,
            ..Weather::default()
        };
        let away = Weather {
            unreached: 100,
            ..Weather::default()
        };
        let fine = Weather {
            slowness: 50,
            ..Weather::default()
        };
        let mut steps = vec![
            Step::Weather(fine),
            self.consume(license),
            self.pass(5_000, 40_000),
            Step::Weather(lost),
            self.consume(license),
            Step::Nudge,
            self.pass(500, 8_000),
            Step::Weather(away),
            self.pass(1_000, 60_000),
        ];
        let is_heard_between = self.random.random_bool(0.5);
        for (no, step) in middle.iter().enumerate() {
            if no > 0 || is_heard_between {
                steps.push(Step::Weather(fine));
            }
            steps.push(*step);
            if no + 1 < middle.len() {
                steps.push(Step::Weather(fine));
                steps.push(self.pass(1_000, 200_000));
            }
        }
        steps.push(Step::Weather(fine));
        steps.push(self.pass(1_000, 300_000));
        steps
    }

    fn between(&mut self, kind: Kind, license: usize) -> Vec<Step> {
        let percent = self.random.random_range(20..=100);
        let none = Between::default();
        let between = match kind {
            Kind::Gateway => Between {
                gateway: percent,
                ..none
            },
            Kind::Balancer => Between {
                balancer: percent,
                refused_after: [0, 50, 100][self.random.random_range(0..3)],
                ..none
            },
            Kind::Cache => Between {
                cache: percent,
                shows_age: self.random.random_bool(0.5),
                ..none
            },
            _ => Between {
                replica: percent,
                lag: self.random.random_range(1_000..=LAG_MAX),
                ..none
            },
        };
        let mut steps = vec![Step::Between(between)];
        if self.random.random_bool(0.5) || matches!(kind, Kind::Cache | Kind::Replica) {
            steps.extend(self.around(license, &[]));
        } else {
            let counter = self.counter(license);
            let max = self.random.random_range(1..12);
            steps.push(Step::SetLimit {
                license,
                counter,
                max,
            });
            for _ in 0..3 {
                steps.push(self.consume(license));
                steps.push(self.pass(5_000, 60_000));
            }
        }
        if self.random.random_bool(0.5) {
            steps.push(Step::Between(none));
        }
        steps
    }

    fn roll_back(&mut self, license: usize) -> Vec<Step> {
        let mut steps = vec![
            self.consume(license),
            self.pass(1_000, 90_000),
            Step::BackUp,
        ];
        for _ in 0..self.random.random_range(1..4) {
            steps.push(self.consume(license));
            steps.push(self.pass(1_000, 600_000));
        }
        steps.push(Step::RollBack);
        steps.push(self.pass(1_000, 100_000));
        steps.push(self.consume(license));
        steps
    }

    fn copy(&mut self, kind: Kind, license: usize) -> Vec<Step> {
        let mut steps = vec![self.consume(license), self.consume(license)];
        if self.random.random_bool(0.5) {
            steps.extend(self.around(license, &[Step::Snapshot]));
        } else {
            steps.push(self.pass(1, 5_000));
            steps.push(Step::Snapshot);
            steps.push(self.consume(license));
            steps.push(self.pass(1, 60_000));
        }
        if kind == Kind::PutBack {
            steps.push(Step::PutBack);
        } else {
            steps.push(Step::Twin);
            steps.push(Step::Swap);
            steps.push(self.consume(license));
            steps.push(self.pass(1, 60_000));
            steps.push(Step::Swap);
        }
        steps.push(self.consume(license));
        steps.push(self.pass(1, 60_000));
        steps
    }

    fn names(&mut self, license: usize) -> Vec<Step> {
        let to = self.license();
        let mut steps = Vec::new();
        if to != license && self.random.random_bool(0.6) {
            steps.push(Step::MoveKey { license, to });
        }
        for _ in 0..3 {
            steps.push(self.consume(license));
            steps.push(self.pass(100, 60_000));
        }
        steps
    }

    fn features(&mut self, license: usize) -> Vec<Step> {
        let counters = self.setup.licenses[license].len();
        let middle = if counters > 1 && self.random.random_bool(0.7) {
            let counter = counters - 1;
            let away = [Presence::TakenOff, Presence::OtherType][self.random.random_range(0..2)];
            [away, Presence::There].map(|presence| Step::SetFeature {
                license,
                counter,
                presence,
            })
        } else {
            let other = [Shape::OtherType, Shape::Bare][self.random.random_range(0..2)];
            [other, Shape::Consumed].map(|shape| Step::SetShape { license, shape })
        };
        if self.random.random_bool(0.6) {
            return self.around(license, &middle);
        }
        let [away, back] = middle;
        vec![
            self.consume(license),
            self.pass(1_000, 60_000),
            away,
            self.consume(license),
            self.pass(1_000, 200_000),
            self.consume(license),
            self.pass(1_000, 20 * HOUR),
            back,
        ]
    }

    fn settings(&mut self, license: usize) -> Vec<Step> {
        let mut steps = Vec::new();
        for _ in 0..self.random.random_range(2..5) {
            let overage = Overage {
                allow: self.random.random_bool(0.6),
                max: self
                    .random
                    .random_bool(0.6)
                    .then(|| self.random.random_range(0..20)),
            };
            let units = self.random.random_range(0..12);
            let wish = Wish {
                overage: Some(overage),
                ..Wish::of((license, 0), units)
            };
            if self.random.random_bool(0.2) {
                steps.extend(self.set_by_others_too(wish, overage));
                continue;
            }
            steps.push(Step::Consume(wish));
            steps.push(self.pass(100, 60_000));
            match self.random.random_range(0..4) {
                0 => steps.push(Step::SetLimit {
                    license,
                    counter: 0,
                    max: self.random.random_range(0..40),
                }),
                1 => steps.push(Step::SetOverage { license, overage }),
                2 => steps.push(self.consume(license)),
                _ => {}
            }
        }
        steps
    }

    /// The request, or its answer, is lost; before the total is read, another device sets the same and adds some units.
    fn set_by_others_too(&mut self, wish: Wish, overage: Overage) -> Vec<Step> {
        let license = wish.license;
        let is_request = self.random.random_bool(0.5);
        let lost = Weather {
            lost_before: if is_request { 100 } else { 0 },
            lost_after: if is_request { 0 } else { 100 },
            slowness: 50,
            ..Weather::default()
        };
        let away = Weather {
            unreached: 100,
            ..Weather::default()
        };
        let fine = Weather {
            slowness: 50,
            ..Weather::default()
        };
        vec![
            Step::Weather(lost),
            Step::Consume(wish),
            Step::Nudge,
            self.pass(100, 4_000),
            Step::Weather(away),
            Step::SetOverage { license, overage },
            Step::Foreign {
                license,
                counter: 0,
                // As many as the batch has could not be told from it.
                units: wish.units + self.random.random_range(1..20),
            },
            self.pass(30_000, 60_000),
            Step::Weather(fine),
            self.pass(1_000, 300_000),
        ]
    }

    fn removed(&mut self, license: usize) -> Vec<Step> {
        let is_disabled = self.random.random_bool(0.3);
        let refused = |refused: bool| {
            let after = refused.then_some(60_000);
            let enabled = !refused;
            if is_disabled {
                Step::SetEnabled { license, enabled }
            } else {
                Step::SetExpiry { license, after }
            }
        };
        let fine = Weather {
            slowness: 50,
            ..Weather::default()
        };
        vec![
            Step::Weather(fine),
            refused(true),
            // Each start reads every licence.
            Step::Kill,
            self.pass(10_000, 50_000),
            self.consume(license),
            self.pass(60_000, 300_000),
            Step::Forget { license },
            self.pass(1_000, 200_000),
            refused(false),
            self.consume(license),
        ]
    }

    /// Gives the requests of a world the names and devices that a kind is about.
    fn rename(&mut self, kind: Kind, steps: &mut [Step]) {
        for step in steps {
            let Step::Consume(wish) = step else { continue };
            match kind {
                Kind::Names => {
                    let is_users = self.setup.more.users.contains(&wish.license);
                    let most = if is_users { 4 } else { 2 };
                    wish.naming = Naming::ALL[self.random.random_range(0..most)];
                    let has_second = !self.setup.more.second_device.is_empty();
                    wish.device = usize::from(has_second && self.random.random_bool(0.3));
                }
                Kind::Devices => wish.device = self.random.random_range(0..2),
                _ => {}
            }
        }
    }
}
