//! guards: L28 L31 L32 L33
//!
//! One set of tests for all policies, and the differences between policies.

use std::collections::HashSet;

use cairn_heap::{Block, BlockFault, Error, Heap, PolicyId, ROOTS};
use cairn_sim::SimFs;

use crate::model::buddy::Buddy;
use crate::model::{Dice, LINEAR, POLICIES, SIZE_CLASS, State, open_at, policy};

fn each(run: impl Fn(&Heap, PolicyId)) {
    for policy in POLICIES {
        let heap = open_at(&SimFs::new(), policy).unwrap();
        run(&heap, policy);
        State::of(&heap).unwrap_or_else(|e| panic!("{policy:?}: {e}"));
    }
}

fn fault(result: Result<impl std::fmt::Debug, Error>) -> BlockFault {
    match result {
        Err(Error::InvalidBlock { fault, .. }) => fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_block_holds_what_was_written_and_starts_as_zeros() {
    each(|heap, _| {
        for len in [1u64, 7, 8, 16, 63, 64, 65, 500, 5000, 100_000] {
            let block = heap.alloc(len).unwrap();
            assert_eq!((block.len(), block.end() - block.start()), (len, len));
            assert!(heap.read(block).unwrap().iter().all(|b| *b == 0));
            let bytes = Dice(len).bytes(len as usize);
            heap.write(block, &bytes).unwrap();
            assert_eq!(heap.read(block).unwrap(), bytes);
            let half = block.subslice(len / 2..len).unwrap();
            heap.zero(half).unwrap();
            let mut buf = vec![9; len as usize];
            heap.read_into(block, &mut buf).unwrap();
            assert_eq!(buf[..len as usize / 2], bytes[..len as usize / 2]);
            assert!(buf[len as usize / 2..].iter().all(|b| *b == 0));
            // What comes again is zeros.
            heap.write(block, &bytes).unwrap();
            heap.dealloc(block).unwrap();
            let again = heap.alloc(len).unwrap();
            assert!(heap.read(again).unwrap().iter().all(|b| *b == 0));
        }
    });
}

#[test]
fn the_empty_block_takes_nothing_and_always_lives() {
    each(|heap, _| {
        let before = heap.stack().len();
        let empty = heap.alloc(0).unwrap();
        assert_eq!(
            (empty, empty.len(), empty.is_empty(), empty.to_raw()),
            (Block::EMPTY, 0, true, 0)
        );
        assert_eq!(heap.read(empty).unwrap(), []);
        heap.write(empty, []).unwrap();
        heap.zero(empty).unwrap();
        heap.dealloc(empty).unwrap();
        heap.dealloc(empty).unwrap();
        assert_eq!(heap.stack().len(), before);
        assert_eq!(heap.block(0).unwrap(), empty);
        let block = heap.realloc(empty, 10).unwrap();
        assert_eq!(heap.realloc(block, 0).unwrap(), Block::EMPTY);
        assert_eq!(heap.stack().len(), before);
        assert!(matches!(heap.write(empty, [1]), Err(Error::OutOfRange { .. })));
        heap.set_root(3, empty).unwrap();
        assert!(heap.root(3).unwrap().is_empty());
    });
}

#[test]
pub(crate) fn a_handle_whose_block_is_gone_is_refused_for_ever() {
    each(|heap, _| {
        let keep = heap.alloc_with(b"keep").unwrap();
        let block = heap.alloc_with(vec![1; 200]).unwrap();
        let after = heap.alloc(150).unwrap();
        heap.write(after, b"after").unwrap();
        heap.dealloc(block).unwrap();
        assert!(matches!(fault(heap.dealloc(block)), BlockFault::Freed | BlockFault::NoBlock));
        assert!(matches!(fault(heap.read(block)), BlockFault::Freed | BlockFault::NoBlock));
        fault(heap.write(block, [1]));
        fault(heap.block(block.to_raw()));
        fault(heap.realloc(block, 10));
        fault(heap.set_root(0, block));
        // Another block in its place, too, and one that covers it.
        let other = heap.alloc_with(vec![2; 200]).unwrap();
        fault(heap.dealloc(block));
        heap.dealloc(keep).unwrap();
        heap.dealloc(other).unwrap();
        let covering = heap.alloc_with(vec![3; 250]).unwrap();
        fault(heap.dealloc(block));
        fault(heap.dealloc(other));
        assert_eq!(heap.read(covering).unwrap(), [3; 250]);
        // A reallocated one, wherever it went.
        let longer = heap.realloc(after, 6).unwrap();
        assert_eq!(fault(heap.read(after)), BlockFault::Reused);
        let moved = heap.realloc(longer, 60_000).unwrap();
        fault(heap.dealloc(longer));
        assert_eq!(heap.read(moved).unwrap()[..6], *b"after\0");
    });
}

#[test]
fn handles_of_another_heap_and_invented_ones_are_refused() {
    each(|heap, policy| {
        let sim = SimFs::new();
        let stack =
            cairn_stack::Stack::options().fs(std::sync::Arc::new(sim)).open("/other").unwrap();
        let other = Heap::open(stack, self::policy(policy)).unwrap();
        let (mine, foreign) = (heap.alloc(100).unwrap(), other.alloc(100).unwrap());
        assert_eq!(fault(heap.dealloc(foreign)), BlockFault::Reused);
        fault(heap.read(foreign));
        for start in [
            0,
            1,
            31,
            2303,
            2304,
            mine.start() + 1,
            mine.start() + 8,
            mine.start() + 16,
            1 << 40,
            u64::MAX - 20,
            u64::MAX,
        ] {
            for tag in [0u128, 1, mine.to_raw() >> 64, u128::from(u64::MAX)] {
                let raw = tag << 64 | u128::from(start);
                if raw != 0 {
                    fault(heap.block(raw));
                }
            }
        }
        assert_eq!(heap.block(mine.to_raw()).unwrap(), mine);
    });
}

#[test]
fn sizes_near_the_largest_number_change_nothing() {
    each(|heap, _| {
        let block = heap.alloc(10).unwrap();
        let before = (heap.stack().len(), State::of(heap).unwrap());
        for len in [
            u64::MAX,
            u64::MAX - 1,
            u64::MAX - 31,
            u64::MAX - 32,
            u64::MAX - 64,
            1 << 63,
            1 << 62,
            (1 << 61) + 1,
        ] {
            assert!(matches!(heap.alloc(len), Err(Error::TooLarge { .. })), "{len}");
            assert!(matches!(heap.realloc(block, len), Err(Error::TooLarge { .. })), "{len}");
        }
        for (start, end) in [(0, 11), (11, 11), (5, 4), (u64::MAX, u64::MAX), (3, u64::MAX)] {
            assert!(matches!(block.subslice(start..end), Err(Error::OutOfRange { .. })));
        }
        assert!(matches!(heap.write(block, [0; 11]), Err(Error::OutOfRange { .. })));
        assert!(matches!(heap.set_user_area(usize::MAX, [1]), Err(Error::OutOfRange { .. })));
        for slot in [ROOTS, usize::MAX] {
            assert!(matches!(heap.root(slot), Err(Error::NoRoot { .. })));
            assert!(matches!(heap.set_root(slot, block), Err(Error::NoRoot { .. })));
        }
        assert_eq!((heap.stack().len(), State::of(heap).unwrap()), before);
    });
}

#[test]
pub(crate) fn an_error_or_a_panic_in_a_transaction_changes_nothing() {
    each(|heap, _| {
        let block = heap.alloc_with(b"before").unwrap();
        heap.set_root(0, block).unwrap();
        let before = (heap.stack().len(), State::of(heap).unwrap());
        let mut leaked = None;
        let result: Result<(), Error> = heap.transaction(|tx| {
            let new = tx.alloc_with(vec![1; 1000])?;
            leaked = Some(new);
            tx.set_root(0, new)?;
            tx.dealloc(block)?;
            tx.set_user_area(0, [7; 24])?;
            tx.alloc(u64::MAX)?;
            Ok(())
        });
        assert!(matches!(result, Err(Error::TooLarge { .. })));
        let panics = std::panic::AssertUnwindSafe(|| {
            heap.transaction::<(), Error>(|tx| {
                tx.set_root(0, Block::EMPTY)?;
                tx.dealloc(block)?;
                panic!("on purpose")
            })
        });
        assert!(std::panic::catch_unwind(panics).is_err());
        assert_eq!((heap.stack().len(), State::of(heap).unwrap()), before);
        // A handle that came out of it stays void, although its place and its tag are taken now.
        let again = heap.alloc_with(vec![2; 1000]).unwrap();
        assert_eq!(again.start(), leaked.unwrap().start());
        fault(heap.read(leaked.unwrap()));
        // A refused operation does not end a transaction.
        heap.transaction(|tx| {
            fault(tx.dealloc(leaked.unwrap()));
            tx.write(again, b"went on")
        })
        .unwrap();
        assert_eq!(heap.read(again).unwrap()[..7], *b"went on");
    });
}

#[test]
pub(crate) fn no_root_dangles() {
    each(|heap, _| {
        let block = heap.alloc(50).unwrap();
        heap.set_root(5, block).unwrap();
        assert!(matches!(heap.dealloc(block), Err(Error::Rooted { slot: 5, .. })));
        let block = heap.realloc(block, 70_000).unwrap();
        assert_eq!(heap.root(5).unwrap(), block);
        assert!(heap.read(block).unwrap().len() == 70_000);
        // Freed first, and then replaced: what counts is the end.
        heap.transaction(|tx| {
            tx.dealloc(block)?;
            let new = tx.alloc_with(b"new")?;
            tx.set_root(5, new)
        })
        .unwrap();
        assert_eq!(heap.read(heap.root(5).unwrap()).unwrap(), b"new");
        let root = heap.root(5).unwrap();
        assert_eq!(heap.realloc(root, 0).unwrap(), Block::EMPTY);
        assert!(heap.root(5).unwrap().is_empty());
    });
}

#[test]
fn everything_is_there_after_reopening() {
    for policy in POLICIES {
        let sim = SimFs::new();
        let heap = open_at(&sim, policy).unwrap();
        let blocks: Vec<Block> =
            (1..100u64).map(|n| heap.alloc_with(Dice(n).bytes(n as usize * 3)).unwrap()).collect();
        blocks.iter().step_by(3).for_each(|block| heap.dealloc(*block).unwrap());
        heap.set_root(ROOTS - 1, blocks[1]).unwrap();
        heap.set_user_area(3, b"mine").unwrap();
        let (state, stats) = (State::of(&heap).unwrap(), heap.stats().unwrap());
        heap.close().unwrap();
        let other = if policy == LINEAR { SIZE_CLASS } else { LINEAR };
        assert!(matches!(open_at(&sim, other), Err(Error::OtherPolicy { .. })));
        let heap = open_at(&sim, policy).unwrap();
        assert_eq!((State::of(&heap).unwrap(), heap.stats().unwrap()), (state, stats));
        assert_eq!(heap.root(ROOTS - 1).unwrap(), blocks[1]);
        fault(heap.block(blocks[0].to_raw()));
        assert_eq!(Heap::attach(heap.into_stack()).unwrap().policy(), policy);
    }
}

#[test]
fn freeing_everything_gives_everything_back() {
    each(|heap, _| {
        let before = heap.stack().len();
        for order in 0..3usize {
            let mut blocks: Vec<Block> =
                (0..60).map(|n| heap.alloc(1 + n * 37 % 700).unwrap()).collect();
            if order == 1 {
                blocks.reverse();
            }
            while !blocks.is_empty() {
                let nth = if order == 2 { blocks.len() * 7 % 13 % blocks.len() } else { 0 };
                heap.dealloc(blocks.swap_remove(nth)).unwrap();
            }
            assert_eq!(heap.stack().len(), before);
            assert_eq!(heap.stats().unwrap().live_blocks, 0);
        }
    });
}

#[test]
fn no_two_live_blocks_share_a_byte_and_tags_are_never_given_twice() {
    each(|heap, _| {
        let (mut live, mut tags, mut dice) = (Vec::<Block>::new(), HashSet::new(), Dice(1));
        for _ in 0..400 {
            if live.len() > 20 {
                heap.dealloc(live.swap_remove(dice.below(21))).unwrap();
            }
            let block = heap.alloc(1 + dice.below(300) as u64).unwrap();
            assert!(tags.insert(block.to_raw() >> 64));
            assert!(
                live.iter()
                    .all(|other| block.end() <= other.start() || other.end() <= block.start())
            );
            live.push(block);
        }
        let mut sorted = live.clone();
        sorted.sort_by_key(Block::start);
        assert_eq!(heap.blocks().unwrap().collect::<Vec<_>>(), sorted);
    });
}

#[test]
fn freed_space_is_used_again_but_by_linear() {
    each(|heap, policy| {
        let blocks: Vec<Block> = (0..20).map(|_| heap.alloc(300).unwrap()).collect();
        let len = heap.stack().len();
        blocks[3..8].iter().for_each(|block| heap.dealloc(*block).unwrap());
        assert_eq!(heap.stats().unwrap().free_runs, 1, "neighbours are one");
        let large = heap.alloc(1000).unwrap();
        assert_eq!(heap.stack().len() > len, policy == LINEAR);
        // Buddy aligns it.
        let aligned = policy == LINEAR || policy == Buddy::ID;
        assert_eq!(large.start() != blocks[3].start(), aligned);
        // Grows into the free space behind it.
        let grown = heap.realloc(blocks[2], 300).unwrap();
        assert_eq!(grown.start(), blocks[2].start());
        heap.dealloc(blocks[18]).unwrap();
        let grown = heap.realloc(blocks[17], 500).unwrap();
        assert_eq!(grown.start(), blocks[17].start());
        let shrunk = heap.realloc(grown, 10).unwrap();
        assert_eq!(shrunk.start(), grown.start());
    });
}

#[test]
fn block_sizes_out_of_range_are_refused_and_change_nothing() {
    for block_size in [0, 7, (1 << 30) + 1, u64::MAX] {
        let sim = SimFs::new();
        assert!(matches!(
            open_at(&sim, PolicyId::Slab { block_size }),
            Err(Error::InvalidOption { .. })
        ));
        open_at(&sim, LINEAR).unwrap();
    }
    let heap = open_at(&SimFs::new(), PolicyId::Slab { block_size: 1 << 30 }).unwrap();
    let block = heap.alloc(5).unwrap();
    heap.write(block, b"large").unwrap();
    assert_eq!(heap.read(block).unwrap(), b"large");
}
