//! A heap beside a model of its contents. A driver runs programs on both, and records when each
//! step was acknowledged.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use cairn_heap::{
    Block, Error, Heap, Linear, Policy, PolicyId, ROOTS, Result, SizeClass, Slab, Transaction,
};
use cairn_sim::{Call, SimFs};
use cairn_stack::Stack;

#[path = "../../examples/buddy/buddy.rs"]
pub(crate) mod buddy;

use buddy::Buddy;

use crate::lies::{SCATTER, Scatter};

pub(crate) const PATH: &str = "/heap";
pub(crate) const KEY: u64 = 0x1234_5678_9abc_def0;
/// Cairn's own, and one that is not.
pub(crate) const POLICIES: [PolicyId; 6] = [SLAB, SLAB_8, SLAB_500, LINEAR, SIZE_CLASS, Buddy::ID];
/// And one that puts blocks anywhere.
pub(crate) const ALL: [PolicyId; 7] =
    [SLAB, SLAB_8, SLAB_500, LINEAR, SIZE_CLASS, Buddy::ID, SCATTER];
pub(crate) const SLAB: PolicyId = id_of_slab(64);
pub(crate) const SLAB_8: PolicyId = id_of_slab(8);
pub(crate) const SLAB_500: PolicyId = id_of_slab(500);
pub(crate) const LINEAR: PolicyId = PolicyId::Linear;
pub(crate) const SIZE_CLASS: PolicyId = PolicyId::SizeClass;

const fn id_of_slab(block_size: u64) -> PolicyId {
    PolicyId::Slab { block_size }
}

pub(crate) fn policy(id: PolicyId) -> Arc<dyn Policy> {
    match id {
        PolicyId::Slab { block_size } => Arc::new(Slab { block_size }),
        LINEAR => Arc::new(Linear),
        SIZE_CLASS => Arc::new(SizeClass),
        Buddy::ID => Arc::new(Buddy),
        SCATTER => Arc::new(Scatter),
        other => panic!("{other}"),
    }
}

/// A small generator of numbers, so that a seed means the same for ever.
#[derive(Clone, Debug)]
pub(crate) struct Dice(pub u64);

impl Dice {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) % bound as u64) as usize
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let salt = self.below(1 << 30);
        (0..len)
            .map(|i| ((i.wrapping_mul(31) ^ (i >> 8).wrapping_mul(17) ^ salt) % 255) as u8 + 1)
            .collect()
    }
}

/// What a heap holds: contents by stored handle, roots, user area.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct State {
    pub(crate) blocks: BTreeMap<u128, Vec<u8>>,
    pub(crate) roots: BTreeMap<usize, u128>,
    pub(crate) user: Vec<u8>,
}

impl State {
    pub(crate) fn empty() -> Self {
        State { user: vec![0; cairn_heap::USER_AREA_LEN], ..State::default() }
    }

    /// What a heap holds, all of it; and the proof that nothing else is in it.
    pub(crate) fn of(heap: &Heap) -> std::result::Result<Self, String> {
        let said = |e: Error| chain(&e);
        let report = heap.check().map_err(said)?;
        if let Some(violation) = report.violations.first() {
            return Err(format!("{violation}, and {} more", report.violations.len() - 1));
        }
        let mut state =
            State { user: heap.user_area().map_err(said)?.to_vec(), ..State::default() };
        let live: Vec<Block> = heap.blocks().map_err(said)?.collect();
        let bytes: u64 = live.iter().map(Block::len).sum();
        if report.lost_bytes != 0
            || report.live_blocks != live.len() as u64
            || report.live_bytes != bytes
        {
            return Err(format!("leaked: {report:?}"));
        }
        for block in live {
            state.blocks.insert(block.to_raw(), heap.read(block).map_err(said)?);
        }
        for slot in 0..ROOTS {
            let root = heap.root(slot).map_err(said)?;
            if !root.is_empty() {
                state.roots.insert(slot, root.to_raw());
            }
        }
        Ok(state)
    }

    fn pick(&self, dice: &mut Dice) -> Option<u128> {
        let nth = dice.below(self.blocks.len().max(1));
        self.blocks.keys().nth(nth).copied()
    }
}

/// One step of a program, on heap and model alike; which blocks it is about is decided by the
/// model.
// Length: one case for each operation, on heap and model side by side.
pub(crate) fn step(
    tx: &mut Transaction<'_, '_>,
    state: &mut State,
    dice: &mut Dice,
    sizes: usize,
) -> Result<()> {
    let len = match dice.below(12) {
        0 => 0,
        1..8 => 1 + dice.below(sizes / 10),
        _ => 1 + dice.below(sizes),
    };
    let roll = if state.blocks.len() > 40 { 30 + dice.below(10) } else { dice.below(100) };
    let picked = state.pick(dice);
    match (roll, picked) {
        (0..30, _) | (_, None) => {
            if dice.below(2) == 0 {
                let bytes = dice.bytes(len);
                let block = tx.alloc_with(&bytes)?;
                assert_eq!(block.len(), len as u64);
                if len > 0 {
                    assert!(state.blocks.insert(block.to_raw(), bytes).is_none());
                }
            } else {
                let block = tx.alloc(len as u64)?;
                if len > 0 {
                    assert!(state.blocks.insert(block.to_raw(), vec![0; len]).is_none());
                }
            }
        }
        (30..55, Some(raw)) => {
            let block = tx.block(raw)?;
            for (&slot, _) in state.roots.iter().filter(|(_, root)| **root == raw) {
                tx.set_root(slot, Block::EMPTY)?;
            }
            state.roots.retain(|_, root| *root != raw);
            tx.dealloc(block)?;
            state.blocks.remove(&raw);
        }
        (55..75, Some(raw)) => {
            let block = tx.block(raw)?;
            let new = tx.realloc(block, len as u64)?;
            let mut bytes = state.blocks.remove(&raw).unwrap();
            bytes.resize(len, 0);
            if len > 0 {
                assert!(state.blocks.insert(new.to_raw(), bytes).is_none());
            }
            state
                .roots
                .values_mut()
                .filter(|root| **root == raw)
                .for_each(|root| *root = new.to_raw());
            state.roots.retain(|_, root| *root != 0);
        }
        (75..88, Some(raw)) => {
            let bytes = state.blocks.get_mut(&raw).unwrap();
            let at = dice.below(bytes.len());
            let new_len = 1 + dice.below(bytes.len() - at);
            let new = dice.bytes(new_len);
            let range = at..at + new.len();
            let block = tx.block(raw)?;
            let slice = block.subslice(range.start as u64..range.end as u64)?;
            if dice.below(4) == 0 {
                tx.zero(slice)?;
                bytes[range].fill(0);
            } else {
                tx.write(slice, &new)?;
                bytes[range].copy_from_slice(&new);
            }
            assert_eq!(tx.read(block)?, *bytes);
        }
        (88..97, Some(raw)) => {
            let slot = dice.below(ROOTS);
            let block = tx.block(raw)?;
            tx.set_root(slot, block)?;
            state.roots.insert(slot, raw);
        }
        _ => {
            let at = dice.below(state.user.len());
            let new_len = 1 + dice.below(state.user.len() - at);
            let new = dice.bytes(new_len);
            tx.set_user_area(at, &new)?;
            state.user[at..at + new.len()].copy_from_slice(&new);
        }
    }
    Ok(())
}

pub(crate) fn open_at(sim: &SimFs, policy: PolicyId) -> Result<Heap> {
    let stack = Stack::options().reserve(4 << 10).fs(Arc::new(sim.clone())).open(PATH)?;
    Heap::open_with_key(stack, self::policy(policy), KEY)
}

/// Barriers so far: a direct write is its own.
pub(crate) fn barriers(sim: &SimFs) -> u64 {
    let counters = sim.counters();
    counters.calls(Call::Sync) + counters.calls(Call::WriteDirect)
}

/// A heap on a simulated machine, and every state it had.
pub(crate) struct Driver {
    pub(crate) sim: SimFs,
    pub(crate) policy: PolicyId,
    pub(crate) heap: Option<Heap>,
    pub(crate) state: State,
    /// Each state with the number of operations of the machine after which the change that led to
    /// it had returned.
    pub(crate) history: Vec<(usize, Rc<State>)>,
}

impl Driver {
    pub(crate) fn new(sim: SimFs, policy: PolicyId) -> Self {
        let state = State::empty();
        let history = vec![(0, Rc::new(state.clone()))];
        Driver { sim, policy, heap: None, state, history }
    }

    pub(crate) fn heap(&self) -> &Heap {
        self.heap.as_ref().expect("it is open")
    }

    pub(crate) fn open(&mut self) -> Result<()> {
        self.heap = Some(open_at(&self.sim, self.policy)?);
        Ok(())
    }

    pub(crate) fn returned(&mut self, state: State) {
        self.state = state;
        self.history.push((self.sim.op_count(), Rc::new(self.state.clone())));
    }

    /// A transaction of several steps. One in ten ends with an error of its own, and must change
    /// nothing.
    pub(crate) fn transaction(
        &mut self,
        dice: &mut Dice,
        steps: usize,
        sizes: usize,
    ) -> Result<()> {
        let mut state = self.state.clone();
        let gives_up = dice.below(10) == 0;
        let result = self.heap().transaction(|tx| {
            for _ in 0..steps {
                step(tx, &mut state, dice, sizes)?;
            }
            if gives_up { Err(Error::NoRoot { slot: 999, count: 0 }) } else { Ok(()) }
        });
        match result {
            Err(Error::NoRoot { slot: 999, .. }) => Ok(()),
            Err(error) => Err(error),
            Ok(()) => {
                self.returned(state);
                Ok(())
            }
        }
    }

    /// Whether a heap that holds `found` may be there after a crash at `point`: exactly what had
    /// been acknowledged, or one step more.
    pub(crate) fn accepts(&self, point: usize, found: &State) -> std::result::Result<(), String> {
        let returned = self.history.iter().take_while(|(at, _)| *at <= point).count();
        let possible = &self.history[returned - 1..(returned + 1).min(self.history.len())];
        if possible.iter().any(|(_, state)| **state == *found) {
            return Ok(());
        }
        Err(format!("{} blocks, neither before nor after step {returned}", found.blocks.len()))
    }
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// Opens what a crash left, proves that it is whole, and compares it.
pub(crate) fn check_state(
    driver: &Driver,
    point: usize,
    sim: &SimFs,
) -> std::result::Result<(), String> {
    let heap = open_at(sim, driver.policy).map_err(|e| format!("does not open: {}", chain(&e)))?;
    driver.accepts(point, &State::of(&heap)?)
}

/// What a crash left can be worked with, closed, and opened again.
pub(crate) fn check_goes_on(
    driver: &Driver,
    sim: &SimFs,
    seed: u64,
) -> std::result::Result<(), String> {
    let said = |e: Error| chain(&e);
    let mut next = Driver::new(sim.restart(), driver.policy);
    next.open().map_err(said)?;
    next.state = State::of(next.heap())?;
    let mut dice = Dice(seed);
    for _ in 0..4 {
        let steps = 1 + dice.below(4);
        next.transaction(&mut dice, steps, 600).map_err(said)?;
    }
    drop(next.heap.take());
    let sim = next.sim.power_cut(&mut cairn_sim::Chooser::seeded(seed));
    let heap = open_at(&sim, driver.policy).map_err(said)?;
    if State::of(&heap)? == next.state { Ok(()) } else { Err("goes on wrongly".into()) }
}
