//! The figures: medians, ratios, as a table, as JSON and as a chart.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Serialize;
use serde_json::json;

use tally_tests::chart::{Chart, Colour, Line, Panel};

use crate::{
    Cell, Measured, Peer,
    measure::median,
    tally::{Fairness, Idle},
};

/// All rounds.
pub(crate) struct Report {
    connections: Vec<usize>,
    idle: Idle,
    disk: Vec<f64>,
    cells: BTreeMap<Cell, Vec<Measured>>,
    signing: Vec<f64>,
    signed: Vec<Measured>,
    fairness: Vec<Fairness>,
}

/// A ratio that is asked for.
#[derive(Serialize)]
struct Ratio {
    what: String,
    found: f64,
    /// What the bare server comes to.
    bare: Option<f64>,
    wanted: f64,
    /// Whether `found` must not be more, rather than not less.
    at_most: bool,
}

impl Ratio {
    fn is_met(&self) -> bool {
        if self.at_most {
            self.found <= self.wanted
        } else {
            self.found >= self.wanted
        }
    }
}

impl Report {
    pub(crate) fn new(connections: &[usize], idle: Idle) -> Self {
        Self {
            connections: connections.to_vec(),
            idle,
            disk: Vec::new(),
            cells: BTreeMap::new(),
            signing: Vec::new(),
            signed: Vec::new(),
            fairness: Vec::new(),
        }
    }

    pub(crate) fn disk(&mut self, rate: f64) {
        self.disk.push(rate);
    }

    pub(crate) fn add(&mut self, cell: Cell, measured: Measured) {
        self.cells.entry(cell).or_default().push(measured);
    }

    pub(crate) fn signing(&mut self, rate: f64) {
        self.signing.push(rate);
    }

    pub(crate) fn signed(&mut self, measured: Measured) {
        self.signed.push(measured);
    }

    pub(crate) fn fairness(&mut self, fairness: Fairness) {
        self.fairness.push(fairness);
    }

    #[expect(clippy::print_stdout, reason = "what the program is for")]
    pub(crate) fn print(&self) {
        println!("raw disk: {:.0} overwrites/s", self.raw());
        println!(
            "tally, idle: {:.1} MB resident, {:.1} context switches/s\n",
            self.idle.memory, self.idle.switches
        );
        println!(
            "{:<12}{:>6}{:>10}{:>9}{:>9}{:>9}{:>10}{:>10}{:>9}{:>8}",
            "",
            "conn",
            "grants/s",
            "p50 us",
            "p99 us",
            "p999 us",
            "CPU us",
            "load us",
            "switch",
            "MB"
        );
        for cell in self.cells.keys() {
            let found = self.median(*cell);
            println!("{:<12}{:>6}{}", name(*cell), cell.connections, line(&found));
        }
        let signed = medians(&self.signed);
        println!("{:<12}{:>6}{}", "tally signed", 64, line(&signed));
        println!(
            "all cores sign {:.0}/s",
            median(self.signing.iter().copied())
        );
        println!(
            "p99 of one application over one connection: {:.0} us alone, {:.0} us beside one with 64, \
             which gets {:.0} grants/s then\n",
            median(self.fairness.iter().map(|round| round.alone)),
            median(self.fairness.iter().map(|round| round.beside)),
            median(self.fairness.iter().map(|round| round.flood))
        );
        for ratio in self.ratios() {
            let (sign, verdict) = (
                if ratio.at_most { "<=" } else { ">=" },
                if ratio.is_met() { "" } else { "NOT MET" },
            );
            let bare = ratio.bare.map(|bare| format!("bare {bare:.2}"));
            println!(
                "{:<58}{:>7.2} {sign} {:<7.2}{:<12}{verdict}",
                ratio.what,
                ratio.found,
                ratio.wanted,
                bare.unwrap_or_default()
            );
        }
    }

    pub(crate) fn to_json(&self) -> tally_tests::Result<String> {
        let cells: Vec<_> = self
            .cells
            .iter()
            .map(|(cell, rounds)| json!({"cell": cell, "median": self.median(*cell), "rounds": rounds}))
            .collect();
        Ok(serde_json::to_string_pretty(&json!({
            "disk": self.disk,
            "idle": self.idle,
            "cells": cells,
            "signing": self.signing,
            "signed": self.signed,
            "fairness": self.fairness,
            "ratios": self.ratios(),
        }))?)
    }

    /// Grants and p99 over connections, with the raw disk as the floor of one connection.
    pub(crate) fn chart(&self) -> Chart {
        let lines = |figure: fn(&Measured) -> f64| -> Vec<Line> {
            let mut series: Vec<Cell> = self.cells.keys().copied().collect();
            series.dedup_by_key(|cell| (cell.peer, cell.unix));
            let line = |of: Cell| {
                let cells = self.cells.keys();
                let cells = cells.filter(|cell| (cell.peer, cell.unix) == (of.peer, of.unix));
                Line {
                    name: title(of),
                    colour: match of.peer {
                        Peer::Bare => Colour::Green,
                        Peer::Tally => Colour::Blue,
                        Peer::Redis => Colour::Orange,
                    },
                    dashed: of.unix,
                    points: cells
                        .map(|cell| (number(cell.connections), figure(&self.median(*cell))))
                        .collect(),
                }
            };
            series.into_iter().map(line).collect()
        };
        let connections: Vec<f64> = self.connections.iter().copied().map(number).collect();
        let mut rates = lines(|found| found.rate);
        rates.push(Line {
            name: "raw disk, one at a time".to_owned(),
            colour: Colour::Grey,
            dashed: false,
            points: connections.iter().map(|x| (*x, self.raw())).collect(),
        });
        Chart {
            over: "connections".to_owned(),
            doubling: Some(connections),
            columns: 2,
            panels: vec![
                Panel {
                    title: "Durable answers per second".to_owned(),
                    lines: rates,
                },
                Panel {
                    title: "p99 (µs)".to_owned(),
                    lines: lines(|found| found.p99),
                },
            ],
        }
    }

    fn raw(&self) -> f64 {
        median(self.disk.iter().copied())
    }

    fn median(&self, cell: Cell) -> Measured {
        medians(self.cells.get(&cell).map_or(&[], Vec::as_slice))
    }

    fn ratios(&self) -> Vec<Ratio> {
        let mut ratios = Vec::new();
        let mut add = |what: String, found: f64, bare: Option<f64>, wanted: f64, at_most: bool| {
            if found.is_finite() && found > 0.0 {
                ratios.push(Ratio {
                    what,
                    found,
                    bare,
                    wanted,
                    at_most,
                });
            }
        };
        for unix in [false, true] {
            let transport = if unix { "Unix" } else { "TCP" };
            for &connections in &self.connections {
                let tally = self.median(Cell::new(Peer::Tally, unix, connections));
                let redis = self.median(Cell::new(Peer::Redis, unix, connections));
                let bare = self.median(Cell::new(Peer::Bare, unix, connections));
                let of = format!("at {connections} over {transport}");
                let wanted = match (unix, connections) {
                    (false, 1 | 8) => 1.2,
                    (false, 64) => 1.6,
                    (false, _) => 1.7,
                    (true, 1) => 1.35,
                    (true, 8) => 1.5,
                    (true, 64) => 1.8,
                    (true, _) => 2.0,
                };
                add(
                    format!("grants/s to Redis {of}"),
                    tally.rate / redis.rate,
                    Some(bare.rate / redis.rate),
                    wanted,
                    false,
                );
                let floor = match (unix, connections) {
                    (false, 1) => Some(0.85),
                    (true, 1) => Some(0.9),
                    (_, 64) => Some(18.0),
                    (_, 256) => Some(30.0),
                    _ => None,
                };
                if let Some(wanted) = floor {
                    let what = format!("grants/s to raw overwrites/s {of}");
                    let to_raw = |rate| rate / self.raw();
                    add(
                        what,
                        to_raw(tally.rate),
                        Some(to_raw(bare.rate)),
                        wanted,
                        false,
                    );
                }
                let tail = match connections {
                    1 => Some(0.9),
                    64 => Some(0.8),
                    _ => None,
                };
                if let Some(wanted) = tail {
                    add(
                        format!("p99 to Redis's {of}"),
                        tally.p99 / redis.p99,
                        Some(bare.p99 / redis.p99),
                        wanted,
                        true,
                    );
                }
                if connections == 64 {
                    add(
                        format!("p999 to p99 {of}"),
                        tally.p999 / tally.p99,
                        Some(bare.p999 / bare.p99),
                        2.5,
                        true,
                    );
                }
            }
        }
        let signing = median(self.signing.iter().copied());
        let signed = medians(&self.signed).rate;
        add(
            "signed answers/s at 64 to what the cores sign".to_owned(),
            signed / signing,
            None,
            0.8,
            false,
        );
        add(
            "p99 of one beside a flood to its p99 alone".to_owned(),
            median(self.fairness.iter().map(|round| round.beside / round.alone)),
            None,
            2.0,
            true,
        );
        ratios
    }
}

/// What a chart calls it.
fn title(cell: Cell) -> String {
    let peer = match cell.peer {
        Peer::Bare => "bare server",
        Peer::Redis => "Redis",
        Peer::Tally => "Tally",
    };
    format!("{peer}, {}", if cell.unix { "Unix socket" } else { "TCP" })
}

#[expect(clippy::cast_precision_loss, reason = "a small count, to draw")]
fn number(connections: usize) -> f64 {
    connections as f64
}

fn name(cell: Cell) -> String {
    let peer = match cell.peer {
        Peer::Bare => "bare",
        Peer::Redis => "redis",
        Peer::Tally => "tally",
    };
    format!("{peer} {}", if cell.unix { "unix" } else { "tcp" })
}

fn medians(rounds: &[Measured]) -> Measured {
    let of = |figure: fn(&Measured) -> f64| median(rounds.iter().map(figure));
    Measured {
        rate: of(|round| round.rate),
        p50: of(|round| round.p50),
        p99: of(|round| round.p99),
        p999: of(|round| round.p999),
        cpu: of(|round| round.cpu),
        load_cpu: of(|round| round.load_cpu),
        switches: of(|round| round.switches),
        memory: of(|round| round.memory),
    }
}

fn line(found: &Measured) -> String {
    let mut line = String::new();
    // Writing into a text cannot fail.
    let _ = write!(
        line,
        "{:>10.0}{:>9.0}{:>9.0}{:>9.0}{:>10.1}{:>10.1}{:>9.2}{:>8.1}",
        found.rate,
        found.p50,
        found.p99,
        found.p999,
        found.cpu,
        found.load_cpu,
        found.switches,
        found.memory
    );
    line
}
