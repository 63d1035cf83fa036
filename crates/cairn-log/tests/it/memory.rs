//! guards: L69
//!
//! Memory is used as far as buffers are filled. The system refuses memory: the call that needs it
//! fails, nothing is changed, and the process lives. Each test runs again in a child process whose
//! address space is limited, because the options that are refused there may be granted to a process
//! without a limit, and because the most that a process ever used is told for the whole of it.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use cairn_io::MemStore;
use cairn_log::{Error, ErrorKind, Inspection, Log, Lsn};
use cairn_sim::SimFs;

const CHILD_VARIABLE: &str = "CAIRN_MEMORY_CHILD";

/// Whether this is the child process; otherwise runs the test `name` in one and checks that it
/// passed there.
fn is_limited(name: &str) -> bool {
    if std::env::var_os(CHILD_VARIABLE).is_some() {
        return true;
    }
    // 1.5 GB, in KiB: less than two of the largest buffers.
    let output = Command::new("sh")
        .args(["-c", "ulimit -v 1500000 && exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads", "1"])
        .env(CHILD_VARIABLE, "1")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("1 passed"), "{told}{why}");
    false
}

#[test]
fn buffers_that_do_not_fit_in_memory_are_refused_before_anything_is_made() {
    if !is_limited("memory::buffers_that_do_not_fit_in_memory_are_refused_before_anything_is_made")
    {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let huge = || Log::options().buffer_size(1 << 30).buffers(64);
    for refused in [huge().open(&path), Log::with_store(Arc::new(MemStore::new()), huge())] {
        let error = refused.err().unwrap();
        assert!(matches!(error, Error::OutOfMemory { bytes, .. } if bytes == 64 << 30), "{error}");
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().ends_with("lower Options::buffer_size or Options::buffers"));
    }
    assert!(!Path::new(&path).exists());
    Log::open(&path).unwrap().close().unwrap();
}

#[test]
fn a_batch_that_does_not_fit_in_memory_is_refused_and_the_log_goes_on() {
    if !is_limited("memory::a_batch_that_does_not_fit_in_memory_is_refused_and_the_log_goes_on") {
        return;
    }
    // Its disk is as large as it is told to be, and takes no memory for what is reserved.
    let sim = Arc::new(SimFs::new());
    let log = Log::options().fs(sim.clone()).open("/log").unwrap();
    log.append(b"before").unwrap();
    let mebibyte = vec![7; 1 << 20];
    let batch = || std::iter::repeat_n(&mebibyte, 2000);
    for _ in 0..2 {
        let error = log.append_batch(batch()).unwrap_err();
        assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
    }
    log.commit(b"behind").unwrap();
    log.close().unwrap();
    let log = Log::options().fs(sim).open("/log").unwrap();
    let records = log.reader(Lsn::START).unwrap().map(|r| r.unwrap().into_payload());
    assert_eq!(records.collect::<Vec<_>>(), [&b"before"[..], b"behind"]);
}

/// The most memory that this process ever had, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap().to_owned();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn many_logs_take_the_memory_that_they_filled() {
    if !is_limited("memory::many_logs_take_the_memory_that_they_filled") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let before = peak_kib();
    let logs: Vec<_> =
        (0..50).map(|i| Log::open(dir.path().join(i.to_string())).unwrap()).collect();
    for log in &logs {
        log.commit(b"x").unwrap();
    }
    let each = (peak_kib() - before) / logs.len() as u64;
    assert!(each < 256, "{each} KiB for a log with a record of a byte");
}

/// Of the largest ring that is allowed, two buffers out of 64 are used.
#[test]
fn buffers_that_no_record_ever_reached_take_no_memory() {
    if !is_limited("memory::buffers_that_no_record_ever_reached_take_no_memory") {
        return;
    }
    let before = peak_kib();
    let options = Log::options().buffers(64).buffer_size(16 << 20);
    let log = Log::with_store(Arc::new(MemStore::new()), options).unwrap();
    for i in 0..1000u32 {
        log.append(&i.to_le_bytes()).unwrap();
    }
    log.sync().unwrap();
    let used = peak_kib() - before;
    assert!(used < 4 << 10, "{used} KiB");
}

/// A record that fits the disk and not the memory of who reads it. Where it is met decides which
/// call says so; it is never taken for damage, and never for a torn tail.
#[test]
fn a_record_larger_than_memory_is_an_error_that_names_its_size() {
    if !is_limited("memory::a_record_larger_than_memory_is_an_error_that_names_its_size") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let len = 400 << 20;
    let options = || Log::options().max_record_size(len).segment_size(1 << 20);
    for closed in [true, false] {
        let path = dir.path().join(closed.to_string());
        let log = options().open(&path).unwrap();
        log.append(b"before").unwrap();
        let large = log.commit(&vec![7; len as usize]).unwrap();
        if closed {
            log.close().unwrap();
        } else {
            // As if the process had been killed.
            drop(log);
        }
        let hog = fill_memory(100 << 20, 1);
        let named = |error: Error| {
            assert!(
                matches!(
                    error,
                    Error::NoMemoryToRead { lsn, bytes } if lsn == large && bytes >= len
                ),
                "{error}"
            );
            assert!(error.to_string().contains("takes 4194304"), "{error}");
            assert_eq!(error.kind(), ErrorKind::System);
        };
        if closed {
            let found = Inspection::open(&path).unwrap();
            named(found.verify(|_| ()).unwrap_err());
            let mut reader = found.reader(Lsn::START).unwrap();
            assert_eq!(reader.next().unwrap().unwrap().payload(), b"before");
            named(reader.next().unwrap().unwrap_err());
            let log = options().open(&path).unwrap();
            let mut follower = log.follow(Lsn::START).unwrap();
            assert_eq!(follower.next_blocking().unwrap().unwrap().payload(), b"before");
            named(follower.next_blocking().unwrap_err());
        } else {
            named(Inspection::open(&path).unwrap_err());
            named(options().open(&path).unwrap_err());
        }
        drop(hog);
        let log = options().open(&path).unwrap();
        let mut reader = log.reader(Lsn::START).unwrap();
        assert_eq!(reader.next_record().unwrap().unwrap().payload(), b"before");
        assert_eq!(reader.next_record().unwrap().unwrap().payload().len() as u64, len);
    }
}

/// Takes the address space that this process may use, in pieces, but for `left` of them and what is
/// less than one.
fn fill_memory(piece: usize, left: usize) -> Vec<Vec<u8>> {
    let mut hog = Vec::with_capacity(10_000);
    loop {
        let mut memory = Vec::new();
        if memory.try_reserve_exact(piece).is_err() {
            hog.truncate(hog.len() - left);
            return hog;
        }
        hog.push(memory);
    }
}

/// guards: L71
///
/// There is no address space for the stack of a thread. The caller's thread does what the log's
/// would have done, and no record is placed of which nobody is told; later the thread is there.
#[test]
fn a_thread_that_could_not_be_started_is_tried_again() {
    if !is_limited("memory::a_thread_that_could_not_be_started_is_tried_again") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    log.append(b"warm").unwrap();
    log.sync().unwrap();
    let caller = std::thread::current().id();
    let hog = fill_memory(256 << 10, 5);
    for n in 0..20u64 {
        let ticket = log.submit(&n.to_le_bytes()).unwrap();
        assert!(log.durable_lsn() > ticket.lsn());
        let (told, called) = std::sync::mpsc::channel();
        ticket.on_durable(move |result| {
            told.send((result.is_ok(), std::thread::current().id())).unwrap();
        });
        assert_eq!(called.try_recv(), Ok((true, caller)));
    }
    drop(hog);
    let elsewhere = (0..200).any(|_| {
        let (told, called) = std::sync::mpsc::channel();
        let ticket = log.submit(b"again").unwrap();
        ticket.on_durable(move |_| told.send(std::thread::current().id()).unwrap());
        called.recv().unwrap() != caller
    });
    assert!(elsewhere, "the thread was never tried again");
    assert_eq!(log.reader(Lsn::START).unwrap().take(21).count(), 21);
    log.close().unwrap();
}
