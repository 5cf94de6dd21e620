//! One step of a world after the other.

use tally_agent::{
    core::{event::Event, link::NetworkMode},
    ledger::engine::Job,
};

use super::{
    asked::{Asked, Known, Wish},
    plan::Step,
    world::{Failure, World},
};

impl World {
    /// Lets a step happen.
    ///
    /// # Errors
    ///
    /// What does not hold after it.
    pub(super) fn take(&mut self, step: Step) -> Result<(), Failure> {
        self.note(|| format!("{step:?}"));
        if !self.is_running() {
            self.start()?;
        }
        match step {
            Step::Pass(time) => self.pass(time)?,
            Step::Consume(_) | Step::Retry | Step::Burst { .. } => self.consume(step)?,
            Step::Weather(weather) => self.network.weather = weather,
            Step::Between(between) => self.network.between = between,
            Step::Sleep(time) => self.sleep(time)?,
            Step::Nudge => self.turn(vec![Job::Event(Event::Nudge)])?,
            Step::Network { online } => {
                let mode = if online {
                    NetworkMode::Online
                } else {
                    NetworkMode::Offline
                };
                self.turn(vec![Job::Event(Event::SetNetwork(mode))])?;
            }
            Step::Rotate => self.rotate()?,
            Step::Resolve { nth, waive } => self.resolve(nth, waive)?,
            Step::Forget { license } => self.forget(license)?,
            Step::TakeIn { license, now } => self.take_in(license, now)?,
            Step::Snapshot => self.take_snapshot(),
            Step::PutBack => self.put_back()?,
            Step::Twin => self.make_twin(),
            Step::Swap => self.swap()?,
            Step::Kill
            | Step::KillInTurn
            | Step::LosePower { .. }
            | Step::LosePowerAfter { .. }
            | Step::Reboot { .. }
            | Step::SetWall(_)
            | Step::Room(_)
            | Step::DiskFails { .. }
            | Step::DiskHeals => self.harm(step)?,
            _ => self.interfere(step),
        }
        self.check()
    }

    /// Applications consume.
    fn consume(&mut self, step: Step) -> Result<(), Failure> {
        let first = self.life.asked.len();
        match step {
            Step::Consume(wish) => self.wish(wish),
            Step::Burst { license, count } => {
                for units in 1..=count {
                    self.wish(Wish::of((license, 0), 1 + units % 3));
                }
            }
            _ => {
                let is_open = |asked: &Asked| asked.known == Known::Unknown && asked.key.is_some();
                return match self.life.asked.iter().position(is_open) {
                    Some(no) => self.ask(&[no]),
                    None => Ok(()),
                };
            }
        }
        self.ask(&(first..self.life.asked.len()).collect::<Vec<_>>())
    }

    pub(super) fn wish(&mut self, wish: Wish) {
        let no = self.life.asked.len();
        self.requests += 1;
        self.life.asked.push(Asked {
            wish,
            key: wish.keyed.then(|| format!("request-{no}")),
            known: Known::Unknown,
            told: None,
            granted: None,
        });
    }

    /// Something happens to the process, the device or its disk.
    fn harm(&mut self, step: Step) -> Result<(), Failure> {
        match step {
            Step::Kill => self.kill()?,
            Step::KillInTurn => self.kill_in_turn = true,
            Step::LosePower { seed } => self.lose_power(seed)?,
            Step::LosePowerAfter { changes, seed } => {
                self.device.disk.cut_power_after(changes);
                self.power_cut = Some(seed);
            }
            Step::Reboot { wall_error } => {
                self.device.set_wall_error(wall_error);
                self.lose_power(1)?;
            }
            Step::SetWall(error) => self.device.set_wall_error(error),
            Step::Room(room) => self.device.set_room(room),
            Step::DiskFails { sync, times } => {
                self.disk_is_bad = true;
                self.device.break_disk(sync, times);
            }
            _ => self.heal_disk(),
        }
        Ok(())
    }
}
