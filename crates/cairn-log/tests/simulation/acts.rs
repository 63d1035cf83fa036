//! What people and other programs do around a log: while it is open, between its calls and in the
//! middle of them, and while it is not. All of it is data of a script, as the log's own calls are.
//!
//! Three kinds. A *visit* changes nothing of the log's: nobody may notice. A *detour* takes
//! something away and puts it back: calls may fail meanwhile. A *harm* changes what was durable:
//! the next opening tells, or holds everything; put back, everything is there again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cairn_io::sync::thread;
use cairn_log::{Error, Inspection, Lsn};
use cairn_sim::{Broken, SimFs, met, say};

use crate::calls::Home;
use crate::life::{Hands, lock, open_at, place};
use crate::properties as must;
use crate::told::Ledger;

/// Where the operator keeps copies, files that are away for a moment, and what harm took.
const COPY: &str = "/copy";
const MOVED: &str = "/moved";
const ASIDE: &str = "/aside";
const SAVED: &str = "/saved";
const BACKUP: &str = "/backup";
const SHORTCUT: &str = "/shortcut";
const BLOCK: u64 = 4096;

/// One act. Files are counted in order of name, microseconds are how long something lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Copies the log to another place, over the copy that is there.
    Copy,
    /// Opens the copy and appends to it: two histories of one log.
    Diverge,
    /// Gives the `n`-th file a second name, in a backup.
    Link(usize),
    /// Makes a symbolic link to the log, and tries to open it by that.
    Shortcut,
    /// Puts something that is not the log's among its files.
    Stray(usize),
    /// Forks, and the child tries to open the log.
    Fork(u64),
    /// A second process reads every byte.
    Verify,
    /// Sets the clock, by so many hours, back or forward.
    Jump(u64, bool),
    /// Removes the lock file as stale, and opens the log.
    RemoveLock,
    /// Leaves so many blocks free, and then as many as wanted.
    Full(u64, u64),
    /// Moves everything away, and back.
    MoveAway(u64),
    /// Moves the `n`-th file away, and back.
    MoveFile(usize, u64),
    /// Removes the `n`-th file.
    Lose(usize),
    /// Cuts the `n`-th file to so many sixteenths.
    Cut(usize, usize),
    /// Brings the `n`-th file of the copy back, over the one that has its name.
    BringBack(usize),
    /// Moves the `n`-th file to another place, and makes a symbolic link to it.
    Elsewhere(usize),
}

impl Act {
    pub fn kind(self) -> &'static str {
        match self {
            Act::Copy => "copy",
            Act::Diverge => "diverge",
            Act::Link(_) => "link",
            Act::Shortcut => "shortcut",
            Act::Stray(_) => "stray",
            Act::Fork(_) => "fork",
            Act::Verify => "verify",
            Act::Jump(..) => "jump_clock",
            Act::RemoveLock => "remove_lock",
            Act::Full(..) => "full_disk",
            Act::MoveAway(_) => "move_away",
            Act::MoveFile(..) => "move_file",
            Act::Lose(_) => "lose",
            Act::Cut(..) => "cut",
            Act::BringBack(_) => "bring_back",
            Act::Elsewhere(_) => "elsewhere",
        }
    }

    pub fn numbers(self) -> Vec<u64> {
        match self {
            Act::Copy | Act::Diverge | Act::Shortcut | Act::Verify | Act::RemoveLock => Vec::new(),
            Act::Link(n) | Act::Stray(n) | Act::Lose(n) => vec![n as u64],
            Act::BringBack(n) | Act::Elsewhere(n) => vec![n as u64],
            Act::Fork(n) | Act::MoveAway(n) => vec![n],
            Act::Jump(hours, back) => vec![hours, u64::from(back)],
            Act::Full(blocks, micros) => vec![blocks, micros],
            Act::MoveFile(n, micros) => vec![n as u64, micros],
            Act::Cut(n, part) => vec![n as u64, part as u64],
        }
    }

    pub fn parse(kind: &str, n: impl Fn(usize) -> u64) -> Option<Self> {
        let size = |i: usize| n(i) as usize;
        Some(match kind {
            "copy" => Act::Copy,
            "diverge" => Act::Diverge,
            "link" => Act::Link(size(0)),
            "shortcut" => Act::Shortcut,
            "stray" => Act::Stray(size(0)),
            "fork" => Act::Fork(n(0)),
            "verify" => Act::Verify,
            "jump_clock" => Act::Jump(n(0), n(1) == 1),
            "remove_lock" => Act::RemoveLock,
            "full_disk" => Act::Full(n(0), n(1)),
            "move_away" => Act::MoveAway(n(0)),
            "move_file" => Act::MoveFile(size(0), n(1)),
            "lose" => Act::Lose(size(0)),
            "cut" => Act::Cut(size(0), size(1)),
            "bring_back" => Act::BringBack(size(0)),
            "elsewhere" => Act::Elsewhere(size(0)),
            _ => return None,
        })
    }

    /// Whether it changes what was durable.
    pub fn harms(self) -> bool {
        matches!(self, Act::Lose(_) | Act::Cut(..) | Act::BringBack(_) | Act::Elsewhere(_))
    }

    /// Whether calls may fail from here on, until the log is opened again.
    fn excuses(self) -> bool {
        let detour =
            matches!(self, Act::RemoveLock | Act::Full(..) | Act::MoveAway(_) | Act::MoveFile(..));
        detour || self.harms()
    }
}

/// A file that is not as it was.
#[derive(Clone, Debug)]
pub struct Harm {
    pub act: Act,
    file: PathBuf,
    /// What it was; `None` if there was none.
    saved: Option<PathBuf>,
    /// Whether it may have been the file that the log was writing to.
    pub last: bool,
}

impl Harm {
    /// A file that a symbolic link took the place of, and its bytes.
    pub fn elsewhere(&self, fs: &SimFs) -> Option<(PathBuf, Vec<u8>)> {
        let saved = self.saved.clone().filter(|_| matches!(self.act, Act::Elsewhere(_)))?;
        let bytes = fs.read_file(&saved).ok()?;
        Some((saved, bytes))
    }

    /// Puts the file back as it was before.
    pub fn undo(&self, fs: &SimFs) {
        let _ = match &self.saved {
            Some(saved) => fs.copy(saved, &self.file),
            None => fs.remove_all(&self.file),
        };
        let _ = self.file.parent().map(|dir| fs.settle(dir));
    }
}

fn is_there(fs: &SimFs, path: impl AsRef<Path>) -> bool {
    let path = path.as_ref();
    fs.at(path).is_ok() || fs.read_file(path).is_ok() || fs.read_link(path).is_ok()
}

/// The log's files, in order of name.
pub fn files(fs: &SimFs, home: Home) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs.files().into_iter().map(|(path, _)| path).collect();
    files.retain(|path| path.starts_with(place(home)));
    files.sort();
    files
}

/// The same, with those that are away for a moment.
pub fn files_anywhere(fs: &SimFs, home: Home) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs.files().into_iter().map(|(path, _)| path).collect();
    let places = [place(home), MOVED, ASIDE];
    all.retain(|path| places.iter().any(|place| path.starts_with(place)));
    all
}

fn nth(fs: &SimFs, home: Home, n: usize) -> Option<PathBuf> {
    let files = files(fs, home);
    let strays = |path: &PathBuf| STRAYS.iter().any(|name| path.ends_with(name));
    let own: Vec<_> = files.into_iter().filter(|path| !strays(path)).collect();
    own.get(n % own.len().max(1)).cloned()
}

/// Names that are none of the log's.
const STRAYS: [&str; 3] = ["notes.txt", "core", "00000000000000000000.cairn~"];

/// Makes the operator's own directory, if it is not there.
fn dir(fs: &SimFs, path: &str) {
    if !is_there(fs, path) {
        let _ = cairn_io::Fs::create_dir(&fs.second_process(), path.as_ref());
    }
    let _ = fs.settle("/");
}

/// Carries out an act while the log is open, as a thread of the life.
pub fn operate(hands: &Hands, act: Act) -> Result<(), Broken> {
    let Hands { fs, setup, told, .. } = hands;
    let street = hands.street.lock();
    if act.excuses() {
        hands.excused.store(true, Ordering::SeqCst);
    }
    if act.harms() {
        if lock(told).harmed().is_some() {
            return Ok(());
        }
        let from = fs.op_count();
        let harmed = harm(fs, setup.home, act, |harm| {
            lock(told).harms.push((Some(from), usize::MAX, harm.clone()));
        });
        met(if harmed { "harm while open" } else { "no harm while open" });
        return Ok(());
    }
    let done = match act {
        Act::Jump(hours, back) => {
            let by = (hours * 3_600_000).cast_signed();
            fs.jump_clock(if back { -by } else { by });
            Ok(())
        }
        Act::Full(blocks, micros) => {
            let taken: u64 = fs.files().iter().map(|(_, len)| len.next_multiple_of(BLOCK)).sum();
            fs.set_capacity(Some(taken + blocks * BLOCK));
            wait(micros);
            fs.set_capacity(None);
            Ok(())
        }
        Act::MoveFile(n, micros) => {
            move_file(hands, n, micros);
            Ok(())
        }
        Act::MoveAway(micros) => {
            move_away(hands, micros);
            Ok(())
        }
        Act::Copy => {
            copy(fs, setup.home);
            Ok(())
        }
        Act::Diverge => {
            diverge(hands);
            Ok(())
        }
        Act::Stray(n) => {
            if setup.home != Home::Store {
                let path = Path::new(place(setup.home)).join(STRAYS[n % STRAYS.len()]);
                let _ = fs.write_file(path, b"not the log's");
            }
            Ok(())
        }
        Act::Link(n) => {
            link(hands, n);
            Ok(())
        }
        Act::Fork(micros) => fork(hands, micros),
        Act::Shortcut => shortcut(hands),
        Act::RemoveLock => remove_lock(hands),
        Act::Verify => verify(hands),
        Act::Lose(_) | Act::Cut(..) | Act::BringBack(_) | Act::Elsewhere(_) => Ok(()),
    };
    drop(street);
    done
}

fn wait(micros: u64) {
    thread::sleep(Duration::from_micros(micros));
}

/// A process beside the one that has the log open must not get it.
fn must_be_locked(hands: &Hands, process: &SimFs, path: &str) -> Result<(), Broken> {
    if hands.setup.home != Home::Directory {
        return Ok(());
    }
    match open_at(hands.setup, process, path) {
        Err(Error::Locked { .. }) => Ok(()),
        Err(_) if hands.fs.counters().faults > 0 || lock(&hands.told).harmed().is_some() => Ok(()),
        Err(error) => Err(Broken::new(must::ALONE, format!("{path}: {error:?}"))),
        Ok(_) => Err(Broken::new(must::ALONE, format!("another process opened {path}"))),
    }
}

fn fork(hands: &Hands, micros: u64) -> Result<(), Broken> {
    let child = hands.fs.fork();
    wait(micros);
    let done = must_be_locked(hands, &child, place(hands.setup.home));
    child.kill();
    done
}

fn shortcut(hands: &Hands) -> Result<(), Broken> {
    let place = place(hands.setup.home);
    if !is_there(&hands.fs, SHORTCUT) && hands.fs.symlink(&place[1..], SHORTCUT).is_err() {
        return Ok(());
    }
    must_be_locked(hands, &hands.fs.second_process(), SHORTCUT)
}

fn remove_lock(hands: &Hands) -> Result<(), Broken> {
    let place = place(hands.setup.home);
    if hands.setup.home != Home::Directory {
        return Ok(());
    }
    let _ = hands.fs.remove_all(Path::new(place).join("LOCK"));
    must_be_locked(hands, &hands.fs.second_process(), place)
}

fn verify(hands: &Hands) -> Result<(), Broken> {
    if hands.setup.home != Home::Directory {
        return Ok(());
    }
    let other = Arc::new(hands.fs.second_process());
    let look = Inspection::open_on(other, place(hands.setup.home));
    let verified = look.and_then(|look| look.verify(|_| ()));
    match verified {
        _ if hands.failing() => Ok(()),
        Ok(verified) if verified.problems.is_empty() => Ok(()),
        Ok(verified) => Err(Broken::new(must::TRUTH, format!("{:?}", verified.problems))),
        Err(error) => Err(Broken::new(must::TRUTH, format!("{error:?}"))),
    }
}

fn copy(fs: &SimFs, home: Home) {
    if home == Home::Store {
        return;
    }
    let _ = fs.remove_all(COPY);
    let _ = fs.settle("/");
    let _ = fs.copy(place(home), COPY);
}

/// Appends to the copy what the log never held.
fn diverge(hands: &Hands) {
    if hands.setup.home != Home::Directory || !is_there(&hands.fs, COPY) {
        return;
    }
    // A copy of files that are being written may be no log.
    let Ok(log) = open_at(hands.setup, &hands.fs.second_process(), COPY) else { return };
    met("diverged");
    for n in 0..4 {
        let record = lock(&hands.told).stranger(350 + n);
        if log.commit(&record).is_err() {
            return;
        }
    }
    let _ = log.close();
}

fn link(hands: &Hands, n: usize) {
    let Hands { fs, setup, log, .. } = hands;
    let Some(file) = nth(fs, setup.home, n) else { return };
    dir(fs, BACKUP);
    let mut backups = hands.backups.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let name = format!("{}-{}", fs.op_count(), file.file_name().unwrap_or_default().display());
    let name = Path::new(BACKUP).join(name);
    if fs.link(&file, &name).is_ok() {
        let mut bytes = fs.read_file(&name).unwrap_or_default();
        bytes.truncate(records_end(&file, log.durable_lsn()));
        backups.push((name, bytes));
    }
}

/// Where in a segment's file the records of a log end that is durable up to there: a file that was
/// written before holds other bytes behind that, and is zeroed ahead of the writer.
fn records_end(segment: &Path, end: Lsn) -> usize {
    let name = segment.file_stem().and_then(|stem| stem.to_str());
    match name.and_then(|name| name.split_once('-')?.0.parse::<u64>().ok()) {
        Some(base) => 4096 + end.0.saturating_sub(base) as usize,
        None => usize::MAX,
    }
}

/// Moves a file to another directory and back, so that it never is without a durable name.
fn move_file(hands: &Hands, n: usize, micros: u64) {
    let Hands { fs, setup, .. } = hands;
    let Some(file) = nth(fs, setup.home, n) else { return };
    dir(fs, ASIDE);
    let aside = Path::new(ASIDE).join(file.file_name().unwrap_or_default());
    if fs.link(&file, &aside).is_err() {
        return;
    }
    let _ = fs.settle(ASIDE);
    if fs.remove_all(&file).is_ok() {
        let _ = file.parent().map(|dir| fs.settle(dir));
        wait(micros);
    }
    put_file_back(fs, setup.home, &aside, &file);
}

/// Puts it back, unless it was dropped meanwhile.
fn put_file_back(fs: &SimFs, home: Home, aside: &Path, file: &Path) {
    if home != Home::Segmented || is_wanted(fs, aside, file) {
        let _ = fs.link(aside, file);
    }
    let _ = file.parent().map(|dir| fs.settle(dir));
    let _ = fs.remove_all(aside);
    let _ = fs.settle(ASIDE);
}

/// Whether a store of several files lacks this one. One that it gave away may not come back where
/// it would leave a hole between it and the others: the store says that one is missing.
fn is_wanted(fs: &SimFs, aside: &Path, file: &Path) -> bool {
    let len = |path: &Path| fs.read_file(path).map(|bytes| bytes.len()).ok();
    let is_first = number(file) == 0;
    let beside =
        |path: &Path| path.parent() == file.parent() && path.extension() == file.extension();
    let is_only = !fs.files().iter().any(|(path, _)| beside(path));
    let before = number(file).checked_sub(1).and_then(|before| len(&numbered(file, before)));
    is_first || is_only || is_there(fs, numbered(file, number(file) + 1)) || before >= len(aside)
}

/// The number of a file in a store of several.
fn number(file: &Path) -> u64 {
    file.file_stem().and_then(|stem| stem.to_str()?.parse().ok()).unwrap_or(0)
}

/// The file with this number beside `file`.
fn numbered(file: &Path, number: u64) -> PathBuf {
    file.with_file_name(format!("{number:020}.seg"))
}

fn move_away(hands: &Hands, micros: u64) {
    let Hands { fs, setup, told, .. } = hands;
    if setup.home == Home::Store {
        return;
    }
    for (from, to) in [(place(setup.home), MOVED), (MOVED, place(setup.home))] {
        let at = {
            let mut told = lock(told);
            told.moves.push((fs.op_count(), usize::MAX));
            told.moves.len() - 1
        };
        let _ = fs.move_to(from, to);
        let _ = fs.settle("/");
        lock(told).moves[at].1 = fs.op_count();
        if to == MOVED {
            wait(micros);
        }
    }
}

/// Puts back what was away when the last life ended.
pub fn put_back(fs: &SimFs, home: Home, told: &mut Ledger) {
    if is_there(fs, MOVED) {
        let from = fs.op_count();
        let _ = fs.move_to(MOVED, place(home));
        let _ = fs.settle("/");
        told.moves.push((from, fs.op_count()));
        met("put the directory back");
    } else if !told.moves.is_empty() {
        // It was put back, and the name may not be durable yet.
        let _ = fs.settle("/");
    }
    let aside: Vec<PathBuf> = fs.files().into_iter().map(|(path, _)| path).collect();
    for aside in aside.iter().filter(|path| path.starts_with(ASIDE)) {
        let name = aside.file_name().unwrap_or_default();
        let file = match home {
            Home::Store => PathBuf::from(place(home)),
            Home::Directory | Home::Segmented => Path::new(place(home)).join(name),
        };
        put_file_back(fs, home, aside, &file);
        met("put a file back");
    }
}

/// Gives the log up.
pub fn give_up(fs: &SimFs, home: Home) {
    let place = place(home);
    let _ = fs.move_to(place, format!("/given_up_{}", fs.op_count()));
    let _ = fs.settle("/");
}

/// Whether nothing is left of the log's place.
pub fn is_gone(fs: &SimFs, home: Home) -> bool {
    !is_there(fs, place(home))
}

/// Changes a file of the log. `note` is told what is about to happen. Whether anything did.
pub fn harm(fs: &SimFs, home: Home, act: Act, note: impl FnOnce(&Harm)) -> bool {
    let file = match act {
        Act::BringBack(n) => {
            let mut there: Vec<PathBuf> = fs.files().into_iter().map(|(path, _)| path).collect();
            there.retain(|path| path.starts_with(COPY) && home != Home::Store);
            let found = there.get(n % there.len().max(1));
            found.map(|path| Path::new(place(home)).join(path.file_name().unwrap_or_default()))
        }
        // A store writes to any of its files, and to none through a link: each call would refuse.
        Act::Elsewhere(n) if home == Home::Directory => nth(fs, home, n),
        Act::Lose(n) | Act::Cut(n, _) => nth(fs, home, n),
        _ => None,
    };
    let Some(file) = file else { return false };
    let name = file.file_name().unwrap_or_default().to_owned();
    let mut segments = files(fs, home);
    segments.retain(|path| path.extension().is_some_and(|e| e == "cairn" || e == "seg"));
    // Behind the file that is written to there can be others, which were made ahead.
    let holds = |path: &&PathBuf| {
        let bytes = fs.read_file(path).unwrap_or_default();
        // The first group; behind it a recycled file has what it held before.
        bytes.iter().skip(BLOCK as usize).take(40).any(|byte| *byte != 0)
    };
    let written = segments.iter().rfind(holds);
    let last = home != Home::Directory
        || segments.contains(&file) && written.is_none_or(|written| file >= *written);
    dir(fs, SAVED);
    let kept = Path::new(SAVED).join(&name);
    let saved = fs.copy(&file, &kept).is_ok().then(|| kept.clone());
    let harm = Harm { act, file: file.clone(), saved, last };
    note(&harm);
    say(|| format!("{harm:?}"));
    let done = match act {
        Act::Lose(_) => fs.remove_all(&file),
        Act::Cut(_, part) => {
            let len = fs.read_file(&file).map_or(0, |bytes| bytes.len() as u64);
            fs.truncate(&file, len * part as u64 / 16)
        }
        Act::BringBack(_) => fs.copy(Path::new(COPY).join(&name), &file),
        Act::Elsewhere(_) => fs.remove_all(&file).and_then(|()| fs.symlink(&kept, &file)),
        _ => Ok(()),
    };
    let _ = file.parent().map(|dir| fs.settle(dir));
    done.is_ok()
}
