//! A store on a simulated machine, and workloads for it.

use std::io::IoSlice;

use cairn_io::Store;
use cairn_sim::{FaultPlan, SimFs, SimOptions};

use crate::model::{Image, Model};

/// The block of a direct handle on the simulated machine.
pub(crate) const BLOCK: usize = 512;

/// A kind of store that is tried.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Opens the store on a simulated machine, or creates it.
    pub open: fn(&SimFs) -> Result<Box<dyn Store>, String>,
    /// Prefixes are dropped in multiples of this, in bytes; 0 if the store drops none.
    pub head_unit: u64,
    /// The workload.
    pub steps: &'static [Step],
}

/// A store on a simulated machine, and the promises that its callers were given.
#[derive(Debug)]
pub struct Driver {
    pub(crate) kind: Kind,
    pub(crate) sim: SimFs,
    pub(crate) store: Option<Box<dyn Store>>,
    pub(crate) model: Model,
    /// For each call: how many system calls had been made when it returned, what may be found while
    /// it runs, and after it.
    timeline: Vec<(usize, Model, Model)>,
    counter: u8,
}

/// `Ok`, or the promise that was broken.
pub type Outcome = Result<(), String>;

/// One operation of a workload.
pub type Step = fn(&mut Driver) -> Outcome;

impl Driver {
    pub(crate) fn new(kind: Kind, sim: SimFs) -> Self {
        let images = vec![Image::default()];
        let model = Model { images, heads: (0, 0), head_unit: kind.head_unit.max(1) };
        Self {
            kind,
            sim,
            store: None,
            timeline: vec![(0, model.clone(), model.clone())],
            model,
            counter: 0,
        }
    }

    /// The simulated machine.
    pub fn sim(&self) -> &SimFs {
        &self.sim
    }

    /// The open store.
    ///
    /// # Panics
    /// If the workload has closed it.
    pub fn store(&self) -> &dyn Store {
        self.store.as_deref().expect("the store is open")
    }

    /// Bytes that are found nowhere else, nor in other sectors.
    fn payload(&mut self, len: usize) -> Vec<u8> {
        self.counter = self.counter % 250 + 1;
        vec![self.counter; len]
    }

    /// Enters what a call promised: `during` may be found while it runs.
    fn note(&mut self, during: Model) {
        self.timeline.push((self.sim.op_count(), during, self.model.clone()));
    }

    /// A call returned: on `Ok` the model is `after`; on `Err` anything that may be found while it
    /// runs may still be found.
    fn settle<T: std::fmt::Debug>(
        &mut self,
        result: std::io::Result<T>,
        during: Model,
        after: Model,
    ) -> Outcome {
        self.model = if result.is_ok() { after } else { during.clone() };
        self.note(during);
        result.map(drop).map_err(|e| e.to_string())
    }

    /// Opens the store.
    ///
    /// # Errors
    /// The store's.
    pub fn open(&mut self) -> Outcome {
        let opened = (self.kind.open)(&self.sim);
        self.note(self.model.clone());
        self.store = Some(opened?);
        Ok(())
    }

    /// Writes `len` bytes at `offset`.
    ///
    /// # Errors
    /// The store's.
    pub fn write(&mut self, offset: u64, len: usize) -> Outcome {
        let payload = self.payload(len);
        let mut after = self.model.clone();
        after.changed(|image| image.write(usize::try_from(offset).unwrap(), &payload));
        let result = self.store().write_at(offset, &payload);
        self.settle(result, after.clone(), after)
    }

    /// Writes `len` bytes at the end.
    ///
    /// # Errors
    /// The store's.
    pub fn append(&mut self, len: usize) -> Outcome {
        self.write(self.model.now().len(), len)
    }

    /// Writes bytes in two slices. On `Ok` these bytes are durable, and no others.
    ///
    /// # Errors
    /// The store's.
    pub fn write_durable(&mut self, offset: u64, len: usize) -> Outcome {
        let payload = self.payload(len);
        let (one, two) = payload.split_at(len / 3);
        self.write_slices(offset, &[one, two])
    }

    /// As [`write_durable`](Self::write_durable), in whole blocks, which a direct store writes
    /// directly.
    ///
    /// # Errors
    /// The store's.
    pub fn write_blocks(&mut self, first: u64, blocks: usize) -> Outcome {
        let payload = self.payload(blocks * BLOCK + BLOCK);
        let start = payload.as_ptr().addr().next_multiple_of(BLOCK) - payload.as_ptr().addr();
        let (one, two) = payload[start..start + blocks * BLOCK].split_at(blocks / 2 * BLOCK);
        self.write_slices(first * BLOCK as u64, &[one, two])
    }

    fn write_slices(&mut self, offset: u64, slices: &[&[u8]]) -> Outcome {
        let at = usize::try_from(offset).unwrap();
        let mut during = self.model.clone();
        during.changed(|image| image.write(at, &slices.concat()));
        let mut after = during.clone();
        after.images.iter_mut().for_each(|image| image.write(at, &slices.concat()));
        let slices: Vec<IoSlice<'_>> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
        let result = self.store().write_durable(offset, &slices);
        self.settle(result, during, after)
    }

    /// Syncs the store.
    ///
    /// # Errors
    /// The store's.
    pub fn sync(&mut self) -> Outcome {
        let during = self.model.clone();
        let mut after = during.clone();
        after.synced();
        let result = self.store().sync();
        self.settle(result, during, after)
    }

    /// Cuts the store to `len` bytes.
    ///
    /// # Errors
    /// The store's.
    pub fn truncate(&mut self, len: u64) -> Outcome {
        let mut after = self.model.clone();
        after.changed(|image| image.bytes.truncate(usize::try_from(len).unwrap()));
        let result = self.store().truncate(len);
        self.settle(result, after.clone(), after)
    }

    /// Drops as much as the store can of the bytes before `offset`.
    ///
    /// # Errors
    /// The store's.
    ///
    /// # Panics
    /// If the store reports another head than it must have.
    pub fn truncate_before(&mut self, offset: u64) -> Outcome {
        let head =
            offset.checked_div(self.kind.head_unit).map_or(0, |units| units * self.kind.head_unit);
        let mut during = self.model.clone();
        during.heads.1 = during.heads.1.max(head);
        let mut after = during.clone();
        after.changed(|image| image.head = image.head.max(head));
        after.heads.0 = after.heads.1;
        let result = self.store().truncate_before(offset);
        if let Ok(head) = result {
            assert_eq!(head, after.now().head, "the head that was dropped up to");
        }
        self.settle(result, during, after)
    }

    /// Reserves space.
    ///
    /// # Errors
    /// The store's.
    pub fn preallocate(&mut self, offset: u64, len: u64) -> Outcome {
        let mut after = self.model.clone();
        after.changed(|image| {
            image.bytes.resize(image.bytes.len().max(usize::try_from(offset + len).unwrap()), 0)
        });
        let result = self.store().preallocate(offset, len);
        self.settle(result, after.clone(), after)
    }

    /// Drops the handle.
    pub fn close(&mut self) {
        self.store = None;
        self.note(self.model.clone());
    }

    /// The handle reads what was written through it.
    pub(crate) fn check_live(&self) -> Outcome {
        let found = Image::of(self.store())?;
        let now = self.model.now();
        let head = usize::try_from(found.head).unwrap();
        match (found.head, found.len(), &found.bytes[head..])
            == (now.head, now.len(), &now.bytes[head..])
        {
            true => Ok(()),
            false => Err(format!("reads {}..{}, not what was written", found.head, found.len())),
        }
    }

    /// The process died, or a call failed: opens the store again, and writes the bytes that are
    /// there once more, so that they are durable.
    ///
    /// # Errors
    /// The store's; contents that no caller was promised.
    pub fn recover(&mut self) -> Outcome {
        self.store = None;
        self.sim = self.sim.restart();
        self.open()?;
        let found = Image::of(self.store())?;
        self.model.accepts(&found)?;
        self.model.images.push(found.clone());
        let during = self.model.clone();
        let head = usize::try_from(found.head).unwrap();
        self.store().write_at(found.head, &found.bytes[head..]).map_err(|e| e.to_string())?;
        self.note(during);
        // One byte more, because a length is under a barrier of the file that has it only when that
        // file was changed.
        self.append(1)?;
        self.sync()?;
        self.model.heads = (found.head, found.head);
        self.note(self.model.clone());
        self.check_live()
    }

    /// Whether this may be found after a power cut at `point`.
    pub(crate) fn accepts(&self, point: usize, found: &Image) -> Outcome {
        let returned = self.timeline.partition_point(|(at, ..)| *at <= point);
        let after = &self.timeline[returned.saturating_sub(1)].2;
        let Err(why) = after.accepts(found) else { return Ok(()) };
        match self.timeline.get(returned) {
            Some((_, during, _)) => {
                during.accepts(found).map_err(|also| format!("{why}; or {also}"))
            }
            None => Err(why),
        }
    }
}

/// Runs the workload of `kind`, each step with its own faults. The opening has those of the first
/// step.
///
/// # Panics
/// If a step fails, or the store then reads other bytes than were written.
pub fn run(kind: Kind, faults: impl Fn(usize) -> FaultPlan) -> Driver {
    let mut driver = Driver::new(kind, SimFs::new());
    driver.sim.set_faults(faults(0));
    driver.open().unwrap();
    for (i, step) in kind.steps.iter().enumerate() {
        driver.sim.set_faults(faults(i));
        step(&mut driver).unwrap_or_else(|e| panic!("step {i}: {e}"));
        driver.check_live().unwrap_or_else(|e| panic!("step {i}: {e}"));
    }
    driver
}

/// No faults.
pub fn healthy(_: usize) -> FaultPlan {
    FaultPlan::new()
}

/// The same operations in another order, with other ranges.
pub(crate) fn run_seed(kind: Kind, seed: u64) -> Driver {
    let mut driver = Driver::new(kind, SimFs::with_options(SimOptions::new().seed(seed)));
    driver.open().unwrap();
    let mut dice = seed;
    let mut below = move |bound: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % bound.max(1)
    };
    for step in 0..40 {
        let (head, len) = (driver.model.now().head, driver.model.now().len());
        let inside = head + below(len - head);
        let size = usize::try_from(1 + below(3000)).unwrap();
        let done = match below(24) {
            0..4 => driver.append(size),
            4..8 => driver.write(inside, size),
            8..13 => driver.sync(),
            13 => driver.write(len + below(6000), size),
            14 => driver.truncate(inside),
            15 => driver.truncate_before(inside),
            16 => driver.write_durable(inside, size),
            17 => driver.preallocate(inside, below(5000)),
            18..22 => driver.write_blocks(inside / BLOCK as u64, 1 + size % 5),
            22 => driver.sync().and_then(|()| {
                driver.close();
                driver.open()
            }),
            _ => driver.recover(),
        };
        done.and_then(|()| driver.check_live())
            .unwrap_or_else(|e| panic!("seed {seed}, step {step}: {e}"));
    }
    driver
}
