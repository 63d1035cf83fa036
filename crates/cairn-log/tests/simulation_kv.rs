//! A user's program: a key-value store over the log, with four threads that set keys and one that
//! compacts. It is tested as the guide of `cairn-sim` says, and two bugs that are put into it are
//! found.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests say what they found")]
#![allow(clippy::cast_possible_truncation, reason = "keys and values are bytes")]

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use cairn_io::Fs;
use cairn_log::{Log, Result};
use cairn_sim::sync::Mutex;
use cairn_sim::{Broken, Dice, History, Script, Simulation, Workload, World, call};

/// What is wrong with the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    /// A key is acknowledged when it is appended.
    EarlyAcknowledgement,
    /// The snapshot is taken before the lock is held for its append.
    SnapshotOutsideOfTheLock,
}

/// The program under test.
struct Store {
    log: Log,
    map: Mutex<BTreeMap<u8, u8>>,
    bug: Bug,
}

impl Store {
    fn open(fs: Arc<dyn Fs>, bug: Bug) -> Result<Self> {
        let log = Log::options().segment_size(8 << 10).buffer_size(4 << 10).fs(fs).open("/kv")?;
        let mut map = BTreeMap::new();
        for record in log.reader(log.head_lsn())? {
            let record = record?;
            let (&kind, pairs) = record.payload().split_first().unwrap_or((&0, &[]));
            if kind == b's' {
                map.clear();
            }
            map.extend(pairs.chunks_exact(2).map(|pair| (pair[0], pair[1])));
        }
        Ok(Self { log, map: Mutex::new(map), bug })
    }

    /// Durable on return.
    fn set(&self, key: u8, value: u8) -> Result<()> {
        let lsn = {
            let mut map = self.map.lock().unwrap();
            let lsn = self.log.append(&[b'k', key, value])?;
            map.insert(key, value);
            lsn
        };
        if self.bug == Bug::EarlyAcknowledgement { Ok(()) } else { self.log.sync_to(lsn) }
    }

    /// Writes everything once more, and drops what came before.
    fn compact(&self) -> Result<()> {
        let mut map = self.map.lock().unwrap();
        let pairs = map.iter().flat_map(|(key, value)| [*key, *value]);
        let snapshot: Vec<u8> = std::iter::once(b's').chain(pairs).collect();
        if self.bug == Bug::SnapshotOutsideOfTheLock {
            drop(map);
            map = self.map.lock().unwrap();
        }
        let lsn = self.log.append(&snapshot)?;
        self.log.sync_to(lsn)?;
        self.log.truncate_before(lsn)?;
        drop(map);
        Ok(())
    }
}

/// Sets the thread's key to a value, or compacts.
#[derive(Clone, Copy, Debug)]
enum Call {
    Set(u8, u8),
    Compact,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Call::Set(key, value) => write!(f, "set {key} {value}"),
            Call::Compact => write!(f, "compact"),
        }
    }
}

impl FromStr for Call {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        match words[..] {
            ["compact"] => Ok(Call::Compact),
            ["set", key, value] => match (key.parse(), value.parse()) {
                (Ok(key), Ok(value)) => Ok(Call::Set(key, value)),
                _ => Err(format!("no numbers in {text:?}")),
            },
            _ => Err(format!("{text:?} is no call")),
        }
    }
}

/// What is known of each key: only one thread sets it, so its values follow each other.
type Keys = BTreeMap<u8, History<u8>>;

struct Sets(Bug);

impl Workload for Sets {
    type Call = Call;
    type Told = Keys;

    fn name(&self) -> String {
        format!("key-value store, {:?}", self.0)
    }

    fn script(&self, dice: &mut Dice, _life: usize) -> Script<Call> {
        let setter = |dice: &mut Dice, key| {
            (0..4).map(|_| Call::Set(key, 1 + dice.below(255) as u8)).collect()
        };
        let script = (1..=4).fold(Script::new(), |script, key| {
            script.part(format!("setter{key}"), setter(dice, key))
        });
        script.part("compactor", vec![Call::Compact; 2])
    }

    fn live(
        &self,
        world: &World,
        script: &Script<Call>,
        mut told: Keys,
    ) -> std::result::Result<Keys, Broken> {
        let fs = world.fs();
        let usable = |error| Broken::new("the store can be used", format!("{error:?}"));
        let store = Arc::new(Store::open(Arc::new(fs.clone()), self.0).map_err(usable)?);
        for key in 1..=4 {
            let found = store.map.lock().unwrap().get(&key).copied().unwrap_or_default();
            let known = told.entry(key).or_default();
            known.check(&found)?;
            known.opened(found, fs.op_count());
        }
        let told = Arc::new(std::sync::Mutex::new(told));
        let threads = script.parts.iter().cloned().map(|part| {
            let (store, told, fs) = (store.clone(), told.clone(), fs.clone());
            world.spawn(part.name, move || {
                for what in part.calls {
                    match what {
                        Call::Set(key, value) => {
                            let known = |change: &mut dyn FnMut(&mut History<u8>)| {
                                change(told.lock().unwrap().entry(key).or_default());
                            };
                            let mut number = 0;
                            known(&mut |key| number = key.applied(value, fs.op_count()));
                            call("set", || what.to_string(), || store.set(key, value)).unwrap();
                            known(&mut |key| key.durable(number, fs.op_count()));
                        }
                        Call::Compact => {
                            call("compact", || what.to_string(), || store.compact()).unwrap();
                        }
                    }
                }
            })
        });
        for thread in threads.collect::<Vec<_>>() {
            let _ = thread.join();
        }
        let told = told.lock().unwrap().clone();
        Ok(told)
    }
}

#[test]
fn the_program_keeps_what_it_acknowledged() {
    println!("{}", Simulation::new(Sets(Bug::None)).budget(40).run().unwrap());
}

#[test]
fn two_bugs_are_found() {
    for bug in [Bug::EarlyAcknowledgement, Bug::SnapshotOutsideOfTheLock] {
        let found = Simulation::new(Sets(bug)).runs(400).first_failure();
        let (run, broken) = found.unwrap_or_else(|| panic!("{bug:?} is not found"));
        println!("{bug:?}: run {run}: {broken}");
        assert_eq!(broken.property, cairn_sim::SERIAL);
    }
}
