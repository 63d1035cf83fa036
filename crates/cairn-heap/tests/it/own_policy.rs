//! guards: L31 L32 L33 L35
//!
//! Policies of users. Whatever a policy answers, a heap loses no block, leaks none, and allocates
//! no byte twice. A wrong answer fails the operation, changes nothing, and is not reported as
//! damage.

use std::sync::{Arc, Mutex};

use cairn_heap::{
    Block, Error, FreeRun, FreeRuns, Heap, Place, Policy, PolicyFault, PolicyId, Result, SizeClass,
};
use cairn_sim::SimFs;

use crate::hostile::stack;
use crate::lies::{SCATTER, Scatter};
use crate::model::buddy::Buddy;
use crate::model::{KEY, POLICIES, SIZE_CLASS, State, open_at};

/// Answers as it is told to; otherwise as `SizeClass`.
#[derive(Debug, Default)]
struct Told {
    answer: Mutex<Option<Answer>>,
    /// The free runs of the last call.
    seen: Mutex<Vec<FreeRun>>,
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    RunLen(u64),
    Place(Place),
}

impl Policy for Told {
    fn id(&self) -> PolicyId {
        PolicyId::Custom { number: u32::MAX, parameter: 1 }
    }

    fn run_len(&self, shortest: u64) -> u64 {
        match *self.answer.lock().unwrap() {
            Some(Answer::RunLen(run_len)) => run_len,
            _ => shortest,
        }
    }

    fn place(&self, run_len: u64, free: &mut FreeRuns<'_>) -> Result<Place> {
        let (mut list, mut seen) = (free.next_list(0), Vec::new());
        while let Some(nth) = list {
            seen.extend(free.runs(nth).collect::<Result<Vec<_>>>()?);
            list = free.next_list(nth + 1);
        }
        assert_eq!(seen.len() as u64, free.count());
        assert_eq!(seen.iter().map(|run| run.len).sum::<u64>(), free.bytes());
        assert_eq!(free.runs(usize::MAX).count(), 0);
        *self.seen.lock().unwrap() = seen;
        match *self.answer.lock().unwrap() {
            Some(Answer::Place(place)) => Ok(place),
            _ => SizeClass.place(run_len, free),
        }
    }
}

/// A heap of `Told`: twenty blocks of 100 bytes, in runs of 144. Of each four, two neighbours were
/// freed: five free runs of 288 bytes.
fn told() -> (Heap, Arc<Told>, Vec<Block>) {
    let told = Arc::new(Told::default());
    let heap = Heap::open_with_key(stack(&[]), told.clone(), KEY).unwrap();
    let blocks: Vec<Block> = (0..20).map(|n| heap.alloc_with([n; 100]).unwrap()).collect();
    for pair in blocks[1..].chunks(4) {
        pair.iter().take(2).for_each(|block| heap.dealloc(*block).unwrap());
    }
    heap.alloc(1000).and_then(|block| heap.dealloc(block)).unwrap();
    let live = blocks.into_iter().filter(|block| heap.read(*block).is_ok()).collect();
    (heap, told, live)
}

/// What lies in the arena, and what the heap holds.
fn look(heap: &Heap) -> (Vec<u8>, State) {
    (heap.stack().peek(2304).unwrap(), State::of(heap).unwrap())
}

/// Gives one answer to every request for a block of `len` bytes. All of them are refused.
fn refuse(len: u64, answer: Answer, expected: fn(&PolicyFault) -> bool) {
    let (heap, told, live) = told();
    let before = look(&heap);
    let check = |result: Result<Block>, request: &str| match result {
        Err(Error::Policy { fault }) if expected(&fault) => {}
        other => panic!("{request} of {len} bytes, {answer:?}: {other:?}"),
    };
    *told.answer.lock().unwrap() = Some(answer);
    check(heap.alloc(len), "allocation");
    check(heap.realloc(live[1], len.max(128)), "reallocation");
    if matches!(answer, Answer::RunLen(_)) {
        check(heap.realloc(live[0], len), "reallocation in place");
    }
    assert!(look(&heap) == before, "{answer:?} was refused, and changed something");
    // In a transaction, the rest of which takes place.
    let went_on = heap.transaction(|tx| {
        check(tx.alloc(len), "allocation in a transaction");
        check(tx.realloc(live[1], len.max(128)), "reallocation in a transaction");
        tx.write(live[2], [9; 100])?;
        tx.dealloc(live[3])
    });
    went_on.unwrap();
    *told.answer.lock().unwrap() = None;
    let mut state = before.1;
    state.blocks.insert(live[2].to_raw(), vec![9; 100]);
    state.blocks.remove(&live[3].to_raw());
    assert_eq!(State::of(&heap).unwrap(), state);
    heap.alloc(len).unwrap();
    assert!(heap.check().unwrap().is_sound());
}

#[test]
pub(crate) fn a_wrong_length_of_a_run_is_refused() {
    let wrong = |fault: &PolicyFault| matches!(fault, PolicyFault::RunLength { .. });
    for run_len in [0, 1, 16, 32, 48, 128, 143, 145, 152, 159, 1 << 33, (1 << 61) + 16, 1 << 62] {
        refuse(100, Answer::RunLen(run_len), wrong);
    }
    for run_len in [u64::MAX, u64::MAX - 15, u64::MAX - 31, u64::MAX - 47, 1 << 63] {
        refuse(100, Answer::RunLen(run_len), wrong);
    }
}

/// The free runs of a heap that [`told`] made, and all others.
fn runs() -> (FreeRun, Vec<u64>, u64) {
    let (heap, told, live) = told();
    let run = told.seen.lock().unwrap()[2];
    assert_eq!(run.len, 288);
    (run, live.iter().map(|block| block.start() - 32).collect(), heap.stack().len())
}

#[test]
pub(crate) fn a_place_out_of_its_free_run_is_refused() {
    let (run, live, end) = runs();
    let out = |fault: &PolicyFault| matches!(fault, PolicyFault::OutOfRun { .. });
    let at = |start| Answer::Place(Place::Within { run, start });
    for start in [run.start - 288, run.start - 16, run.start - 1, run.start + 160, run.end() - 48] {
        refuse(100, at(start), out);
    }
    for start in [run.end(), 0, 1, 2303, 2304, end, end + 16, 1 << 61, 1 << 63, u64::MAX] {
        refuse(100, at(start), out);
    }
    for start in live.into_iter().chain([u64::MAX - 15, u64::MAX - 143, u64::MAX - 144]) {
        refuse(100, at(start), out);
    }
    refuse(1, at(run.start + 256), out);
}

#[test]
pub(crate) fn a_place_where_no_run_can_start_is_refused() {
    let (run, ..) = runs();
    for offset in [49, 63, 95, 120, 1, 8, 15, 17, 40, 47] {
        let place = Place::Within { run, start: run.start + offset };
        refuse(1, Answer::Place(place), |fault| matches!(fault, PolicyFault::Misaligned { .. }));
    }
    for gap in [1, 8, 15, 49, 1000, (1 << 40) + 1] {
        let place = Answer::Place(Place::AtEnd { gap });
        refuse(100, place, |fault| matches!(fault, PolicyFault::Misaligned { .. }));
    }
}

#[test]
pub(crate) fn a_place_that_leaves_less_than_a_run_before_it_is_refused() {
    let (run, ..) = runs();
    for gap in [16, 32] {
        let short = |fault: &PolicyFault| matches!(fault, PolicyFault::Gap { .. });
        let start = run.start + gap;
        refuse(1, Answer::Place(Place::Within { run, start }), short);
        refuse(100, Answer::Place(Place::AtEnd { gap }), short);
    }
}

#[test]
pub(crate) fn what_is_not_free_is_no_place() {
    let (run, live, end) = runs();
    let not_free = |fault: &PolicyFault| matches!(fault, PolicyFault::NotFree { .. });
    let others = [0, 7, 2303, 2305, run.start + 16, run.start - 1, end, end + 144, u64::MAX - 20];
    for start in live.into_iter().chain(others).chain([1 << 40, u64::MAX]) {
        let mut wrong = run;
        wrong.start = start;
        refuse(100, Answer::Place(Place::Within { run: wrong, start }), not_free);
    }
    for len in [0, 16, 144, 287, 304, 576, u64::MAX - run.start, u64::MAX] {
        let mut wrong = run;
        wrong.len = len;
        let place = Place::Within { run: wrong, start: wrong.start };
        refuse(100, Answer::Place(place), not_free);
    }
    // It was free in an earlier call, and now a block is there.
    let (heap, told, live) = told();
    let stale = told.seen.lock().unwrap()[0];
    *told.answer.lock().unwrap() =
        Some(Answer::Place(Place::Within { run: stale, start: stale.start }));
    let block = heap.alloc_with([8; 100]).unwrap();
    assert_eq!(block.start(), stale.start + 32);
    let again = heap.alloc(100);
    assert!(matches!(again, Err(Error::Policy { fault }) if not_free(&fault)), "{again:?}");
    assert_eq!((heap.read(block).unwrap(), live.len()), (vec![8; 100], 10));
    State::of(&heap).unwrap();
}

#[test]
fn what_no_heap_can_hold_is_refused_whatever_the_policy_says() {
    let (heap, told, _) = told();
    let before = look(&heap);
    for gap in [1 << 62, u64::MAX, u64::MAX - 15, (1 << 62) - 2304] {
        *told.answer.lock().unwrap() = Some(Answer::Place(Place::AtEnd { gap }));
        let refused = heap.alloc(100);
        assert!(matches!(refused, Err(Error::TooLarge { .. })), "{gap}: {refused:?}");
    }
    assert!(look(&heap) == before);
}

/// Every place that is right is taken as it is, and what is around it stays free.
#[test]
fn a_run_is_put_where_the_policy_says() {
    let (run, _, end) = runs();
    // Length of a run before the block's, of the block's, and of the free one behind it.
    for (before, taken, behind) in
        [(0, 48, 240), (48, 48, 192), (240, 48, 0), (96, 96, 96), (48, 240, 0), (0, 288, 0)]
    {
        let (heap, told, live) = told();
        let start = run.start + before;
        *told.answer.lock().unwrap() = Some(Answer::Place(Place::Within { run, start }));
        let block = heap.alloc(taken - 32).unwrap();
        assert_eq!(block.start(), start + 32);
        let free = i64::try_from(heap.stats().unwrap().free_runs).unwrap();
        let parts = i64::from(before > 0) + i64::from(behind > 0);
        assert_eq!(free, 5 - 1 + parts, "{before} before, {behind} behind");
        assert_eq!(State::of(&heap).unwrap().blocks.len(), live.len() + 1);
        heap.dealloc(block).unwrap();
        assert_eq!(heap.stats().unwrap().free_runs, 5);
        State::of(&heap).unwrap();
    }
    for gap in [0, 48, 64, 4096] {
        let (heap, told, _) = told();
        *told.answer.lock().unwrap() = Some(Answer::Place(Place::AtEnd { gap }));
        let block = heap.alloc(100).unwrap();
        assert_eq!(block.start(), end + gap + 32);
        assert_eq!(heap.stats().unwrap().free_runs, 5 + u64::from(gap > 0));
        State::of(&heap).unwrap();
        heap.dealloc(block).unwrap();
        assert_eq!(heap.stack().len(), end, "the gap is given back, too");
    }
}

/// Damage that a policy meets breaks the transaction, also if the policy goes on.
#[test]
fn a_policy_cannot_hide_damage() {
    #[derive(Debug)]
    struct Heedless;
    impl Policy for Heedless {
        fn id(&self) -> PolicyId {
            SCATTER
        }
        fn place(&self, _: u64, free: &mut FreeRuns<'_>) -> Result<Place> {
            let lists = (0..192).filter(|list| free.runs(*list).any(|run| run.is_err())).count();
            assert_eq!(lists, 1);
            Ok(Place::AtEnd { gap: 0 })
        }
    }
    let heap = Heap::open_with_key(stack(&[]), Scatter, KEY).unwrap();
    let blocks = [(); 6].map(|()| heap.alloc(3000).unwrap());
    blocks.iter().step_by(2).for_each(|block| heap.dealloc(*block).unwrap());
    let mut bytes = heap.stack().peek(0).unwrap();
    let starts = crate::hostile::runs(&bytes);
    let free = starts.into_iter().find(|at| bytes[at + 4..at + 8] == [0xff; 4]).unwrap();
    bytes[free + 9] ^= 1;
    let heap = Heap::open_with_key(stack(&bytes), Heedless, KEY).unwrap();
    let result = heap.transaction(|tx| {
        assert!(
            matches!(tx.alloc(10), Err(Error::Corrupt { offset, .. }) if offset == free as u64)
        );
        tx.set_user_area(0, [1])
    });
    assert!(matches!(result, Err(Error::Corrupt { .. })), "{result:?}");
    assert!(heap.stack().peek(0).unwrap() == bytes);
}

#[test]
fn a_policy_that_panics_or_refuses_changes_nothing() {
    #[derive(Debug)]
    struct Panics;
    impl Policy for Panics {
        fn id(&self) -> PolicyId {
            SCATTER
        }
        fn place(&self, run_len: u64, _: &mut FreeRuns<'_>) -> Result<Place> {
            assert!(run_len < 1000, "on purpose");
            match run_len {
                500.. => Err(Error::TooLarge { len: run_len, max: 499 }),
                _ => Ok(Place::AtEnd { gap: 0 }),
            }
        }
    }
    let heap = Heap::open_with_key(stack(&[]), Panics, KEY).unwrap();
    let block = heap.alloc_with([5; 100]).unwrap();
    let before = look(&heap);
    let alloc = std::panic::AssertUnwindSafe(|| heap.alloc(2000));
    assert!(std::panic::catch_unwind(alloc).is_err());
    assert!(matches!(heap.alloc(600), Err(Error::TooLarge { max: 499, .. })));
    assert!(look(&heap) == before);
    let next = heap.alloc(10).unwrap();
    assert!(next.start() > block.end() && next.to_raw() != block.to_raw());
    State::of(&heap).unwrap();
}

/// The file says which policy it was; no other opens it, and without it everything is there but
/// allocating.
#[test]
fn a_heap_opens_with_its_own_policy_only() {
    for id in POLICIES {
        let sim = SimFs::new();
        let heap = open_at(&sim, id).unwrap();
        assert_eq!(heap.policy(), id);
        let block = heap.alloc_with([3; 70]).unwrap();
        heap.set_root(0, block).unwrap();
        heap.close().unwrap();
        for other in POLICIES.into_iter().chain([SCATTER]).filter(|other| *other != id) {
            match open_at(&sim, other) {
                Err(Error::OtherPolicy { found, expected }) => {
                    assert_eq!((found, expected), (id, other));
                }
                opened => panic!("{id}, opened as {other}: {opened:?}"),
            }
        }
        open_at(&sim, id).unwrap().close().unwrap();
    }
    let sim = SimFs::new();
    let heap = open_at(&sim, Buddy::ID).unwrap();
    let blocks = [50, 60, 70].map(|len| heap.alloc_with(vec![1; len]).unwrap());
    heap.set_root(0, blocks[2]).unwrap();
    let state = State::of(&heap).unwrap();
    let heap = Heap::attach(heap.into_stack()).unwrap();
    assert_eq!((heap.policy(), State::of(&heap).unwrap()), (Buddy::ID, state));
    let refused = [heap.alloc(1), heap.realloc(blocks[0], 5), heap.alloc_with("text")];
    for result in refused {
        assert!(matches!(result, Err(Error::UnknownPolicy { found: Buddy::ID })), "{result:?}");
    }
    heap.write(blocks[0], [9; 50]).unwrap();
    heap.dealloc(blocks[1]).unwrap();
    heap.set_root(1, blocks[0]).unwrap();
    assert_eq!(heap.realloc(blocks[2], 0).unwrap(), Block::EMPTY);
    assert_eq!(State::of(&heap).unwrap().blocks.len(), 1);
    drop(heap);
    open_at(&sim, Buddy::ID).unwrap().alloc(10).unwrap();
}

#[test]
fn a_policy_has_a_number_of_its_own() {
    #[derive(Debug)]
    struct Named(PolicyId);
    impl Policy for Named {
        fn id(&self) -> PolicyId {
            self.0
        }
        fn place(&self, run_len: u64, free: &mut FreeRuns<'_>) -> Result<Place> {
            SizeClass.place(run_len, free)
        }
    }
    for number in [0, 1, 3, 4, PolicyId::CUSTOM_MIN - 1] {
        let id = PolicyId::Custom { number, parameter: 0 };
        let opened = Heap::open_with_key(stack(&[]), Named(id), KEY);
        assert!(matches!(opened, Err(Error::InvalidOption { .. })), "{opened:?}");
    }
    // The number, and the parameter.
    let [first, second, third] = [(1 << 31, 0), (1 << 31, 1), (u32::MAX, 0)]
        .map(|(number, parameter)| PolicyId::Custom { number, parameter });
    let heap = Heap::open_with_key(stack(&[]), Named(first), KEY).unwrap();
    let bytes = heap.stack().peek(0).unwrap();
    assert_eq!((&bytes[16..20], &bytes[24..32]), (&[0, 0, 0, 0x80][..], &[0; 8][..]));
    for other in [second, third, SIZE_CLASS] {
        let opened = Heap::open(stack(&bytes), Named(other));
        assert!(matches!(opened, Err(Error::OtherPolicy { .. })), "{opened:?}");
    }
    Heap::open(stack(&bytes), Box::new(Named(first))).unwrap();
}
