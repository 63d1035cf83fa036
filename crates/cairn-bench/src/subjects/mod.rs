//! Ours, the peers, and the list of everybody.

#[cfg(feature = "bstack")]
mod bstack;
#[cfg(feature = "bstack")]
mod bstack_heap;
mod cairn;
mod cairn_heap;
mod cairn_stack;
#[cfg(feature = "fjall")]
mod fjall;
#[cfg(feature = "fsys")]
mod fsys;
#[cfg(feature = "okaywal")]
mod okaywal;
#[cfg(feature = "raft-engine")]
mod raft_engine;
#[cfg(feature = "raft-log")]
mod raft_log;
#[cfg(feature = "redb")]
mod redb;
#[cfg(feature = "sled")]
mod sled;
#[cfg(feature = "sled")]
mod sled_alpha;
mod slow_fs;
#[cfg(feature = "rusqlite")]
mod sqlite;
#[cfg(feature = "wal-db")]
mod wal_db;
#[cfg(feature = "walrus-rust")]
mod walrus;

use anyhow::{Context as _, Result};

use crate::raw::alone::Alone;
use crate::raw::block::Block;
use crate::raw::buffer::MutexBuffer;
use crate::raw::condvar::CondvarLoop;
use crate::raw::futex::FutexLoop;
use crate::raw::scan::Scan;
use crate::subject::{Ability, Entry, Setup, Side, Subject};

/// What every log can do.
#[allow(dead_code, reason = "a build without peers has none but ours")]
const LOG: &[Ability] =
    &[Ability::Durable, Ability::Batch, Ability::NoSync, Ability::Replay, Ability::Open];
/// The same with tickets.
const LOG_WITH_TICKETS: &[Ability] = &[
    Ability::Durable,
    Ability::Batch,
    Ability::Tickets,
    Ability::NoSync,
    Ability::Replay,
    Ability::Open,
];
/// What a log can do that forgets.
const RETAINING: &[Ability] = &[Ability::Durable, Ability::Batch, Ability::Tickets, Ability::Soak];
/// What a group loop can do.
const LOOP: &[Ability] = &[Ability::Durable, Ability::Batch];
/// The same with tickets.
const LOOP_WITH_TICKETS: &[Ability] = &[Ability::Durable, Ability::Batch, Ability::Tickets];
/// What a loop can do that knows no payload.
const BLOCK: &[Ability] = &[Ability::StackPush, Ability::StackSet];

/// What a structure can do all of whose appends are durable.
#[allow(dead_code, reason = "a build without peers has none")]
const DURABLE_ONLY: &[Ability] =
    &[Ability::Durable, Ability::Batch, Ability::Replay, Ability::Open];

/// What a stack can do.
const STACK: &[Ability] =
    &[Ability::StackPush, Ability::StackSet, Ability::StackGet, Ability::StackOpen];
/// What a heap can do.
const HEAP: &[Ability] = &[Ability::HeapPair, Ability::HeapOpen];

type Open = fn(&Setup) -> Result<Box<dyn Subject>>;

/// A peer. Nothing can be slept behind its barriers.
#[allow(dead_code, reason = "a build without peers has none")]
const fn peer(
    name: &'static str,
    package: &'static str,
    abilities: &'static [Ability],
    open: Open,
    about: &'static str,
) -> Entry {
    Entry {
        name,
        side: Side::Peer,
        package: Some(package),
        about,
        abilities,
        slowable: false,
        open,
    }
}

/// One of ours.
const fn ours(
    name: &'static str,
    package: &'static str,
    abilities: &'static [Ability],
    open: Open,
    about: &'static str,
) -> Entry {
    Entry { name, side: Side::Ours, package: Some(package), about, abilities, slowable: true, open }
}

/// A loop whose barriers can be slowed.
const fn group(
    name: &'static str,
    abilities: &'static [Ability],
    open: Open,
    about: &'static str,
) -> Entry {
    Entry { name, side: Side::Raw, package: None, about, abilities, slowable: true, open }
}

/// A loop without a barrier to be slowed.
const fn other(
    name: &'static str,
    abilities: &'static [Ability],
    open: Open,
    about: &'static str,
) -> Entry {
    Entry { name, side: Side::Raw, package: None, about, abilities, slowable: false, open }
}

/// Everybody in this build, in the order of the tables.
pub(crate) const ENTRIES: &[Entry] = &[
    ours(
        "cairn",
        "cairn-log",
        LOG_WITH_TICKETS,
        cairn::open,
        "defaults; batches with append_batch, tickets with submit",
    ),
    ours(
        "cairn-retain",
        "cairn-log",
        RETAINING,
        cairn::open_retaining,
        "as cairn; a thread of the harness's drops the oldest segments",
    ),
    ours(
        "cairn-singly",
        "cairn-log",
        LOG_WITH_TICKETS,
        cairn::open_singly,
        "as cairn; batches are single appends before one sync_to",
    ),
    ours(
        "cairn-buffered",
        "cairn-log",
        LOG_WITH_TICKETS,
        cairn::open_buffered,
        "as cairn, without direct I/O",
    ),
    ours("cairn-stack", "cairn-stack", STACK, cairn_stack::open, "the stack, with defaults"),
    ours(
        "cairn-slab",
        "cairn-heap",
        HEAP,
        cairn_heap::open_slab,
        "the heap with blocks of one size",
    ),
    ours(
        "cairn-size-class",
        "cairn-heap",
        HEAP,
        cairn_heap::open_size_class,
        "the heap with blocks of all sizes",
    ),
    group(
        "raw-alone",
        LOOP,
        Alone::open,
        "one O_DIRECT|O_DSYNC write of whole blocks per record over zeros, no grouping",
    ),
    group(
        "raw-pwrite",
        LOOP,
        CondvarLoop::open_buffered,
        "group leader, mutex and condition variable; pwrite + fdatasync over zeros",
    ),
    group(
        "raw-direct",
        LOOP,
        CondvarLoop::open_direct,
        "group leader, mutex and condition variable; O_DIRECT|O_DSYNC over zeros",
    ),
    group(
        "raw-futex",
        LOOP_WITH_TICKETS,
        FutexLoop::open,
        "group leader, one futex word per generation, gathering; O_DIRECT|O_DSYNC over zeros",
    ),
    group("raw-two", LOOP_WITH_TICKETS, FutexLoop::open_two, "as raw-futex; two writes at once"),
    group(
        "raw-block",
        BLOCK,
        Block::open_direct,
        "one O_DIRECT|O_DSYNC write of 4 KiB per change, over zeros",
    ),
    group(
        "raw-block-buffered",
        BLOCK,
        Block::open_buffered,
        "one pwrite of 4 KiB and one fdatasync per change, over zeros",
    ),
    other(
        "raw-wake",
        &[Ability::Durable],
        FutexLoop::open_nowhere,
        "raw-futex with a sched_yield in place of the write: what grouping and waking cost without \
         I/O",
    ),
    other(
        "raw-buffer",
        &[Ability::NoSync],
        MutexBuffer::open,
        "a buffer behind a mutex, written into the page cache when full",
    ),
    other(
        "raw-scan",
        &[Ability::Replay, Ability::Open],
        Scan::open,
        "large reads and CRC-32C over frames as long as ours",
    ),
    #[cfg(feature = "wal-db")]
    peer("wal-db", "wal-db", LOG, wal_db::open, "one file, append_and_sync"),
    #[cfg(feature = "fsys")]
    peer(
        "fsys",
        "fsys",
        LOG,
        fsys::open_buffered,
        "buffered journal, preallocated; no commit window",
    ),
    #[cfg(feature = "fsys")]
    peer(
        "fsys-window",
        "fsys",
        LOG,
        fsys::open_buffered_window,
        "buffered journal, preallocated; default commit window of 500 µs",
    ),
    #[cfg(feature = "fsys")]
    peer(
        "fsys-direct",
        "fsys",
        LOG,
        fsys::open_direct,
        "direct journal, buffers of 1 MiB, preallocated; no commit window",
    ),
    #[cfg(feature = "fsys")]
    peer(
        "fsys-direct-window",
        "fsys",
        LOG,
        fsys::open_direct_window,
        "direct journal, buffers of 1 MiB, preallocated; default commit window of 500 µs",
    ),
    #[cfg(feature = "okaywal")]
    peer(
        "okaywal",
        "okaywal",
        DURABLE_ONLY,
        okaywal::open,
        "large segments of zeros; checkpoints recycle them and keep nothing",
    ),
    #[cfg(feature = "okaywal")]
    peer(
        "okaywal-small",
        "okaywal",
        DURABLE_ONLY,
        okaywal::open_small,
        "its default segments of 1 MiB; checkpoints recycle them and keep nothing",
    ),
    #[cfg(feature = "raft-engine")]
    peer(
        "raft-engine",
        "raft-engine",
        LOG,
        raft_engine::open,
        "a region per thread; files allocated as they grow",
    ),
    #[cfg(feature = "raft-engine")]
    peer(
        "raft-engine-prefill",
        "raft-engine",
        LOG,
        raft_engine::open_prefilled,
        "a region per thread; files prepared for recycling at open",
    ),
    #[cfg(feature = "raft-log")]
    peer(
        "raft-log",
        "raft-log",
        LOG_WITH_TICKETS,
        raft_log::open,
        "behind a mutex, flush with callback; waits 10 µs for larger batches",
    ),
    #[cfg(feature = "raft-log")]
    peer(
        "raft-log-wait",
        "raft-log",
        LOG_WITH_TICKETS,
        raft_log::open_waiting,
        "behind a mutex, flush with callback; its default wait of 1 ms",
    ),
    #[cfg(feature = "walrus-rust")]
    peer(
        "walrus",
        "walrus-rust",
        &[Ability::Durable, Ability::Batch, Ability::NoSync, Ability::Open],
        walrus::open,
        "one topic, SyncEach",
    ),
    #[cfg(feature = "bstack")]
    peer(
        "bstack",
        "bstack",
        DURABLE_ONLY,
        bstack::open,
        "a push per commit, or per batch; no checksums",
    ),
    #[cfg(feature = "bstack")]
    peer("bstack-stack", "bstack", STACK, bstack::open_stack, "the stack it is; no checksums"),
    #[cfg(feature = "bstack")]
    peer("bstack-slab", "bstack", HEAP, bstack_heap::open_slab, BSTACK_HEAP),
    #[cfg(feature = "bstack")]
    peer("bstack-segregated", "bstack", HEAP, bstack_heap::open_segregated, BSTACK_HEAP),
    #[cfg(feature = "bstack")]
    peer("bstack-first-fit", "bstack", HEAP, bstack_heap::open_first_fit, BSTACK_HEAP),
    #[cfg(feature = "rusqlite")]
    peer(
        "sqlite",
        "rusqlite",
        LOG,
        sqlite::open,
        "WAL, synchronous=FULL, one connection behind a mutex",
    ),
    #[cfg(feature = "redb")]
    peer("redb", "redb", LOG, redb::open, "a transaction per commit or batch"),
    #[cfg(feature = "fjall")]
    peer("fjall", "fjall", LOG, fjall::open, "insert and persist(SyncData)"),
    #[cfg(feature = "sled")]
    peer("sled", "sled@0.34", LOG, sled::open, "insert and flush"),
    #[cfg(feature = "sled")]
    peer("sled-alpha", "sled@1", LOG, sled_alpha::open, "insert and flush"),
];

#[cfg(feature = "bstack")]
const BSTACK_HEAP: &str = if cfg!(feature = "bstack-atomic") {
    "its allocator, with its feature `atomic`: shared by threads"
} else {
    "its allocator, without its feature `atomic`: behind a mutex; a crash may lose blocks"
};

/// The subject of that name.
pub(crate) fn find(name: &str) -> Result<&'static Entry> {
    ENTRIES
        .iter()
        .find(|e| e.name == name)
        .with_context(|| format!("no subject {name} in this build; see `list` and --features"))
}

/// The subjects that a list of names stands for, in the order of the tables.
pub(crate) fn select(names: &[String]) -> Result<Vec<&'static Entry>> {
    let side = |name: &str| match name {
        "raw" => Some(Side::Raw),
        "peers" => Some(Side::Peer),
        _ => None,
    };
    for name in names.iter().filter(|n| *n != "all" && side(n).is_none()) {
        find(name)?;
    }
    let wanted =
        |e: &&Entry| names.iter().any(|n| n == "all" || n == e.name || side(n) == Some(e.side));
    Ok(ENTRIES.iter().filter(wanted).collect())
}
