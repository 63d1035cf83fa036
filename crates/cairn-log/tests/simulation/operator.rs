//! A world with people in it: an operator changes the directory of a log that is open. Whatever the
//! operator does, no call may hang, damage another log, or acknowledge a record that no file of the
//! log holds.
//!
//! Each act that defeats the log is in the list of known failures below, with the seed that shows
//! it; a test compares the list with what is found. The list is to become empty.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cairn_io::Fs as _;
use cairn_io::sync::thread;
use cairn_log::{Error, Floor, Log, Options, Retention};
use cairn_sim::{Broken, SimFs, World, call, run, say};

const DIR: &str = "/data/log";

const NOT_LOST: &str = "an acknowledged record is in a file of its log";
const NOT_TWO: &str = "two handles never write to one log";
const NEIGHBOUR: &str = "another log is not touched";
const SAYS_SO: &str = "a log whose directory is gone says so when it is closed";
const BACKUP: &str = "files that a backup shares are not overwritten";
const USABLE: &str = "after the operator's act the log can be used again";

/// What an operator does while the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Moves the log's directory away.
    MoveDirectory,
    /// Moves it away, and begins another log under its name.
    MoveAndBeginAnew,
    /// Renames its parent.
    MoveParent,
    /// Changes the working directory of a process that opened the log by a relative path.
    ChangeDirectory,
    /// Removes the directory with everything in it.
    RemoveDirectory,
    /// Links every file into a backup.
    LinkBackup,
    /// Copies the directory, and opens the copy.
    Copy,
    /// Removes the lock file as stale, and opens the log.
    RemoveLock,
    /// Forks, the parent dies, and another process opens the log.
    Fork,
    /// Lets the disk become full, and makes space again.
    FullDisk,
    /// Sets the clock back and forth.
    JumpClock,
}

const ACTS: [Act; 11] = [
    Act::MoveDirectory,
    Act::MoveAndBeginAnew,
    Act::MoveParent,
    Act::ChangeDirectory,
    Act::RemoveDirectory,
    Act::LinkBackup,
    Act::Copy,
    Act::RemoveLock,
    Act::Fork,
    Act::FullDisk,
    Act::JumpClock,
];

/// An act that today's log does not stand, the property it breaks, and the first seed that shows
/// it.
const KNOWN: &[(Act, &str, u64, &str)] = &[];

fn options(fs: &SimFs) -> Options {
    Log::options().segment_size(8 << 10).buffer_size(4 << 10).fs(Arc::new(fs.clone()))
}

/// What was acknowledged, in order.
type Acknowledged = Arc<Mutex<Vec<Vec<u8>>>>;

/// What a writer does besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Besides {
    Nothing,
    /// Drops what is old, so that files are recycled.
    Truncate,
    /// Keeps what is younger than an hour, and the last records.
    Retain,
}

/// Records that are kept whatever the clock says.
const KEPT: u64 = 6;

/// Commits until an error comes.
fn write(
    log: &Log,
    count: usize,
    mark: u8,
    told: &Acknowledged,
    besides: Besides,
) -> Option<Error> {
    for n in 0..count {
        if n % 5 == 4 {
            let kept = || told.lock().unwrap_or_else(PoisonError::into_inner);
            let done = match besides {
                Besides::Nothing => Ok(()),
                Besides::Retain => {
                    let age = Duration::from_secs(3600);
                    log.retain(Retention::AgeAbove { age, floor: Floor::Records(KEPT) }).map(drop)
                }
                Besides::Truncate => {
                    kept().clear();
                    log.truncate_before(log.appended_lsn())
                }
            };
            if let Err(error) = done {
                return Some(error);
            }
        }
        let record = vec![mark.wrapping_add(n as u8); 300 + 40 * n];
        match call("commit", || format!("commit {}", record.len()), || log.commit(&record)) {
            Ok(_) => told.lock().unwrap_or_else(PoisonError::into_inner).push(record),
            Err(error) => return Some(error),
        }
    }
    None
}

/// The records of the log in `dir`, if one can be opened there.
fn records(fs: &SimFs, dir: &str) -> cairn_log::Result<Vec<Vec<u8>>> {
    let log = options(fs).open(dir)?;
    let reader = log.reader(log.head_lsn())?;
    reader.map(|record| record.map(|record| record.payload().to_vec())).collect()
}

/// One life with one act at a moment that the seed decides. `None`: nothing is broken.
fn life(act: Act, seed: u64) -> Result<(), Broken> {
    run(seed, move |world| around(world, act)).and_then(|result| result)
}

fn around(world: &World, act: Act) -> Result<(), Broken> {
    let fs = world.fs();
    fs.create_dir("/data".as_ref()).unwrap();
    fs.sync_dir("/".as_ref()).unwrap();
    let usable = |error: Error| Broken::new(USABLE, format!("{error:?}"));
    let user = fs.second_process();
    let dir = if act == Act::ChangeDirectory { "data/log" } else { DIR };
    let log = Arc::new(options(&user).open(dir).map_err(usable)?);
    let told = Acknowledged::default();
    let writer = world.spawn("writer", {
        let (log, told) = (log.clone(), told.clone());
        let besides = match act {
            Act::LinkBackup => Besides::Truncate,
            Act::JumpClock => Besides::Retain,
            _ => Besides::Nothing,
        };
        move || drop(write(&log, 40, 0, &told, besides))
    });
    let count = world.below(20);
    let operator = world.spawn("operator", {
        let (fs, user) = (fs.clone(), user.clone());
        move || {
            for _ in 0..count {
                thread::sleep(Duration::from_micros(200));
            }
            say(|| format!("{act:?}"));
            operate(act, &fs, &user)
        }
    });
    let after = operator.join().unwrap_or_else(|_| Ok(After::default()))?;
    let _ = writer.join();
    let log = Arc::try_unwrap(log).expect("the threads have ended");
    // What close says is the log's; afterwards no handle is left.
    let closed = call("close", || "close".to_owned(), || log.close());
    let gone = [Act::MoveDirectory, Act::MoveAndBeginAnew, Act::RemoveDirectory];
    if gone.contains(&act) && closed.is_ok() {
        return Err(Broken::new(SAYS_SO, format!("close after {act:?} is Ok")));
    }
    let mut after = after;
    drop(after.neighbour.take());
    let mut wanted = told.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if act == Act::JumpClock {
        // A record that is not old by a clock that was wrong may be, by one that is right.
        wanted.drain(..wanted.len().saturating_sub(KEPT as usize));
    }
    after.compare(&fs, &wanted)
}

/// What there is to look at when the operator is done.
#[derive(Default)]
struct After {
    /// Where the log is now; nowhere if it was removed.
    place: Option<&'static str>,
    /// A log that was begun beside it, its place and what it acknowledged.
    neighbour: Option<Log>,
    other: Option<(&'static str, Vec<Vec<u8>>)>,
    /// Files of a backup, as they were when it was made.
    backup: Vec<(PathBuf, Vec<u8>)>,
}

impl After {
    fn at(place: &'static str) -> Self {
        Self { place: Some(place), ..Self::default() }
    }

    /// Every acknowledged record is in the log, wherever it is, and the other log has its own only.
    fn compare(&self, fs: &SimFs, wanted: &[Vec<u8>]) -> Result<(), Broken> {
        let machine = fs.restart();
        if let Some(place) = self.place {
            let found = records(&machine, place);
            let found = found.map_err(|e| Broken::new(USABLE, format!("{place}: {e:?}")))?;
            let there: BTreeSet<&Vec<u8>> = found.iter().collect();
            let missing = wanted.iter().filter(|record| !there.contains(record)).count();
            if missing > 0 {
                let text = format!("{missing} of {} records are not in {place}", wanted.len());
                return Err(Broken::new(NOT_LOST, text));
            }
        }
        for (path, old) in &self.backup {
            let now = fs.read_file(path).unwrap_or_default();
            // The active file is written on, and what was reserved behind its end given back; what
            // was written stays.
            let kept = |(at, byte): (usize, &u8)| *byte == 0 || now.get(at) == Some(byte);
            if !old.iter().enumerate().all(kept) {
                return Err(Broken::new(BACKUP, format!("{} is another file", path.display())));
            }
        }
        if let Some((place, wanted)) = &self.other {
            let found = records(&machine, place);
            let found = found.map_err(|e| Broken::new(NEIGHBOUR, format!("{place}: {e:?}")))?;
            if found != *wanted {
                let text = format!("{} records, {} were its own", found.len(), wanted.len());
                return Err(Broken::new(NEIGHBOUR, text));
            }
        }
        Ok(())
    }
}

/// Begins a log at `place` in another process, and writes to it.
fn begin(fs: &SimFs, place: &'static str) -> Result<(Log, Vec<Vec<u8>>), Broken> {
    let told = Acknowledged::default();
    let log = options(&fs.second_process()).open(place);
    let log = log.map_err(|e| Broken::new(NEIGHBOUR, format!("{place}: {e:?}")))?;
    if let Some(error) = write(&log, 12, 100, &told, Besides::Nothing) {
        return Err(Broken::new(NEIGHBOUR, format!("{place}: {error:?}")));
    }
    let told = told.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok((log, told))
}

fn operate(act: Act, fs: &SimFs, user: &SimFs) -> Result<After, Broken> {
    match act {
        Act::MoveDirectory => {
            fs.move_to(DIR, "/data/moved").unwrap();
            Ok(After::at("/data/moved"))
        }
        Act::MoveAndBeginAnew => {
            fs.move_to(DIR, "/data/moved").unwrap();
            let (neighbour, told) = begin(fs, DIR)?;
            let neighbour = Some(neighbour);
            Ok(After { neighbour, other: Some((DIR, told)), ..After::at("/data/moved") })
        }
        Act::MoveParent => {
            fs.move_to("/data", "/elsewhere").unwrap();
            Ok(After::at("/elsewhere/log"))
        }
        Act::ChangeDirectory => {
            fs.create_dir("/home".as_ref()).unwrap();
            user.change_directory("/home").unwrap();
            Ok(After::at(DIR))
        }
        Act::RemoveDirectory => {
            fs.remove_all(DIR).unwrap();
            Ok(After::default())
        }
        Act::LinkBackup => {
            fs.create_dir("/backup".as_ref()).unwrap();
            let mut backup = Vec::new();
            for (path, _) in fs.files() {
                let copy = Path::new("/backup").join(path.file_name().unwrap_or_default());
                if path.extension().is_some_and(|e| e == "cairn") && fs.link(&path, &copy).is_ok() {
                    let bytes = fs.read_file(&copy).unwrap_or_default();
                    backup.push((copy, bytes));
                }
            }
            Ok(After { backup, ..After::at(DIR) })
        }
        Act::Copy => {
            fs.copy(DIR, "/data/copy").unwrap();
            let opened = options(&fs.second_process()).open("/data/copy");
            opened.map(drop).map_err(|e| Broken::new(USABLE, format!("the copy: {e:?}")))?;
            Ok(After::at(DIR))
        }
        Act::RemoveLock => {
            fs.remove_all("/data/log/LOCK").unwrap();
            match options(&fs.second_process()).open(DIR) {
                Ok(_) => Err(Broken::new(NOT_TWO, "a second process opened the log")),
                Err(_) => Ok(After::at(DIR)),
            }
        }
        Act::Fork => {
            let child = user.fork();
            user.kill();
            let opened = options(&fs.second_process()).open(DIR);
            child.kill();
            match opened {
                Err(Error::Locked { .. }) => Ok(After::at(DIR)),
                Ok(_) => Err(Broken::new(NOT_TWO, "opened while a forked child has its files")),
                Err(error) => Err(Broken::new(NOT_TWO, format!("{error:?}"))),
            }
        }
        Act::FullDisk => {
            fs.set_capacity(Some(0));
            thread::sleep(Duration::from_millis(2));
            fs.set_capacity(None);
            Ok(After::at(DIR))
        }
        Act::JumpClock => {
            fs.jump_clock(-86_400_000);
            thread::sleep(Duration::from_millis(1));
            fs.jump_clock(2 * 86_400_000);
            Ok(After::at(DIR))
        }
    }
}

/// What breaks first under each act, within so many seeds.
fn found(seeds: u64) -> Vec<(Act, Broken, u64)> {
    let first = |act: Act| (0..seeds).find_map(|seed| Some((act, life(act, seed).err()?, seed)));
    ACTS.into_iter().filter_map(first).collect()
}

#[test]
fn the_acts_that_defeat_the_log_are_the_known_ones() {
    let found = found(40);
    for (act, broken, seed) in &found {
        println!("{act:?}, seed {seed}: {broken}");
    }
    let found: Vec<_> =
        found.iter().map(|(act, broken, seed)| (*act, broken.property, *seed)).collect();
    let known: Vec<_> =
        KNOWN.iter().map(|(act, property, seed, _)| (*act, *property, *seed)).collect();
    assert_eq!(found, known);
}
