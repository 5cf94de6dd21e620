//! The device: its clocks, its disk, and the agent's engine on it, which can be killed between any two
//! steps.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tally_agent::{
    core::{Policy, book::AppNo, clock::Reading, command::Command, instance::Instance},
    deps::Clocks,
    ledger::{
        Keeping, LedgerError,
        engine::{Engine, Job, Opening, Pulse},
        files::Files,
        schema,
        storage::Reserve,
    },
};
use tally_shared::time::Timestamp;
use tally_simdisk::{Disk, ErrorKind, Fault, Kind};
use tokio::sync::oneshot;

use super::server::{BEGINNING, Instant};
use crate::marks::{self, MemoryMarks};

/// The space that the agent sets aside for a full disk.
const RESERVE: u64 = 256 * 1024;

/// The device's clocks.
pub(super) struct SimClocks(Mutex<ClockState>);

struct ClockState {
    now: Instant,
    wall_error: i64,
    booted_at: Instant,
    boots: u32,
}

impl SimClocks {
    fn with<T>(&self, change: impl FnOnce(&mut ClockState) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Clocks for SimClocks {
    fn reading(&self) -> Reading {
        self.with(|state| Reading {
            wall: Timestamp::from_millis(BEGINNING + state.now + state.wall_error),
            mono: millis(state.now - state.booted_at),
            boot: format!("boot {}", state.boots).into(),
        })
    }
}

/// The device.
pub(super) struct Device {
    /// Its disk.
    pub(super) disk: Disk,
    clocks: Arc<SimClocks>,
    engine: Option<Engine>,
    settings: (Policy, Keeping),
    /// The file that the ledger is in, and the hardware under it.
    instance: Instance,
    seed: u64,
    starts: u64,
    /// What the agent waits for.
    pub(super) pulse: Pulse,
    /// The applications' numbers, where they are known.
    pub(super) apps: Vec<AppNo>,
    capacity: Arc<Mutex<Capacity>>,
    marks: MemoryMarks,
}

/// A copy of a disk and of the marks beside it.
#[derive(Clone)]
pub(super) struct Image {
    files: Vec<(String, Vec<u8>)>,
    marks: MemoryMarks,
}

#[derive(Default)]
struct Capacity {
    bytes: Option<u64>,
    reserved: u64,
}

/// Space on the simulated disk.
struct SimReserve {
    disk: Disk,
    capacity: Arc<Mutex<Capacity>>,
}

impl Reserve for SimReserve {
    fn take(&mut self) -> std::io::Result<()> {
        let mut capacity = self.capacity.lock().unwrap_or_else(PoisonError::into_inner);
        if capacity.reserved > 0 {
            return Ok(());
        }
        if capacity
            .bytes
            .is_some_and(|bytes| self.disk.used() + RESERVE > bytes)
        {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        capacity.reserved = RESERVE;
        capacity.apply(&self.disk);
        Ok(())
    }

    fn release(&mut self) -> bool {
        let mut capacity = self.capacity.lock().unwrap_or_else(PoisonError::into_inner);
        let had_any = capacity.reserved > 0;
        capacity.reserved = 0;
        capacity.apply(&self.disk);
        had_any
    }
}

impl Capacity {
    fn apply(&self, disk: &Disk) {
        disk.set_capacity(self.bytes.map(|bytes| bytes.saturating_sub(self.reserved)));
    }
}

impl Device {
    /// A device whose wall clock is off by so much.
    pub(super) fn new(seed: u64, settings: (Policy, Keeping), wall_error: i64) -> Self {
        let clocks = SimClocks(Mutex::new(ClockState {
            now: 0,
            wall_error,
            booted_at: -60_000,
            boots: 0,
        }));
        let disk = Disk::new();
        // One in four begins with an empty disk. The others save the time.
        if !seed.is_multiple_of(4) {
            disk.write("ledger.db", empty_ledger().to_vec());
        }
        Self {
            disk,
            clocks: Arc::new(clocks),
            engine: None,
            settings,
            instance: instance_of("the original"),
            seed,
            starts: 0,
            pulse: Pulse::default(),
            apps: Vec::new(),
            capacity: Arc::default(),
            marks: MemoryMarks::default(),
        }
    }

    /// Another device of the same make, with a copy of this disk and its marks. It has a number, so that no two
    /// have the same luck.
    pub(super) fn twin(&self, image: &Image, number: u64) -> Self {
        let now = self.clocks.with(|state| state.now);
        let clocks = SimClocks(Mutex::new(ClockState {
            now,
            wall_error: 0,
            booted_at: now - 60_000,
            boots: 1_000_000 + u32::try_from(number).unwrap_or(0),
        }));
        let mut twin = Self {
            disk: Disk::new(),
            clocks: Arc::new(clocks),
            engine: None,
            settings: self.settings,
            instance: Instance {
                born: self.instance.born,
                ..instance_of(&format!("device {number}"))
            },
            seed: self.seed ^ (number + 1).wrapping_mul(0x7_1417_0000_0001),
            starts: 0,
            pulse: Pulse::default(),
            apps: Vec::new(),
            capacity: Arc::default(),
            marks: MemoryMarks::default(),
        };
        twin.put_back(image);
        // An image of the disk has the files as they were.
        twin.instance.born = self.instance.born;
        twin
    }

    /// Everything that is on its disk, with the marks.
    pub(super) fn image(&self) -> Image {
        let files = self.disk.files().into_iter();
        Image {
            files: files
                .filter_map(|name| Some((name.clone(), self.disk.read(&name)?)))
                .collect(),
            marks: self.marks.copy(),
        }
    }

    /// Disk and marks are as they were when the image was made. The agent must not run.
    pub(super) fn put_back(&mut self, image: &Image) {
        // The files are made anew.
        self.instance.born = self.instance.born.map(|born| born + 1);
        for name in self.disk.files() {
            self.disk.remove(&name);
        }
        for (name, content) in &image.files {
            self.disk.write(name, content.clone());
        }
        self.marks.put_back(&image.marks);
    }

    /// The device sleeps for so long, and its monotonic clock does not see it.
    pub(super) fn sleep(&mut self, time: Instant) {
        self.clocks.with(|state| state.booted_at += time);
    }

    /// The engine, while the agent runs.
    pub(super) const fn engine(&self) -> Option<&Engine> {
        self.engine.as_ref()
    }

    /// The settings that it runs by.
    pub(super) const fn settings(&self) -> (Policy, Keeping) {
        self.settings
    }

    /// Starts the agent, as `tally run` does. Its first orders come with it.
    ///
    /// # Errors
    ///
    /// What the ledger says: the disk may be full or failing.
    pub(super) fn start(&mut self, peer: String) -> Result<Vec<Command>, LedgerError> {
        self.starts += 1;
        let connection = schema::open_simulated(&self.disk.path("ledger.db"))?;
        self.disk.sync_folder();
        let mut random = StdRng::seed_from_u64(self.seed ^ (self.starts << 32));
        let mut engine = Engine::open(Opening {
            connection,
            policy: self.settings.0,
            keeping: self.settings.1,
            random: Box::new(move || random.random()),
            clocks: Arc::clone(&self.clocks) as Arc<dyn Clocks>,
            reserve: Box::new(SimReserve {
                disk: self.disk.clone(),
                capacity: Arc::clone(&self.capacity),
            }),
            evidence: marks::evidence(&self.marks),
            files: Files::simulated(),
            instance: self.instance.clone(),
            server: "server".to_owned(),
            peer,
        })?;
        let (jobs, answers): (Vec<Job>, Vec<_>) = ["inspector", "planner"]
            .map(|name| {
                let (reply, answer) = oneshot::channel();
                (Job::App(name.to_owned(), reply), answer)
            })
            .into_iter()
            .unzip();
        let turn = engine.turn(jobs.into_iter());
        self.pulse = turn.pulse;
        let known = answers
            .into_iter()
            .filter_map(|mut answer| answer.try_recv().ok()?.ok());
        self.apps = known.collect();
        self.engine = Some(engine);
        Ok(turn.commands)
    }

    /// Lets the agent take jobs.
    pub(super) fn turn(&mut self, jobs: Vec<Job>) -> Vec<Command> {
        let Some(engine) = &mut self.engine else {
            return Vec::new();
        };
        let turn = engine.turn(jobs.into_iter());
        self.pulse = turn.pulse;
        turn.commands
    }

    /// The process ends at once. What it wrote stands, synced or not.
    pub(super) fn kill(&mut self) {
        self.disk.kill();
        self.engine = None;
        self.pulse = Pulse::default();
    }

    /// The power fails, and comes back: what was not synced may be lost.
    pub(super) fn lose_power(&mut self, seed: u64) {
        self.disk.cut_power_after(0);
        self.engine = None;
        self.disk.power_on(seed);
        self.marks.lose_power(seed);
        self.pulse = Pulse::default();
        self.boot();
    }

    /// The device starts again: its monotonic clock begins anew.
    pub(super) fn boot(&mut self) {
        self.clocks.with(|state| {
            state.boots += 1;
            state.booted_at = state.now - 1000;
        });
    }

    /// Somebody sets the wall clock.
    pub(super) fn set_wall_error(&mut self, error: i64) {
        self.clocks.with(|state| state.wall_error = error);
    }

    /// Time goes on to this instant.
    pub(super) fn set_now(&mut self, now: Instant) {
        self.clocks.with(|state| state.now = now);
    }

    /// When the agent wants to be woken.
    pub(super) fn wakeup(&self) -> Option<Instant> {
        let wakeup = self.pulse.wakeup.filter(|_| self.engine.is_some())?;
        let mono = i64::try_from(wakeup.as_millis()).unwrap_or(i64::MAX);
        // Rounded up: a timer never fires early.
        let mono = mono + i64::from(wakeup.subsec_nanos() % 1_000_000 != 0);
        Some(
            self.clocks
                .with(|state| state.booted_at.saturating_add(mono)),
        )
    }

    /// From now on the disk refuses to sync, or to write: so many times, or for good.
    pub(super) fn break_disk(&mut self, sync: bool, times: Option<u64>) {
        self.disk.fail(Fault {
            kind: if sync { Kind::Sync } else { Kind::Write },
            skip: 0,
            times,
            error: ErrorKind::Io,
        });
    }

    /// Whether the disk's room is bounded.
    pub(super) fn is_short_of_space(&self) -> bool {
        self.capacity
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .bytes
            .is_some()
    }

    /// The disk has room for so many more bytes; `None` for as many as are wanted.
    pub(super) fn set_room(&mut self, room: Option<u64>) {
        let mut capacity = self.capacity.lock().unwrap_or_else(PoisonError::into_inner);
        capacity.bytes = room.map(|room| self.disk.used() + capacity.reserved + room);
        capacity.apply(&self.disk);
    }
}

/// A ledger without a row, made once.
fn empty_ledger() -> &'static [u8] {
    static EMPTY: OnceLock<Vec<u8>> = OnceLock::new();
    EMPTY.get_or_init(|| {
        let disk = Disk::new();
        // Closing it copies the log back. Where it cannot be opened, each device finds out by itself.
        drop(schema::open_simulated(&disk.path("ledger.db")));
        disk.read("ledger.db").unwrap_or_default()
    })
}

/// A ledger's first file, on this hardware.
fn instance_of(hardware: &str) -> Instance {
    Instance {
        born: Some(1),
        hardware: [("serial".to_owned(), hardware.to_owned())].into(),
        ..Instance::default()
    }
}

fn millis(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}
