//! Copies of the whole device: put back, or started beside it. What goes with a ledger goes with its copy.

use std::collections::{BTreeMap, BTreeSet};

use tally_agent::{core::book::Batch, ledger::schema};

use super::{
    asked::Asked,
    device::{Device, Image},
    server::Instant,
    truth::{Lineage, Place, Rows},
    world::{Failure, World},
};

/// What goes with a ledger.
#[derive(Clone)]
pub(super) struct Life {
    /// What applications asked of it.
    pub(super) asked: Vec<Asked>,
    /// The licences that the agent said it has forgotten.
    pub(super) forgotten: BTreeSet<usize>,
    /// When the server last said of a counter what the agent knows.
    pub(super) heard: BTreeMap<(i64, Option<String>), Instant>,
    /// Who recorded its rows.
    pub(super) lineage: Lineage,
    /// The units that were called counted with others of their batch, and were not.
    pub(super) misjudged: BTreeMap<Place, i64>,
    /// Batches that a person said to be counted: where, when, and their units.
    pub(super) decided: Vec<(Place, Instant, i64)>,
    /// What was given up of a copy while the original had it still to send.
    pub(super) given_up: Vec<(Place, Vec<Rows>)>,
    /// What somebody said of this ledger's rows that they are to be sent.
    pub(super) to_send: Vec<Rows>,
}

/// A copy of a device, and what goes with its ledger.
pub(super) struct Snapshot {
    image: Image,
    life: Life,
    newest: i64,
}

impl Life {
    pub(super) fn new() -> Self {
        Self {
            asked: Vec::new(),
            forgotten: BTreeSet::new(),
            heard: BTreeMap::new(),
            lineage: Lineage::new(),
            misjudged: BTreeMap::new(),
            decided: Vec::new(),
            given_up: Vec::new(),
            to_send: Vec::new(),
        }
    }
}

impl Snapshot {
    /// The life of a copy that is started now.
    fn revive(&self, life: u32) -> Life {
        Life {
            lineage: self.life.lineage.branch(self.newest, life),
            ..self.life.clone()
        }
    }
}

impl World {
    /// Somebody copies the whole disk.
    pub(super) fn take_snapshot(&mut self) {
        let Some(engine) = self.device.engine() else {
            return;
        };
        if self.disk_is_bad || !self.device.disk.is_on() {
            return;
        }
        let (newest, _) = engine.core().book().head();
        self.snapshot = Some(Snapshot {
            image: self.device.image(),
            life: self.life.clone(),
            newest: newest.0,
        });
    }

    /// Somebody puts the whole disk back.
    pub(super) fn put_back(&mut self) -> Result<(), Failure> {
        if self.power_cut.is_some() || self.device.is_short_of_space() {
            return Ok(());
        }
        let Some(snapshot) = &self.snapshot else {
            return Ok(());
        };
        self.device.kill();
        self.device.put_back(&snapshot.image);
        self.life = snapshot.revive(self.lives);
        self.lives += 1;
        self.crashes += 1;
        self.start()
    }

    /// Somebody puts a copy of the disk into another device, which is not switched on yet.
    pub(super) fn make_twin(&mut self) {
        if let (Some(snapshot), None) = (&self.snapshot, &self.twin) {
            let twin: Device = self.device.twin(&snapshot.image, 0);
            let life = snapshot.revive(self.lives);
            self.lives += 1;
            self.twin = Some((twin, life));
        }
    }

    /// The other device is switched on, and this one off.
    pub(super) fn swap(&mut self) -> Result<(), Failure> {
        if let Some(seed) = self.power_cut {
            self.lose_power(seed)?;
        }
        if self.twin.is_some() {
            self.heal_disk();
        }
        let Some((device, life)) = &mut self.twin else {
            return Ok(());
        };
        self.device.kill();
        std::mem::swap(&mut self.device, device);
        std::mem::swap(&mut self.life, life);
        self.device.set_now(self.now);
        self.crashes += 1;
        self.start()
    }

    /// A world where another device of this one's is started from its snapshot.
    pub(super) fn clone_device(&self, mut other: Self, number: u32) -> Self {
        if let Some(snapshot) = &self.snapshot {
            other.device = self.device.twin(&snapshot.image, u64::from(number));
            other.life = snapshot.revive(number);
        }
        other
    }

    /// The rows of a batch. Where ledgers were copied, each is one of its own, since a copy may have them in
    /// other batches.
    pub(super) fn rows_of(&self, batch: &Batch) -> Vec<Rows> {
        let (lane, first, last) = (batch.lane.0, batch.first.0, batch.last.0);
        let lineage = &self.life.lineage;
        if self.copies {
            let rows = self.read_rows(lane, first, last).unwrap_or_default();
            let rows = rows.into_iter().map(|(seq, units)| Rows {
                life: lineage.owner(seq),
                lane,
                first: seq,
                last: seq,
                units,
            });
            return rows.collect();
        }
        vec![Rows {
            life: lineage.owner(first),
            lane,
            first,
            last,
            units: batch.units.get(),
        }]
    }

    fn read_rows(&self, lane: i64, first: i64, last: i64) -> Option<Vec<(i64, i64)>> {
        let connection = schema::open_read_only(&self.device.disk.path("ledger.db")).ok()?;
        let mut statement = connection
            .prepare(
                "SELECT seq, units FROM consumptions
                 WHERE lane = ?1 AND seq BETWEEN ?2 AND ?3 ORDER BY seq",
            )
            .ok()?;
        let rows = statement.query_map((lane, first, last), |row| Ok((row.get(0)?, row.get(1)?)));
        rows.ok()?.collect::<Result<_, _>>().ok()
    }
}
