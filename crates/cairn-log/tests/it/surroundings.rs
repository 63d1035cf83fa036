//! What goes on around a log that is open: its directory is moved, a name is taken, somebody else
//! opens it, the process forks. A handle stays with its own files, or says what is wrong.
//!
//! Each check is made with deliberate bugs, too, in `mutations`.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use cairn_io::{Access, File, Fs, as_forked_child};
use cairn_log::{Error, Inspection, Log, Lsn, Options};
use cairn_sim::{Call, CrashExplorer, SimFs};

use crate::hooked::{Hook, hooked};
use crate::model::{chain, contents};

const DIR: &str = "/data/log";

/// Small segments: a rotation every few records.
fn options(fs: &SimFs) -> Options {
    Log::options().segment_size(8 << 10).buffer_size(4 << 10).fs(Arc::new(fs.clone()))
}

/// A machine with a directory for logs, and a process that opened one.
pub(crate) fn machine() -> (SimFs, Log) {
    let sim = SimFs::new();
    sim.create_dir(Path::new("/data")).unwrap();
    sim.sync_dir(Path::new("/")).unwrap();
    let log = options(&sim).open(DIR).unwrap();
    (sim, log)
}

fn record(n: u32) -> Vec<u8> {
    n.to_le_bytes().repeat(100)
}

/// Commits these records; the first error ends it.
fn commit(log: &Log, numbers: std::ops::Range<u32>) -> Result<(), Error> {
    numbers.into_iter().try_for_each(|n| log.commit(&record(n)).map(drop))
}

/// Says so unless the log there has exactly these records, and verifies.
fn expect(sim: &SimFs, dir: &str, numbers: std::ops::Range<u32>) -> Result<(), String> {
    let look =
        Inspection::open_on(Arc::new(sim.clone()), dir).map_err(|e| format!("{dir}: {e}"))?;
    let problems = look.verify(|_| ()).map_err(|e| e.to_string())?.problems;
    if !problems.is_empty() {
        return Err(format!("{dir}: {problems:?}"));
    }
    let log = options(sim).open(dir).map_err(|e| format!("{dir}: {e}"))?;
    let expected: Vec<_> = numbers.map(record).collect();
    match contents(&log)?.1 == expected {
        true => Ok(()),
        false => Err(format!("{dir}: other records than the {} it should have", expected.len())),
    }
}

/// Names in the directory, without those of temporary files.
fn segments(sim: &SimFs, dir: &str) -> Vec<std::path::PathBuf> {
    let found = sim.files().into_iter().map(|(path, _)| path);
    found.filter(|p| p.starts_with(dir) && p.extension().is_some_and(|e| e == "cairn")).collect()
}

#[test]
fn two_logs_that_were_opened_by_one_relative_name_stay_apart() {
    let sim = SimFs::new();
    for home in ["/a", "/b"] {
        sim.create_dir(Path::new(home)).unwrap();
    }
    // One process that opens both, as a program does that changes its directory in between.
    sim.change_directory("/a").unwrap();
    let first = options(&sim).open("log").unwrap();
    sim.change_directory("/b").unwrap();
    let second = options(&sim).open("log").unwrap();
    for n in (0..200).step_by(10) {
        commit(&first, n..n + 10).unwrap();
        commit(&second, 1000 + n..1010 + n).unwrap();
    }
    first.truncate_before(Lsn::START).unwrap();
    first.close().unwrap();
    second.close().unwrap();
    expect(&sim, "/a/log", 0..200).unwrap();
    expect(&sim, "/b/log", 1000..1200).unwrap();
}

#[test]
fn leaving_the_working_directory_changes_nothing() {
    let (sim, log) = machine();
    log.close().unwrap();
    sim.change_directory("/data").unwrap();
    let log = options(&sim).open("log").unwrap();
    commit(&log, 0..50).unwrap();
    sim.change_directory("/").unwrap();
    commit(&log, 50..100).unwrap();
    let read = log.reader(Lsn::START).unwrap().count();
    assert_eq!(read, 100);
    log.truncate_after(log.reader(Lsn::START).unwrap().nth(79).unwrap().unwrap().lsn()).unwrap();
    log.close().unwrap();
    expect(&sim, DIR, 0..80).unwrap();
}

/// The directory is moved, and another log is begun under its name. What was acknowledged is where
/// it belongs, and the log that lost its place says so.
pub(crate) fn moved_and_begun_anew() -> Result<(), String> {
    let (sim, log) = machine();
    commit(&log, 0..30).unwrap();
    sim.move_to(DIR, "/data/old").unwrap();
    let other = options(&sim.second_process()).open(DIR).map_err(|e| format!("anew: {e}"))?;
    commit(&other, 1000..1030).map_err(|e| format!("the new log: {e}"))?;
    let (mut done, mut told) = (30, None);
    while told.is_none() && done < 130 {
        match log.commit(&record(done)) {
            Ok(_) => done += 1,
            Err(error) => told = Some(error),
        }
    }
    let Some(Error::Displaced { path }) = told else {
        return Err(format!("{done} records, and then {told:?}"));
    };
    assert_eq!(path, Path::new(DIR));
    commit(&other, 1030..1100).map_err(|e| format!("the new log: {e}"))?;
    if !matches!(log.close(), Err(Error::Displaced { .. })) {
        return Err("close says Ok of a log whose directory is elsewhere".into());
    }
    other.close().map_err(|e| format!("closing the new log: {e}"))?;
    expect(&sim, DIR, 1000..1100)?;
    expect(&sim, "/data/old", 0..done)
}

#[test]
fn a_log_that_was_moved_is_whole_where_it_is_and_another_one_may_be_begun() {
    moved_and_begun_anew().unwrap();
}

/// The power fails at any moment after the directory's new name is durable: what was acknowledged
/// until the log noticed is there, and so is what it wrote when it was closed.
#[test]
fn a_log_that_was_moved_keeps_what_it_acknowledged_after_any_power_cut() {
    let (sim, log) = machine();
    commit(&log, 0..10).unwrap();
    sim.move_to(DIR, "/data/old").unwrap();
    sim.sync_dir(Path::new("/data")).unwrap();
    let start = sim.op_count();
    let mut acknowledged = vec![(start, 10)];
    let told = (10..200).find_map(|n| {
        let done = log.commit(&record(n));
        acknowledged.push((sim.op_count(), n + 1));
        done.err()
    });
    acknowledged.pop();
    assert!(matches!(told, Some(Error::Displaced { .. })), "{told:?}");
    log.close().unwrap_err();
    let report = CrashExplorer::new(sim.trace())
        .samples_per_point(48)
        .points(start..=sim.op_count())
        .for_each(|state| {
            let machine = state.fs();
            let log = options(&machine).open("/data/old").map_err(|e| e.to_string())?;
            let found = contents(&log)?.1;
            let last = acknowledged.iter().rev().find(|(at, _)| *at <= state.point());
            let wanted: Vec<_> = (0..last.map_or(10, |(_, end)| *end)).map(record).collect();
            match found.starts_with(&wanted) {
                true => Ok(()),
                false => Err(format!("{} of {} records", found.len(), wanted.len())),
            }
        })
        .unwrap();
    assert!(report.distinct > 10, "{}", report.distinct);
}

#[test]
fn a_log_that_is_put_back_goes_on() {
    let (sim, log) = machine();
    commit(&log, 0..5).unwrap();
    sim.move_to(DIR, "/data/old").unwrap();
    let done = (5..200).find(|n| log.commit(&record(*n)).is_err()).unwrap();
    assert!(matches!(log.commit(&record(0)), Err(Error::Displaced { .. })));
    // What has its place is made durable all the same.
    log.sync().unwrap();
    sim.move_to("/data/old", DIR).unwrap();
    commit(&log, done..done + 50).unwrap();
    log.close().unwrap();
    expect(&sim, DIR, 0..done + 50).unwrap();
}

/// A file of the log's own is taken away, in some way, and the log is closed.
pub(crate) fn close_without(take: fn(&SimFs, &Path)) -> Result<(), String> {
    for which in ["LOCK", "the first segment", "the active segment", "the directory"] {
        let (sim, log) = machine();
        commit(&log, 0..60).unwrap();
        let segments = segments(&sim, DIR);
        let path = match which {
            "LOCK" => Path::new(DIR).join("LOCK"),
            "the first segment" => segments[0].clone(),
            // The last one has its name ahead of its first record.
            "the active segment" => segments[segments.len() - 2].clone(),
            _ => DIR.into(),
        };
        take(&sim, &path);
        match log.close() {
            Err(Error::Displaced { path: told }) => assert_eq!(told, path, "{which}"),
            other => return Err(format!("{which} is gone, and close says {other:?}")),
        }
    }
    Ok(())
}

pub(crate) fn remove(sim: &SimFs, path: &Path) {
    sim.remove_all(path).unwrap();
}

fn move_away(sim: &SimFs, path: &Path) {
    sim.move_to(path, "/data/elsewhere").unwrap();
}

/// By a copy of itself, as who puts a backup back does.
fn replace(sim: &SimFs, path: &Path) {
    sim.copy(path, "/data/copy").unwrap();
    sim.remove_all(path).unwrap();
    sim.move_to("/data/copy", path).unwrap();
}

#[test]
fn close_is_never_ok_about_files_that_have_lost_their_names() {
    close_without(remove).unwrap();
    close_without(move_away).unwrap();
    close_without(replace).unwrap();
}

/// Somebody puts files where the log will make its next ones. They keep their names.
pub(crate) fn names_are_taken() -> Result<(), String> {
    let (sim, log) = machine();
    commit(&log, 0..3).unwrap();
    let ahead = segments(&sim, DIR).pop().unwrap();
    // The next one starts where this one ends at the latest.
    let base = |path: &Path| path.to_str().unwrap()[DIR.len() + 1..][..20].parse::<u64>().unwrap();
    let first = base(&ahead);
    for lsn in (first..first + (20 << 10)).step_by(8) {
        let name = format!("{DIR}/{lsn:020}-0000000001.cairn");
        if !segments(&sim, DIR).contains(&name.clone().into()) {
            sim.write_file(&name, b"somebody's").unwrap();
        }
    }
    let told = (3..200).find_map(|n| log.commit(&record(n)).err());
    let _ = log.close();
    let strays = sim.files().into_iter().filter(|(_, len)| *len == 10).count();
    let ours = segments(&sim, DIR).len() - strays;
    match (told, ours + strays) {
        (Some(_), all) if strays >= 2558 => {
            assert!(all > 2558);
            Ok(())
        }
        (told, _) => Err(format!("{strays} of the files are left; {told:?}")),
    }
}

#[test]
fn a_name_that_is_taken_is_never_replaced() {
    names_are_taken().unwrap();
}

pub(crate) fn lock_file_removed() -> Result<(), String> {
    let (sim, log) = machine();
    commit(&log, 0..5).unwrap();
    sim.remove_all(Path::new(DIR).join("LOCK")).unwrap();
    match options(&sim.second_process()).open(DIR) {
        Err(Error::Locked { .. }) => {}
        other => return Err(format!("a second writer: {other:?}")),
    }
    // Who was refused left nothing behind that the first one would take for its lock.
    match sim.read_file(Path::new(DIR).join("LOCK")) {
        Err(_) => Ok(()),
        Ok(_) => Err("the refused one has made a lock file".into()),
    }
}

#[test]
fn removing_the_lock_file_admits_no_second_writer() {
    lock_file_removed().unwrap();
}

/// What keeps the files of a log open after it was closed or dropped does not keep it locked.
pub(crate) fn files_are_still_open() -> Result<(), String> {
    for closed in [true, false] {
        let (sim, log) = machine();
        // Between fork and exec, a child has what its parent has.
        let ticket = log.submit(&record(0)).unwrap();
        let follower = log.follow(Lsn::START).unwrap();
        let _child = sim.fork();
        match closed {
            true => log.close().unwrap(),
            false => drop(log),
        }
        let again = options(&sim.second_process()).open(DIR);
        let again = again.map_err(|e| format!("closed: {closed}: {e}"))?;
        commit(&again, 1..30).unwrap();
        drop((ticket, follower));
    }
    Ok(())
}

#[test]
fn a_closed_log_is_not_locked_by_a_ticket_a_follower_or_a_child() {
    files_are_still_open().unwrap();
}

/// A child has its parent's handle, and uses it; then the parent goes on.
pub(crate) fn used_in_a_child() -> Result<(), String> {
    let (sim, log) = machine();
    commit(&log, 0..5).unwrap();
    let ticket = log.submit(&record(5)).unwrap();
    let refused = as_forked_child(|| {
        let calls = [
            ("append", log.append(b"child").map(drop)),
            ("try_append", log.try_append(b"child").map(drop)),
            ("append_batch", log.append_batch([b"child"]).map(drop)),
            ("commit", log.commit(b"child").map(drop)),
            ("submit", log.submit(b"child").map(drop)),
            ("flush", log.flush()),
            ("sync", log.sync()),
            ("sync_to", log.sync_to(Lsn::START)),
            ("truncate_before", log.truncate_before(Lsn::START)),
            ("truncate_after", log.truncate_after(Lsn::START)),
            ("retain", log.retain(cairn_log::Retention::Bytes(0)).map(drop)),
        ];
        calls.into_iter().find(|(_, done)| !matches!(done, Err(Error::Forked)))
    });
    if let Some((call, done)) = refused {
        return Err(format!("{call} in a child: {done:?}"));
    }
    ticket.wait().unwrap();
    commit(&log, 6..40).unwrap();
    // The child ends, and drops what it has. It is the parent that has the lock, and still does.
    let other = options(&sim).open("/data/other").unwrap();
    let open_in_the_parent = other.follow(Lsn::START).unwrap();
    as_forked_child(|| drop(other));
    match options(&sim).open("/data/other") {
        Err(Error::Locked { .. }) => drop(open_in_the_parent),
        opened => return Err(format!("dropped in a child: {opened:?}")),
    }
    log.close().unwrap();
    expect(&sim, DIR, 0..40)
}

#[test]
fn a_handle_refuses_in_a_forked_child_and_goes_on_in_the_parent() {
    used_in_a_child().unwrap();
}

#[test]
fn closing_in_a_forked_child_is_refused() {
    let (_sim, log) = machine();
    commit(&log, 0..5).unwrap();
    assert!(matches!(as_forked_child(|| log.close()), Err(Error::Forked)));
}

/// A backup of hard links is taken while the log is written, then everything in the log is dropped
/// and written over, as far as it can be. The last segment is written on; what was there stays.
pub(crate) fn backed_up_by_links() -> Result<(), String> {
    for direct in [false, true] {
        let sim = SimFs::new();
        sim.create_dir(Path::new("/backup")).unwrap();
        let log = options(&sim).direct_io(direct).open("/log").unwrap();
        commit(&log, 0..60).unwrap();
        let mut backup = Vec::new();
        for path in segments(&sim, "/log") {
            let link = Path::new("/backup").join(path.file_name().unwrap());
            sim.link(&path, &link).unwrap();
            backup.push((sim.read_file(&link).unwrap(), link));
        }
        for n in (60..400).step_by(5) {
            commit(&log, n..n + 5).unwrap();
            log.truncate_before(log.appended_lsn()).unwrap();
        }
        assert!(log.stats().recycled > 0, "files without a second name are written on");
        log.close().unwrap();
        for (before, link) in backup {
            let now = sim.read_file(&link).unwrap();
            let kept = |(at, byte): (usize, &u8)| *byte == 0 || now.get(at) == Some(byte);
            if !before.iter().enumerate().all(kept) {
                return Err(format!("direct {direct}: {} is another file", link.display()));
            }
        }
    }
    Ok(())
}

/// A backup of hard links is taken of a log whose process was killed, and the log is opened, and
/// killed, again and again: the backup opens with what it had.
pub(crate) fn killed_after_a_backup_by_links() -> Result<(), String> {
    let sim = SimFs::new();
    let options = |sim: &SimFs| Log::options().fs(Arc::new(sim.clone()));
    let killed = |records: u64| {
        let user = sim.second_process();
        let log = options(&user).open("/log").unwrap();
        for _ in 0..records {
            log.commit(&[7; 1000]).unwrap();
        }
        log.append_batch([[8; 1000]; 20]).unwrap();
        log.sync().unwrap();
        let end = log.next_seq();
        user.kill();
        drop(log);
        end
    };
    let end = killed(400);
    sim.create_dir(Path::new("/backup")).unwrap();
    for name in sim.list("/log".as_ref()).unwrap() {
        let (from, to) = (Path::new("/log").join(&name), Path::new("/backup").join(&name));
        match segments(&sim, "/log").contains(&from) {
            true => sim.link(&from, &to).unwrap(),
            false => sim.write_file(&to, sim.read_file(&from).unwrap()).unwrap(),
        }
    }
    for _ in 0..3 {
        killed(300);
    }
    match options(&sim).open("/backup") {
        Ok(backup) if backup.next_seq() == end => Ok(()),
        Ok(backup) => Err(format!("{} of {end} records", backup.next_seq())),
        Err(e) => Err(chain(&e)),
    }
}

#[test]
fn a_backup_of_hard_links_keeps_every_record() {
    backed_up_by_links().unwrap();
    killed_after_a_backup_by_links().unwrap();
}

/// A segment of an open log is replaced by that of a copy that went its own way.
pub(crate) fn read_what_was_put_in_place() -> Result<(), String> {
    let sim = SimFs::new();
    let log = options(&sim).open("/log").unwrap();
    commit(&log, 0..3).unwrap();
    log.close().unwrap();
    sim.copy("/log", "/copy").unwrap();
    let log = options(&sim).open("/log").unwrap();
    commit(&log, 3..4).unwrap();
    let copy = options(&sim).open("/copy").unwrap();
    commit(&copy, 100..104).unwrap();
    copy.close().unwrap();
    let file = segments(&sim, "/log").remove(0);
    let theirs = segments(&sim, "/copy").remove(0);
    sim.remove(&file).unwrap();
    sim.write_file(&file, sim.read_file(theirs).unwrap()).unwrap();
    let read = log
        .reader(Lsn::START)
        .and_then(|mut reader| reader.next_record().map(|record| record.is_some()));
    match read {
        Err(Error::Displaced { path }) if path == file => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn who_reads_a_file_that_was_put_in_place_of_ours_is_told() {
    read_what_was_put_in_place().unwrap();
}

/// Exchanges each file that becomes a segment, right before it gets the segment's name.
#[derive(Debug)]
struct Exchange {
    sim: SimFs,
    armed: AtomicBool,
    exchanged: AtomicBool,
}

impl Hook for Exchange {
    fn before(&self, call: Call, path: &Path) -> io::Result<()> {
        let temporary = path.extension().is_some_and(|extension| extension == "tmp");
        if call == Call::Rename && temporary && self.armed.load(Ordering::SeqCst) {
            self.exchanged.store(true, Ordering::SeqCst);
            let bytes = self.sim.read_file(path)?;
            self.sim.remove(path)?;
            self.sim.write_file(path, bytes)?;
        }
        Ok(())
    }
}

/// What was acknowledged has a name, although the file of a segment is exchanged.
pub(crate) fn exchanged_before_it_has_its_name() -> Result<(), String> {
    let sim = SimFs::new();
    let exchange = Exchange { sim: sim.clone(), armed: false.into(), exchanged: false.into() };
    let fs = hooked(Arc::new(sim.clone()), exchange);
    let log = options(&sim).fs(Arc::new(fs.clone())).open("/log").unwrap();
    let hook = &fs.layer().hook;
    hook.armed.store(true, Ordering::SeqCst);
    let acknowledged = (0..100).take_while(|n| commit(&log, *n..n + 1).is_ok()).count();
    assert!(hook.exchanged.load(Ordering::SeqCst), "a segment was made");
    hook.armed.store(false, Ordering::SeqCst);
    sim.kill();
    drop(log);
    let log = options(&sim.restart()).open("/log").map_err(|e| chain(&e))?;
    match log.next_seq().0 as usize {
        found if found >= acknowledged => Ok(()),
        found => Err(format!("{found} of {acknowledged} records")),
    }
}

#[test]
fn a_log_whose_next_segment_was_exchanged_stops() {
    exchanged_before_it_has_its_name().unwrap();
}

/// A machine whose file system knows paths alone.
#[derive(Debug)]
struct Paths(SimFs);

impl Fs for Paths {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        self.0.open(path, access)
    }
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.0.create_new(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.0.list(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.sync_dir(dir)
    }
    fn now(&self) -> SystemTime {
        self.0.now()
    }
    fn random(&self) -> io::Result<[u8; 16]> {
        self.0.random()
    }
}

/// It is held by its path, and what has its names is compared all the same.
#[test]
fn a_file_system_that_knows_paths_alone_says_so_when_a_log_is_moved() {
    let sim = SimFs::new();
    let options = Log::options().segment_size(8 << 10).buffer_size(4 << 10);
    let options = options.fs(Arc::new(Paths(sim.clone())));
    let log = options.clone().open("/log").unwrap();
    commit(&log, 0..60).unwrap();
    log.truncate_before(log.appended_lsn()).unwrap();
    commit(&log, 0..60).unwrap();
    log.close().unwrap();
    expect(&sim, "/log", 0..60).unwrap();

    let log = options.clone().open("/log").unwrap();
    sim.move_to("/log", "/old").unwrap();
    options.clone().open("/log").unwrap().close().unwrap();
    let told = (0..100).find_map(|n| log.commit(&record(n)).err());
    assert!(matches!(told, Some(Error::Displaced { .. })), "{told:?}");
    assert!(matches!(log.close(), Err(Error::Displaced { .. })));
    expect(&sim, "/log", 0..0).unwrap();
}

/// Somebody made the last segment as long as a disk, with a hole in it, and left some bytes before
/// it or behind it.
#[test]
fn a_hole_takes_no_time_to_open() {
    const LEN: u64 = 8 << 30;
    for (torn, behind) in [(false, false), (true, false), (true, true)] {
        let (sim, log) = machine();
        commit(&log, 0..3).unwrap();
        log.close().unwrap();
        let path = segments(&sim, DIR).pop().unwrap();
        let file = sim.open(&path, Access::ReadWrite).unwrap();
        let len = file.len().unwrap();
        file.set_len(LEN).unwrap();
        for (wanted, at) in [(torn, len + 100), (behind, LEN - 100)] {
            if wanted {
                file.write_at(at, &[std::io::IoSlice::new(&[7; 8])]).unwrap();
            }
        }
        let before = sim.counters().bytes_read;
        let look = Inspection::open_on(Arc::new(sim.clone()), DIR).unwrap();
        assert_eq!(look.next_seq().0, 3);
        let log = options(&sim).open(DIR).unwrap();
        commit(&log, 3..6).unwrap();
        log.close().unwrap();
        let read = sim.counters().bytes_read - before;
        assert!(read < 64 << 20, "{read} bytes were read of a hole");
        expect(&sim, DIR, 0..6).unwrap();
    }
}

#[cfg(unix)]
mod on_the_real_file_system {
    use std::os::unix::fs::{FileTypeExt, symlink};
    use std::process::Command;
    use std::time::{Duration, Instant};

    use super::*;

    fn real() -> Options {
        Log::options().segment_size(8 << 10).buffer_size(4 << 10)
    }

    fn names(dir: &Path) -> Vec<std::path::PathBuf> {
        let mut names: Vec<_> =
            std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
        names.retain(|name| name.extension().is_some_and(|e| e == "cairn"));
        names.sort();
        names
    }

    /// Old segments were moved to a cheaper disk, with links in their places.
    #[test]
    fn linked_segments_are_read_and_never_written_on() {
        let dir = tempfile::tempdir().unwrap();
        let (path, far) = (dir.path().join("log"), dir.path().join("far"));
        let log = real().open(&path).unwrap();
        commit(&log, 0..60).unwrap();
        log.close().unwrap();
        std::fs::create_dir(&far).unwrap();
        let mut kept = Vec::new();
        for name in &names(&path)[..2] {
            let target = far.join(name.file_name().unwrap());
            std::fs::rename(name, &target).unwrap();
            symlink(&target, name).unwrap();
            kept.push((target.clone(), std::fs::read(&target).unwrap()));
        }
        let log = real().open(&path).unwrap();
        assert_eq!(contents(&log).unwrap().1.len(), 60);
        for n in (60..300).step_by(5) {
            commit(&log, n..n + 5).unwrap();
            log.truncate_before(log.appended_lsn()).unwrap();
        }
        log.close().unwrap();
        for (target, bytes) in kept {
            assert!(std::fs::read(&target).unwrap() == bytes, "{}", target.display());
        }
        assert!(names(&path).iter().all(|name| !name.is_symlink()));
    }

    #[test]
    fn a_last_segment_that_is_a_link_is_not_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log = real().open(&path).unwrap();
        commit(&log, 0..3).unwrap();
        log.close().unwrap();
        let (name, target) = (names(&path).pop().unwrap(), dir.path().join("target"));
        std::fs::rename(&name, &target).unwrap();
        symlink(&target, &name).unwrap();
        let bytes = std::fs::read(&target).unwrap();
        let refused = real().open(&path).unwrap_err();
        assert!(crate::model::chain(&refused).contains("symbolic link"), "{refused:?}");
        assert!(std::fs::read(&target).unwrap() == bytes);
        assert_eq!(Inspection::open(&path).unwrap().next_seq().0, 3);
    }

    /// Nobody writes to the pipe, and nobody ever will.
    #[test]
    fn a_pipe_under_a_name_of_ours_blocks_no_opening() {
        for name in ["LOCK", "00000000000000000000-0000000001.cairn", "spare.tmp", "next.tmp"] {
            let dir = tempfile::tempdir().unwrap();
            let pipe = dir.path().join(name);
            assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
            let began = Instant::now();
            match real().open(dir.path()) {
                Ok(log) => {
                    commit(&log, 0..60).unwrap();
                    log.close().unwrap();
                    assert!(name.ends_with("tmp"), "{name}");
                }
                Err(error) => {
                    let text = crate::model::chain(&error);
                    assert!(text.contains(name) && text.contains("not a regular file"), "{text}");
                    assert!(pipe.symlink_metadata().unwrap().file_type().is_fifo());
                    let _ = Inspection::open(dir.path());
                }
            }
            assert!(began.elapsed() < Duration::from_secs(20));
        }
    }

    /// Also seen by a process whose root is elsewhere by now, or that may no longer look: from the
    /// directory itself.
    #[test]
    fn a_directory_that_is_moved_under_a_real_log_is_told_and_put_back() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("log"), dir.path().join("old"));
        let log = real().open(&path).unwrap();
        commit(&log, 0..5).unwrap();
        std::fs::rename(&path, &old).unwrap();
        let done = (5..200).find(|n| log.commit(&record(*n)).is_err()).unwrap();
        let other = real().open(&path).unwrap();
        commit(&other, 0..100).unwrap();
        other.close().unwrap();
        std::fs::rename(&path, dir.path().join("other")).unwrap();
        std::fs::rename(&old, &path).unwrap();
        commit(&log, done..done + 20).unwrap();
        log.close().unwrap();
        let log = real().open(&path).unwrap();
        assert_eq!(contents(&log).unwrap().1, (0..done + 20).map(record).collect::<Vec<_>>());
    }
}
