//! One way through a run, as data: scripts, schedules and cuts, one life after the other.

use std::fmt;
use std::str::FromStr;

use super::cut::{Cut, End};
use super::script::{Part, Script};
use super::seed::Seed;
use super::workload::Workload;
use crate::fs::SimFs;
use crate::options::{SectorSize, SimOptions};
use crate::schedule::{Faults, Turn};

/// Turns of a life that its text holds.
const TURNS_SHOWN: usize = 4000;

pub(super) struct Life<W: Workload> {
    pub(super) seed: u64,
    pub(super) faults: Faults,
    /// `None`: as the seed says.
    pub(super) turns: Option<Vec<Turn>>,
    pub(super) script: Script<W::Call>,
    /// `None` for the last life.
    pub(super) end: Option<Cut>,
}

impl<W: Workload> Clone for Life<W> {
    fn clone(&self) -> Self {
        Self {
            seed: self.seed,
            faults: self.faults,
            turns: self.turns.clone(),
            script: self.script.clone(),
            end: self.end.clone(),
        }
    }
}

pub(super) struct Case<W: Workload> {
    pub(super) seed: Seed,
    /// Seed of the first machine.
    pub(super) machine: u64,
    pub(super) sector: SectorSize,
    pub(super) lives: Vec<Life<W>>,
}

impl<W: Workload> Clone for Case<W> {
    fn clone(&self) -> Self {
        let Self { seed, machine, sector, lives } = self;
        Self { seed: *seed, machine: *machine, sector: *sector, lives: lives.clone() }
    }
}

impl<W: Workload> Case<W> {
    /// The machine that the first life finds.
    pub(super) fn machine(&self) -> SimFs {
        SimFs::with_options(SimOptions::new().seed(self.machine).sector_size(self.sector))
    }

    /// How the last life that ended did so.
    pub(super) fn ended_by(&self, end: End) -> bool {
        let mut ends = self.lives.iter().rev().filter_map(|life| life.end.as_ref());
        ends.next().is_some_and(|cut| cut.end() == end)
    }

    /// A number for the place in the tree of lives.
    pub(super) fn path(&self) -> u64 {
        let ends = self.lives.iter().filter_map(|life| life.end.as_ref());
        ends.fold(0x7061_7468, |path, end| {
            let text = end.to_string();
            text.bytes().fold(path ^ 0x9e37, |path: u64, byte| {
                (path ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
            })
        })
    }
}

impl<W: Workload> fmt::Display for Case<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}", self.seed)?;
        writeln!(f, "machine {} {}", self.machine, self.sector.bytes())?;
        for life in &self.lives {
            let faults = match life.faults {
                Faults::None => "no faults",
                Faults::Seeded => "faults",
                Faults::Barriers => "failing barriers",
                Faults::Writes => "failing writes",
            };
            writeln!(f, "life {} {faults}", life.seed)?;
            for part in &life.script.parts {
                writeln!(f, "thread {}", part.name)?;
                for call in &part.calls {
                    writeln!(f, "  {call}")?;
                }
            }
            if let Some(turns) = &life.turns {
                // So many turns are a thread that goes round in a circle.
                let shown = turns.iter().take(TURNS_SHOWN);
                let turns: Vec<String> = shown.map(ToString::to_string).collect();
                for line in turns.chunks(8) {
                    writeln!(f, "turns {}", line.join(" "))?;
                }
                if turns.is_empty() {
                    writeln!(f, "turns")?;
                }
            }
            if let Some(end) = &life.end {
                writeln!(f, "end {end}")?;
            }
        }
        Ok(())
    }
}

impl<W: Workload> FromStr for Case<W> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut case: Option<Self> = None;
        let mut seed = Seed::new(0);
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let bad = || format!("no line of a case: {line:?}");
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            if word == "seed" {
                seed = rest.parse()?;
                continue;
            }
            if word == "machine" {
                let (machine, sector) = rest.split_once(' ').ok_or_else(bad)?;
                let sector = match sector.trim() {
                    "512" => SectorSize::Bytes512,
                    "4096" => SectorSize::Bytes4096,
                    _ => return Err(bad()),
                };
                let machine = machine.parse().map_err(|_| bad())?;
                case = Some(Self { seed, machine, sector, lives: Vec::new() });
                continue;
            }
            let case = case.as_mut().ok_or_else(bad)?;
            if word == "life" {
                let (seed, faults) = rest.split_once(' ').ok_or_else(bad)?;
                let faults = match faults {
                    "no faults" => Faults::None,
                    "faults" => Faults::Seeded,
                    "failing barriers" => Faults::Barriers,
                    "failing writes" => Faults::Writes,
                    _ => return Err(bad()),
                };
                let seed = seed.parse().map_err(|_| bad())?;
                let script = Script::new();
                case.lives.push(Life { seed, faults, turns: None, script, end: None });
                continue;
            }
            let life = case.lives.last_mut().ok_or_else(bad)?;
            life.line(word, rest, line).ok_or_else(bad)?;
        }
        case.ok_or_else(|| "a case names its machine".to_owned())
    }
}

impl<W: Workload> Life<W> {
    /// Takes a line of a case's text in.
    fn line(&mut self, word: &str, rest: &str, line: &str) -> Option<()> {
        match word {
            "thread" => {
                self.script.parts.push(Part { name: rest.trim().to_owned(), calls: Vec::new() });
            }
            "turns" => {
                let turns = rest.split_whitespace().map(|turn| turn.parse().ok());
                let turns = turns.collect::<Option<Vec<Turn>>>()?;
                self.turns.get_or_insert_default().extend(turns);
            }
            "end" => self.end = Some(rest.parse().ok()?),
            _ => {
                let part = self.script.parts.last_mut()?;
                part.calls.push(line.trim().parse().ok()?);
            }
        }
        Some(())
    }
}
