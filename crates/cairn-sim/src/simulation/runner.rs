//! Runs single lives of a workload.

use std::rc::Rc;
use std::time::Duration;

use super::case::Life;
use super::cut::Cutter;
use super::workload::Workload;
use crate::fs::SimFs;
use crate::schedule::Broken;
use crate::world::{Ran, WorldOptions};

/// A workload with what decides about its lives.
#[derive(Debug)]
pub(super) struct Runner<W> {
    pub(super) workload: Rc<W>,
    pub(super) cutter: Cutter,
    /// For how long a failing case is made smaller.
    pub(super) shrink: Duration,
}

impl<W: Workload> Runner<W> {
    /// Runs one life.
    pub(super) fn live(
        &self,
        machine: &SimFs,
        life: &Life<W>,
        told: W::Told,
        story: bool,
    ) -> Ran<Result<W::Told, Broken>> {
        let mut options =
            WorldOptions::new(life.seed).machine(machine.clone()).faults(life.faults).story(story);
        if let Some(turns) = &life.turns {
            options = options.turns(turns.clone());
        }
        let (workload, script) = (self.workload.clone(), life.script.clone());
        options.run(move |world| workload.live(world, &script, told))
    }
}
