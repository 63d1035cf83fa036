//! Who really syncs: commits under a system-call tracer, and a look at what happened before each
//! acknowledgement.
//!
//! A child commits records one after the other. Each carries a text with its number, and after each
//! acknowledgement the child writes a mark to `/dev/null`. In the trace a record is *covered* when,
//! before its mark, a write with its text returned and afterwards a barrier on the same file began
//! and succeeded, or the write itself was synchronous. Bytes that reach a file through a mapping or
//! an io_uring are not seen: then it is counted before how many marks *any* barrier succeeded since
//! the mark before.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::cell::{Cell, Phase};
use crate::cli::ProveArgs;
use crate::drive::{prove_mark, prove_record};
use crate::priority::Scheduling;
use crate::proof::{Proof, Verdict};
use crate::subject::Entry;
use crate::{device, run, subjects};

/// Commits looked at unless told otherwise.
pub(crate) const COMMITS: usize = 200;

const CALLS: &str = "open,openat,openat2,creat,fsync,fdatasync,msync,sync_file_range,sync,syncfs,\
                     write,pwrite64,writev,pwritev,pwritev2,io_uring_enter";

/// `cairn-bench prove`.
pub(crate) fn main(args: &ProveArgs) -> Result<()> {
    let dir = args.dir.canonicalize().context("the directory to use")?;
    let scheduling = Scheduling::current();
    scheduling.rise()?;
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "| subject | version | covering barrier | covered | barriers | directory synced | device \
         flushes/commit |"
    )?;
    writeln!(out, "|---|---|---|---:|---|---|---:|")?;
    for entry in subjects::select(&args.subjects)? {
        if entry.provable().is_none() {
            continue;
        }
        let proof = proof(entry, &dir, scheduling, args.commits, args.traces.as_deref());
        let barriers = proof
            .barriers
            .iter()
            .map(|(call, n)| format!("{n} {call}"))
            .collect::<Vec<_>>()
            .join(", ");
        let directory = proof.directory_synced.map_or("–", |yes| if yes { "yes" } else { "no" });
        writeln!(
            out,
            "| {} | {} | {} | {} of {} | {barriers} | {directory} | {:.2} |",
            entry.name,
            entry.version().unwrap_or(""),
            proof.short(),
            proof.covered,
            proof.commits,
            proof.device_flushes
        )?;
        out.flush()?;
    }
    Ok(())
}

/// Looks at one subject. Failing to look is an answer too.
pub(crate) fn proof(
    entry: &Entry,
    dir: &Path,
    scheduling: Scheduling,
    commits: usize,
    traces: Option<&Path>,
) -> Proof {
    look(entry, dir, scheduling, commits, traces)
        .unwrap_or_else(|error| Proof::unknown(Some(format!("{error:#}"))))
}

fn look(
    entry: &Entry,
    dir: &Path,
    scheduling: Scheduling,
    commits: usize,
    traces: Option<&Path>,
) -> Result<Proof> {
    let fresh = tempfile::Builder::new()
        .prefix("cairn-bench-")
        .tempdir_in(dir)
        .context("a fresh directory")?;
    let data = fresh.path().join("data");
    fs::create_dir(&data)?;
    let cell = Cell {
        subject: entry.name.to_owned(),
        mode: entry.provable().context("acknowledges nothing")?,
        threads: 1,
        size: 100,
        barrier_latency_us: 0,
        warmup: 0.0,
        seconds: 0.0,
        max_bytes: 0,
        segment_bytes: 64 << 20,
        keep_bytes: 256 << 20,
        expected_records: 0,
        dir: data.clone(),
        phase: Phase::Prove(commits),
    };
    let exe = std::env::current_exe().context("the path of this program")?;
    let trace = fresh.path().join("trace");
    let has_strace = Command::new("strace").arg("-V").output().is_ok_and(|o| o.status.success());
    let mut command =
        scheduling.normal_command(if has_strace { OsStr::new("strace") } else { exe.as_os_str() });
    if has_strace {
        command
            .args(["-f", "-y", "-qq", "-s", "131072", "-e"])
            .arg(format!("trace={CALLS}"))
            .arg("-o")
            .arg(&trace)
            .arg(&exe);
    }
    command.arg("cell").arg(serde_json::to_string(&cell)?);
    run::environment(&mut command, &cell);
    let flushes = || -> u64 {
        let stat =
            device::stat_file(dir).and_then(|s| fs::read_to_string(s).ok()).unwrap_or_default();
        stat.split_whitespace().nth(15).and_then(|f| f.parse().ok()).unwrap_or(0)
    };
    let before = flushes();
    run::output(command, Duration::from_secs(120))?;
    let device_flushes = (flushes() - before) as f64 / commits as f64;
    if !has_strace {
        let verdict = if device_flushes >= 1.0 { Verdict::FlushEach } else { Verdict::No };
        return Ok(Proof { verdict, commits, device_flushes, ..Proof::unknown(None) });
    }
    let text = String::from_utf8_lossy(&fs::read(&trace).context("the trace")?).into_owned();
    if let Some(traces) = traces {
        fs::create_dir_all(traces)?;
        fs::write(traces.join(format!("{}.strace", entry.name)), &text)?;
    }
    let found = Trace::parse(&text, &data, commits);
    fresh.close()?;
    let verdict = match (found.covered, found.preceded) {
        (covered, _) if covered == commits => Verdict::Covering,
        (0, preceded) if preceded == commits => Verdict::BarrierEach,
        // An io_uring may sync without being seen to.
        (0, 0) if found.uses_ring && device_flushes >= 1.0 => Verdict::FlushEach,
        _ => Verdict::No,
    };
    let mut barriers: Vec<_> = found.barriers.into_iter().collect();
    barriers.sort();
    Ok(Proof {
        verdict,
        commits,
        covered: found.covered,
        preceded: found.preceded,
        barriers,
        directory_synced: Some(found.directory_synced),
        device_flushes,
        why: None,
    })
}

/// What a trace showed.
#[derive(Default)]
struct Trace {
    covered: usize,
    preceded: usize,
    barriers: HashMap<String, usize>,
    directory_synced: bool,
    uses_ring: bool,
}

/// A call that is under way in one thread.
struct Pending {
    call: String,
    args: String,
    /// When it began, counted in lines.
    began: usize,
}

impl Trace {
    fn parse(text: &str, data: &Path, commits: usize) -> Trace {
        let mut trace = Trace::default();
        let mut pending: HashMap<&str, Pending> = HashMap::new();
        let mut follower = Follower::new(data);
        for (line, text) in text.lines().enumerate() {
            let Some((thread, rest)) = text.split_once(' ') else {
                continue;
            };
            let rest = rest.trim_start();
            if let Some(resumed) = rest.strip_prefix("<... ") {
                if let (Some(mut call), Some((_, tail))) =
                    (pending.remove(thread), resumed.split_once(" resumed>"))
                {
                    call.args.push_str(tail);
                    follower.finished(&call, line, &mut trace, commits);
                }
            } else if let Some((call, args)) = rest.split_once('(') {
                let unfinished = args.strip_suffix("<unfinished ...>");
                let call = Pending {
                    call: call.to_owned(),
                    args: unfinished.unwrap_or(args).to_owned(),
                    began: line,
                };
                if unfinished.is_some() {
                    pending.insert(thread, call);
                } else {
                    follower.finished(&call, line, &mut trace, commits);
                }
            }
        }
        trace
    }
}

/// Follows what is written and synced, from acknowledgement to acknowledgement.
struct Follower<'a> {
    data: &'a Path,
    /// The next record to be acknowledged.
    next: usize,
    /// Files with writes that carried the next record, and the line in which the latest of them
    /// returned.
    carried: HashMap<String, usize>,
    /// Whether the next record is covered.
    covered: bool,
    /// Successful barriers since the last acknowledgement.
    barriers: usize,
    /// Descriptors whose writes are synchronous, by number (a file may be renamed while it is
    /// open), and what to call the writes.
    synchronous: HashMap<String, &'static str>,
    /// Directories in which a file was created.
    changed_directories: HashSet<String>,
}

impl<'a> Follower<'a> {
    fn new(data: &'a Path) -> Self {
        Follower {
            data,
            next: 0,
            carried: HashMap::new(),
            covered: false,
            barriers: 0,
            synchronous: HashMap::new(),
            changed_directories: HashSet::new(),
        }
    }

    /// A call has returned.
    fn finished(&mut self, call: &Pending, line: usize, trace: &mut Trace, commits: usize) {
        let Some((args, result)) = call.args.rsplit_once(" = ") else {
            return;
        };
        let failed = result.starts_with('-') || result.starts_with('?');
        let descriptor = args.split([',', ')']).next().unwrap_or_default().trim();
        let path = descriptor.split_once('<').map_or("", |(_, p)| p.trim_end_matches('>'));
        let ours = path.starts_with(&*self.data.to_string_lossy());
        match call.call.as_str() {
            "open" | "openat" | "openat2" | "creat" if !failed => self.opened(args, result),
            "fsync" | "fdatasync" | "sync" | "syncfs" | "msync" if !failed => {
                if call.call == "msync" && !args.contains("MS_SYNC") {
                    return;
                }
                self.barriers += 1;
                *trace.barriers.entry(call.call.clone()).or_default() += 1;
                let everything = matches!(call.call.as_str(), "sync" | "syncfs");
                self.covered |= self
                    .carried
                    .iter()
                    .any(|(file, line)| (everything || file == path) && call.began >= *line);
                if self.next == 0 && self.changed_directories.contains(path) {
                    trace.directory_synced = true;
                }
            }
            "io_uring_enter" => trace.uses_ring = true,
            "write" | "pwrite64" | "writev" | "pwritev" | "pwritev2" if !failed => {
                if path == "/dev/null" && args.contains(&prove_mark(self.next)) {
                    self.acknowledged(trace);
                } else if ours && self.next < commits {
                    let number = descriptor.split('<').next().unwrap_or_default();
                    let synchronous = match self.synchronous.get(number) {
                        Some(name) => Some(*name),
                        None if args.contains("RWF_DSYNC") => Some("dsync write"),
                        None if args.contains("RWF_SYNC") => Some("sync write"),
                        None => None,
                    };
                    let carries = args.contains(&prove_record(self.next));
                    if carries {
                        self.carried.insert(path.to_owned(), line);
                    }
                    if let Some(name) = synchronous {
                        self.barriers += 1;
                        *trace.barriers.entry(name.to_owned()).or_default() += 1;
                        self.covered |= carries;
                    }
                }
            }
            _ => {}
        }
    }

    fn opened(&mut self, args: &str, result: &str) {
        let descriptor = result.trim();
        let number = descriptor.split('<').next().unwrap_or_default();
        if args.contains("O_SYNC") {
            self.synchronous.insert(number.to_owned(), "sync write");
        } else if args.contains("O_DSYNC") {
            self.synchronous.insert(number.to_owned(), "dsync write");
        } else {
            self.synchronous.remove(number);
        }
        if (args.contains("O_CREAT") || !args.contains("O_"))
            && let Some((_, path)) = descriptor.split_once('<')
            && let Some(parent) = Path::new(path.trim_end_matches('>')).parent()
        {
            self.changed_directories.insert(parent.to_string_lossy().into_owned());
        }
    }

    fn acknowledged(&mut self, trace: &mut Trace) {
        trace.covered += usize::from(self.covered);
        trace.preceded += usize::from(self.barriers > 0);
        self.next += 1;
        self.carried.clear();
        self.covered = false;
        self.barriers = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered(lines: &[&str]) -> (usize, usize) {
        let trace = Trace::parse(&lines.join("\n"), Path::new("/d"), 1);
        (trace.covered, trace.preceded)
    }

    const MARK: &str = r#"7 write(4</dev/null>, "cairn-bench-acknowledged-0000000.", 33) = 33"#;
    const WRITE: &str = r#"7 pwrite64(3</d/log>, "xx cairn-bench-record-0000000.--", 32, 0) = 32"#;

    #[test]
    fn a_barrier_after_the_write_covers() {
        assert_eq!(covered(&[WRITE, "8 fdatasync(3</d/log>) = 0", MARK]), (1, 1));
    }

    #[test]
    fn a_barrier_that_began_before_the_write_returned_does_not() {
        let lines = [
            "8 fdatasync(3</d/log> <unfinished ...>",
            WRITE,
            "8 <... fdatasync resumed>) = 0",
            MARK,
        ];
        assert_eq!(covered(&lines), (0, 1));
    }

    #[test]
    fn a_barrier_on_another_file_a_failed_one_or_a_late_one_does_not() {
        assert_eq!(covered(&[WRITE, "7 fsync(5</d/other>) = 0", MARK]), (0, 1));
        assert_eq!(
            covered(&[WRITE, "7 fsync(3</d/log>) = -1 EIO (Input/output error)", MARK]),
            (0, 0)
        );
        assert_eq!(covered(&[WRITE, MARK, "7 fsync(3</d/log>) = 0"]), (0, 0));
    }

    #[test]
    fn a_file_that_was_renamed_stays_synchronous() {
        let name = "/d/next.tmp";
        let flags = "O_RDWR|O_CREAT|O_DSYNC, 0666";
        let open = &*format!(r#"7 openat(AT_FDCWD</>, "{name}", {flags}) = 3<{name}>"#);
        assert_eq!(covered(&[open, WRITE, MARK]), (1, 1));
        let reused = r#"7 openat(AT_FDCWD</>, "/d/log", O_RDWR) = 3</d/log>"#;
        assert_eq!(covered(&[open, reused, WRITE, MARK]), (0, 0));
    }

    #[test]
    fn a_synchronous_write_covers_itself() {
        let open = r#"7 openat(AT_FDCWD</>, "/d/log", O_RDWR|O_DSYNC|O_DIRECT) = 3</d/log>"#;
        assert_eq!(covered(&[open, WRITE, MARK]), (1, 1));
    }
}
