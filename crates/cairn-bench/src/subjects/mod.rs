//! Ours, the peers, and the list of everybody.

#[cfg(feature = "bstack")]
mod bstack;
mod cairn;
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
use crate::raw::buffer::MutexBuffer;
use crate::raw::condvar::CondvarLoop;
use crate::raw::futex::FutexLoop;
use crate::raw::scan::Scan;
use crate::subject::{Ability, Entry, Setup, Side, Subject};

/// What every log can do.
#[allow(dead_code, reason = "a build without peers has none but ours")]
const LOG: &[Ability] = &[Ability::Durable, Ability::Batch, Ability::NoSync, Ability::Replay, Ability::Open];
/// The same with tickets.
const LOG_WITH_TICKETS: &[Ability] =
    &[Ability::Durable, Ability::Batch, Ability::Tickets, Ability::NoSync, Ability::Replay, Ability::Open];
/// What a group loop can do.
const LOOP: &[Ability] = &[Ability::Durable, Ability::Batch];

/// What a structure can do all of whose appends are durable.
#[allow(dead_code, reason = "a build without peers has none")]
const DURABLE_ONLY: &[Ability] = &[Ability::Durable, Ability::Batch, Ability::Replay, Ability::Open];

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
    Entry { name, side: Side::Peer, package: Some(package), about, abilities, slowable: false, open }
}

/// Our log.
const fn ours(name: &'static str, open: Open, about: &'static str) -> Entry {
    let abilities = LOG_WITH_TICKETS;
    Entry { name, side: Side::Ours, package: Some("cairn-log"), about, abilities, slowable: true, open }
}

/// A loop whose barriers can be slowed.
const fn group(name: &'static str, open: Open, about: &'static str) -> Entry {
    Entry { name, side: Side::Raw, package: None, about, abilities: LOOP, slowable: true, open }
}

/// A loop without a barrier to be slowed.
const fn other(name: &'static str, abilities: &'static [Ability], open: Open, about: &'static str) -> Entry {
    Entry { name, side: Side::Raw, package: None, about, abilities, slowable: false, open }
}

/// Everybody in this build, in the order of the tables.
pub(crate) const ENTRIES: &[Entry] = &[
    ours("cairn", cairn::open, "defaults; batches with append_batch, tickets with submit"),
    ours("cairn-singly", cairn::open_singly, "as cairn; batches are single appends before one sync_to"),
    ours("cairn-buffered", cairn::open_buffered, "as cairn, without direct I/O"),
    group("raw-alone", Alone::open, "one O_DIRECT|O_DSYNC write of whole blocks per record over zeros, no grouping"),
    group(
        "raw-pwrite",
        CondvarLoop::open_buffered,
        "group leader, mutex and condition variable; pwrite + fdatasync over zeros",
    ),
    group(
        "raw-direct",
        CondvarLoop::open_direct,
        "group leader, mutex and condition variable; O_DIRECT|O_DSYNC over zeros",
    ),
    group(
        "raw-futex",
        FutexLoop::open,
        "group leader, one futex word per generation, gathering; O_DIRECT|O_DSYNC over zeros",
    ),
    other(
        "raw-wake",
        &[Ability::Durable],
        FutexLoop::open_nowhere,
        "raw-futex with a sched_yield in place of the write: what grouping and waking cost without I/O",
    ),
    other(
        "raw-buffer",
        &[Ability::NoSync],
        MutexBuffer::open,
        "a buffer behind a mutex, written into the page cache when full",
    ),
    other("raw-scan", &[Ability::Replay], Scan::open, "large reads and CRC-32C over frames as long as ours"),
    #[cfg(feature = "wal-db")]
    peer("wal-db", "wal-db", LOG, wal_db::open, "one file, append_and_sync"),
    #[cfg(feature = "fsys")]
    peer("fsys", "fsys", LOG, fsys::open_buffered, "buffered journal, preallocated; no commit window"),
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
    peer("raft-engine", "raft-engine", LOG, raft_engine::open, "a region per thread; files allocated as they grow"),
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
    peer("bstack", "bstack", DURABLE_ONLY, bstack::open, "a push per commit, or per batch; no checksums"),
    #[cfg(feature = "rusqlite")]
    peer("sqlite", "rusqlite", LOG, sqlite::open, "WAL, synchronous=FULL, one connection behind a mutex"),
    #[cfg(feature = "redb")]
    peer("redb", "redb", LOG, redb::open, "a transaction per commit or batch"),
    #[cfg(feature = "fjall")]
    peer("fjall", "fjall", LOG, fjall::open, "insert and persist(SyncData)"),
    #[cfg(feature = "sled")]
    peer("sled", "sled@0.34", LOG, sled::open, "insert and flush"),
    #[cfg(feature = "sled")]
    peer("sled-alpha", "sled@1", LOG, sled_alpha::open, "insert and flush"),
];

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
    let wanted = |e: &&Entry| names.iter().any(|n| n == "all" || n == e.name || side(n) == Some(e.side));
    Ok(ENTRIES.iter().filter(wanted).collect())
}
