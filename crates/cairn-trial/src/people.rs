//! What people and other programs do around a structure in one file, as data of a script.
//!
//! A *visit* changes nothing of the file: nobody may notice. A *detour* takes something away and
//! puts it back: calls may fail meanwhile, and nothing is lost. A *harm* changes what was durable.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cairn_io::Fs;
use cairn_sim::sync::thread;
use cairn_sim::{Broken, Dice, End, SimFs, Told, met};

/// One handle, of all processes, has the structure open.
pub const ALONE: &str = "one handle has it";

const MOVED: &str = "/moved";
const ASIDE: &str = "/aside";
const SAVED: &str = "/saved";
const COPY: &str = "/copy";
const BACKUP: &str = "/backup";
const SHORTCUT: &str = "/shortcut";

/// One act. Microseconds are how long something lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Copies the file.
    Copy,
    /// Gives the file a second name, in a backup.
    Link,
    /// Makes a symbolic link to the file, and tries to open it by that.
    Shortcut,
    /// Forks, and the child tries to open the file.
    Fork(u64),
    /// Sets the clock, by so many hours, back or forward.
    Jump(u64, bool),
    /// Leaves so many blocks free, and then as many as wanted.
    Full(u64, u64),
    /// Moves the directory away, and back.
    MoveAway(u64),
    /// Moves the file away, and back.
    MoveFile(u64),
    /// Removes the file, for good.
    Lose,
    /// Cuts the file to so many sixteenths.
    Cut(u64),
    /// Moves the file to another place, and makes a symbolic link to it.
    Elsewhere,
}

impl Act {
    /// Its name in scripts and reports.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Act::Copy => "copy",
            Act::Link => "link",
            Act::Shortcut => "shortcut",
            Act::Fork(_) => "fork",
            Act::Jump(..) => "jump_clock",
            Act::Full(..) => "full_disk",
            Act::MoveAway(_) => "move_away",
            Act::MoveFile(_) => "move_file",
            Act::Lose => "lose",
            Act::Cut(_) => "cut",
            Act::Elsewhere => "elsewhere",
        }
    }

    /// What follows the name.
    #[must_use]
    pub fn numbers(self) -> Vec<u64> {
        match self {
            Act::Copy | Act::Link | Act::Shortcut | Act::Lose | Act::Elsewhere => Vec::new(),
            Act::Fork(n) | Act::MoveAway(n) | Act::MoveFile(n) | Act::Cut(n) => vec![n],
            Act::Jump(hours, back) => vec![hours, u64::from(back)],
            Act::Full(blocks, micros) => vec![blocks, micros],
        }
    }

    /// The act of this name, if there is one.
    pub fn parse(kind: &str, n: impl Fn(usize) -> u64) -> Option<Self> {
        Some(match kind {
            "copy" => Act::Copy,
            "link" => Act::Link,
            "shortcut" => Act::Shortcut,
            "fork" => Act::Fork(n(0)),
            "jump_clock" => Act::Jump(n(0), n(1) == 1),
            "full_disk" => Act::Full(n(0), n(1)),
            "move_away" => Act::MoveAway(n(0)),
            "move_file" => Act::MoveFile(n(0)),
            "lose" => Act::Lose,
            "cut" => Act::Cut(n(0)),
            "elsewhere" => Act::Elsewhere,
            _ => return None,
        })
    }

    /// Something that is done while the structure is open.
    #[must_use]
    pub fn while_open(dice: &mut Dice) -> Self {
        let micros = 1 << dice.below(12);
        match dice.below(16) {
            0 | 1 => Act::Copy,
            2 => Act::Link,
            3 | 4 => Act::Shortcut,
            5 | 6 => Act::Fork(micros),
            7 => Act::Jump(1 << dice.below(12), dice.chance(1, 2)),
            8..11 => Act::Full(dice.below(6) as u64, micros),
            11 | 12 => Act::MoveAway(micros),
            13 | 14 => Act::MoveFile(micros),
            _ => Act::Lose,
        }
    }

    /// Something that is done while it is not.
    #[must_use]
    pub fn while_closed(dice: &mut Dice) -> Self {
        if dice.chance(1, 3) { Act::Elsewhere } else { Act::Cut(dice.below(16) as u64) }
    }

    /// Whether calls may fail from here on, until the structure is opened again.
    fn excuses(self) -> bool {
        use Act::{Full, Lose, MoveAway, MoveFile};
        matches!(self, Full(..) | MoveAway(_) | MoveFile(_) | Lose)
    }
}

/// Since when, and until when, a name was being changed: it need not survive a power cut.
type Span = (usize, usize);

/// Since when (`None`: in a life before), and until when, the file was harmed.
type Harmed = (Option<usize>, usize);

/// What callers were told, and what people did.
#[derive(Clone, Debug, Default)]
pub struct Surrounded<T> {
    /// What callers were told.
    pub told: T,
    moves: Vec<Span>,
    harms: Vec<Harmed>,
}

impl<T: Told> Told for Surrounded<T> {
    fn at(&self, point: usize, end: End) -> Self {
        let mut moves = self.moves.clone();
        moves.retain(|(from, until)| (*from..=*until).contains(&point));
        moves.iter_mut().for_each(|span| *span = (0, usize::MAX));
        let mut harms = self.harms.clone();
        harms.retain(|(from, until)| from.is_none_or(|at| at < point) && point < *until);
        harms.iter_mut().for_each(|span| *span = (None, usize::MAX));
        Surrounded { told: self.told.at(point, end), moves, harms }
    }
}

/// Where the file is, and what a life has to know of what people do to it.
#[derive(Debug)]
pub struct Street {
    fs: SimFs,
    file: PathBuf,
    excused: AtomicBool,
    moves: Mutex<Vec<Span>>,
    harms: Mutex<Vec<Harmed>>,
    /// One at a time is at the file from outside.
    turn: cairn_sim::sync::Mutex<()>,
}

impl Street {
    /// Puts back what was away or harmed when the last life ended. Also says whether the file was
    /// removed or moved then, and is gone.
    pub fn new<T>(fs: &SimFs, file: &str, told: &Surrounded<T>) -> (Self, bool) {
        let street = Street {
            fs: fs.clone(),
            file: file.into(),
            excused: AtomicBool::new(false),
            moves: Mutex::default(),
            harms: Mutex::default(),
            turn: cairn_sim::sync::Mutex::default(),
        };
        if is_there(fs, MOVED) {
            street.moving(|| fs.move_to(MOVED, street.dir()));
            met("put the directory back");
        }
        street.make(street.dir());
        if is_there(fs, street.aside()) {
            street.put_file_back();
            met("put a file back");
        }
        if !told.harms.is_empty() {
            street.undo();
        }
        let gone = !told.moves.is_empty() && !is_there(fs, file);
        (street, gone)
    }

    fn dir(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new("/"))
    }

    fn aside(&self) -> PathBuf {
        Path::new(ASIDE).join(self.file.file_name().unwrap_or_default())
    }

    fn make(&self, dir: &Path) {
        if !is_there(&self.fs, dir) {
            let _ = self.fs.second_process().create_dir(dir);
        }
        settle(&self.fs, Path::new("/"));
    }

    fn moves(&self) -> MutexGuard<'_, Vec<Span>> {
        self.moves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn harms(&self) -> MutexGuard<'_, Vec<Harmed>> {
        self.harms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether calls may fail: some were made to, or people did what explains it.
    #[must_use]
    pub fn failing(&self) -> bool {
        self.fs.counters().faults > 0 || self.excused.load(Ordering::SeqCst)
    }

    /// Holds people off, for a look from outside that needs the file to be in its place.
    pub fn turn(&self) -> impl Drop + '_ {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What callers were told, with what people did.
    pub fn surround<T>(&self, told: T) -> Surrounded<T> {
        Surrounded { told, moves: self.moves().clone(), harms: self.harms().clone() }
    }

    /// Carries out an act while the structure is open. `open` opens it as another process.
    ///
    /// # Errors
    /// When another process gets it.
    pub fn operate(
        &self,
        act: Act,
        open: impl FnOnce(&SimFs, &Path) -> Opened,
    ) -> Result<(), Broken> {
        let _turn = self.turn();
        if act.excuses() {
            self.excused.store(true, Ordering::SeqCst);
        }
        let Street { fs, file, .. } = self;
        if !is_there(fs, file) {
            // It was removed: what is opened there now is another one.
            return Ok(());
        }
        match act {
            Act::Copy => drop(fs.copy(file, COPY)),
            Act::Link => {
                self.make(Path::new(BACKUP));
                let _ = fs.link(file, Path::new(BACKUP).join(fs.op_count().to_string()));
            }
            Act::Shortcut => {
                let _ = fs.symlink(file, SHORTCUT);
                return self.must_be_locked(open(&fs.second_process(), Path::new(SHORTCUT)));
            }
            Act::Fork(micros) => {
                let child = fs.fork();
                wait(micros);
                let done = self.must_be_locked(open(&child, file));
                child.kill();
                return done;
            }
            Act::Jump(hours, back) => {
                let by = (hours * 3_600_000).cast_signed();
                fs.jump_clock(if back { -by } else { by });
            }
            Act::Full(blocks, micros) => {
                let taken: u64 = fs.files().iter().map(|(_, len)| len.next_multiple_of(4096)).sum();
                fs.set_capacity(Some(taken + blocks * 4096));
                wait(micros);
                fs.set_capacity(None);
            }
            Act::MoveAway(micros) => {
                self.moving(|| fs.move_to(self.dir(), MOVED));
                wait(micros);
                self.moving(|| fs.move_to(MOVED, self.dir()));
            }
            Act::MoveFile(micros) => self.move_file(micros),
            Act::Lose => {
                let from = fs.op_count();
                let _ = fs.remove_all(file);
                self.moves().push((from + 1, usize::MAX));
                settle(fs, self.dir());
            }
            Act::Cut(_) | Act::Elsewhere => {}
        }
        Ok(())
    }

    fn moving(&self, change: impl FnOnce() -> io::Result<()>) {
        let at = {
            let mut moves = self.moves();
            moves.push((self.fs.op_count(), usize::MAX));
            moves.len() - 1
        };
        let _ = change();
        settle(&self.fs, Path::new("/"));
        self.moves()[at].1 = self.fs.op_count();
    }

    /// So that the file always has a durable name.
    fn move_file(&self, micros: u64) {
        self.make(Path::new(ASIDE));
        if self.fs.link(&self.file, self.aside()).is_err() {
            return;
        }
        settle(&self.fs, Path::new(ASIDE));
        let _ = self.fs.remove_all(&self.file);
        settle(&self.fs, self.dir());
        wait(micros);
        self.put_file_back();
    }

    fn put_file_back(&self) {
        let _ = self.fs.link(self.aside(), &self.file);
        settle(&self.fs, self.dir());
        let _ = self.fs.remove_all(self.aside());
        settle(&self.fs, Path::new(ASIDE));
    }

    fn must_be_locked(&self, opened: Opened) -> Result<(), Broken> {
        match opened {
            Opened::Locked => Ok(()),
            Opened::Refused(_) if self.failing() => Ok(()),
            Opened::Refused(error) => Err(Broken::new(ALONE, error)),
            Opened::Open => Err(Broken::new(ALONE, "another process opened it")),
        }
    }

    /// Changes the file before it is opened. Whether anything was done.
    pub fn harm(&self, act: Act) -> bool {
        let Street { fs, file, .. } = self;
        if fs.copy(file, SAVED).is_err() {
            return false;
        }
        self.harms().push((Some(fs.op_count()), usize::MAX));
        let done = match act {
            Act::Cut(part) => {
                let len = fs.read_file(file).map_or(0, |bytes| bytes.len() as u64);
                fs.truncate(file, len * part / 16)
            }
            Act::Elsewhere => {
                let place = PathBuf::from(format!("/far{}", fs.op_count()));
                let moved = fs.copy(file, &place).and_then(|()| fs.remove_all(file));
                moved.and_then(|()| fs.symlink(&place, file))
            }
            _ => return false,
        };
        settle(fs, self.dir());
        done.is_ok()
    }

    /// Puts the file back as it was before the harm.
    pub fn undo(&self) {
        let _ = self.fs.copy(SAVED, &self.file);
        settle(&self.fs, self.dir());
        self.survived();
    }

    /// The file was opened as it is, and nothing is missing.
    pub fn survived(&self) {
        let now = self.fs.op_count();
        let mut harms = self.harms();
        let open = harms.iter_mut().filter(|(_, until)| *until == usize::MAX);
        open.for_each(|(_, until)| *until = now);
    }
}

/// What became of an attempt to open what another process has open.
#[derive(Clone, Debug)]
pub enum Opened {
    /// It was refused, because the other one has it.
    Locked,
    /// It was refused for another reason.
    Refused(String),
    /// It was not refused.
    Open,
}

fn is_there(fs: &SimFs, path: impl AsRef<Path>) -> bool {
    let path = path.as_ref();
    fs.at(path).is_ok() || fs.read_file(path).is_ok() || fs.read_link(path).is_ok()
}

fn settle(fs: &SimFs, dir: &Path) {
    let _ = fs.settle(dir);
}

fn wait(micros: u64) {
    thread::sleep(Duration::from_micros(micros));
}
