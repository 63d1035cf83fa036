//! Machines before and after a power cut.

use crate::choice::Choices;
use crate::chooser::Chooser;
use crate::disk::Disk;
use crate::fs::SimFs;
use crate::rng::derive;
use crate::trace::Trace;

impl Trace {
    /// A machine after a power cut at `point`, in a state the chooser picked. Replays the trace up
    /// to there each time: [`CrashExplorer`](crate::CrashExplorer) is the fast way to visit many
    /// states.
    ///
    /// # Panics
    /// When `point` is greater than [`len`](Trace::len).
    #[must_use]
    pub fn crash_at(&self, point: usize, chooser: &mut Chooser) -> SimFs {
        let disk = self.disk_at(point);
        let choices = Choices::new(&disk, chooser.model);
        let (picks, salt) = chooser.pick(&choices, point as u64);
        self.revive(choices.build(&picks, salt), point)
    }

    /// A running machine over the disk of a crash state. Its random numbers are new ones, as those
    /// of a rebooted machine are, and its clock goes on.
    pub(crate) fn revive(&self, disk: Disk, point: usize) -> SimFs {
        SimFs::over(disk, derive(self.seed, point as u64 + 1), self.clock.saturating_add(1000))
    }
}

impl SimFs {
    /// Everything done to this machine since it started.
    #[must_use]
    pub fn trace(&self) -> Trace {
        let machine = self.shared.lock();
        Trace {
            initial: machine.initial.clone(),
            ops: machine.ops.as_slice().into(),
            seed: machine.seed,
            clock: machine.clock,
        }
    }

    /// Cuts the power now: all processes end, and a new machine starts from one of the possible
    /// disk states.
    #[must_use]
    pub fn power_cut(&self, chooser: &mut Chooser) -> Self {
        let mut machine = self.shared.lock();
        (1..=machine.processes).for_each(|process| machine.kill(process));
        let choices = Choices::new(&machine.disk, chooser.model);
        let (picks, salt) = chooser.pick(&choices, machine.point());
        let disk = choices.build(&picks, salt);
        drop(machine);
        let trace = self.trace();
        trace.revive(disk, trace.len())
    }
}
