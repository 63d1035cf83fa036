//! What the issue promises in figures, as far as one crate can measure it: space on a documented trace, and opening with a million free blocks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use cairn_heap::{Allocator, Block, Error, Heap, Policy};
use cairn_stack::{Durability, Stack};

use crate::model::Dice;

fn explicit(path: &std::path::Path) -> Stack {
    Stack::options().durability(Durability::Explicit).open(path).unwrap()
}

/// From 16 bytes to 64 KiB, each power of two as likely as any other.
fn log_uniform(dice: &mut Dice) -> u64 {
    let exponent = 4.0 + 12.0 * dice.below(1 << 20) as f64 / f64::from(1 << 20);
    exponent.exp2() as u64
}

/// The trace: blocks of log-uniform sizes. 1100 are allocated; then, 9900 times, one at random is freed, or a new one allocated while fewer than 1000 live, each as
/// likely as the other; never fewer than 900 live.
#[test]
fn size_class_wastes_little_on_the_documented_trace() {
    let dir = tempfile::tempdir().unwrap();
    let heap = Heap::open(explicit(&dir.path().join("heap")), Policy::SizeClass).unwrap();
    let (mut dice, mut live) = (Dice(42), Vec::<Block>::new());
    for round in 0..200 {
        heap.transaction(|tx| {
            for _ in 0..55 {
                let grows = round < 20 || (live.len() < 1000 && dice.below(2) == 0);
                if grows || live.is_empty() {
                    live.push(tx.alloc(log_uniform(&mut dice))?);
                } else {
                    tx.dealloc(live.swap_remove(dice.below(live.len())))?;
                }
                // Around 1000 blocks: what is missing is filled up again.
                while round >= 20 && live.len() < 900 {
                    live.push(tx.alloc(log_uniform(&mut dice))?);
                }
            }
            Ok::<_, Error>(())
        })
        .unwrap();
    }
    let stats = heap.stats().unwrap();
    assert!(heap.check().unwrap().is_sound());
    heap.close().unwrap();
    let file = std::fs::metadata(dir.path().join("heap")).unwrap().len();
    let ratio = file as f64 / stats.live_bytes as f64;
    println!(
        "{} live bytes in {} blocks, file {file}: {ratio:.3}; fragmentation {:.2}",
        stats.live_bytes,
        stats.live_blocks,
        stats.fragmentation()
    );
    assert!(ratio <= 1.35, "{ratio}");
}

/// `cargo test --release -- --ignored --nocapture figures`
#[test]
#[ignore = "takes a while, and means something in release builds only"]
fn opening_with_a_million_free_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("heap");
    let heap = Heap::open(explicit(&path), Policy::Slab { block_size: 64 }).unwrap();
    let started = Instant::now();
    for _ in 0..200 {
        heap.transaction(|tx| (0..10_000).try_for_each(|_| tx.alloc(64).map(drop))).unwrap();
    }
    let live: Vec<Block> = heap.blocks().unwrap().collect();
    println!("{} live, {:?}", live.len(), started.elapsed());
    for part in live.chunks(20_000) {
        heap.transaction(|tx| part.iter().step_by(2).try_for_each(|block| tx.dealloc(*block))).unwrap();
    }
    println!("{:?}", heap.stats().unwrap());
    heap.close().unwrap();
    for _ in 0..3 {
        let started = Instant::now();
        let heap = Heap::open(Stack::open(&path).unwrap(), Policy::Slab { block_size: 64 }).unwrap();
        let opened = started.elapsed();
        let block = heap.alloc(64).unwrap();
        println!("opened in {opened:?}, and a block allocated durably in {:?}", started.elapsed());
        heap.dealloc(block).unwrap();
        heap.close().unwrap();
    }
    let heap = Heap::attach(Stack::open(&path).unwrap()).unwrap();
    let started = Instant::now();
    assert!(heap.check().unwrap().is_sound());
    println!("checked in {:?}", started.elapsed());
}

/// `cargo test --release -- --ignored --nocapture figures`
#[test]
#[ignore = "a measurement"]
fn pairs_of_alloc_and_free() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let stack = Stack::open(dir.path().join("stack")).unwrap();
    stack.push([0; 4096]).unwrap();
    let started = Instant::now();
    for n in 0..2000u64 {
        stack.set(n % 8 * 500, n.to_le_bytes()).unwrap();
    }
    println!("the stack alone, 1 thread: {:.0} pairs of sets/s", 1000.0 / started.elapsed().as_secs_f64());
    for policy in [Policy::Slab { block_size: 64 }, Policy::Linear, Policy::SizeClass] {
        for threads in [1, 8] {
            let dir = tempfile::tempdir_in(".").unwrap();
            let heap = Heap::open(Stack::open(dir.path().join("heap")).unwrap(), policy).unwrap();
            let (pairs, started) = (AtomicU64::new(0), Instant::now());
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        while started.elapsed().as_millis() < 1500 {
                            let block = heap.alloc(64).unwrap();
                            heap.dealloc(block).unwrap();
                            pairs.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
            });
            let rate = pairs.into_inner() as f64 / started.elapsed().as_secs_f64();
            let stats = heap.stack().stats();
            println!(
                "{policy:?}, {threads} threads: {rate:.0} pairs/s; {} operations, {} barriers",
                stats.operations, stats.barriers
            );
        }
    }
}
