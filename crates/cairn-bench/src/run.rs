//! The parent: which cells, in which order, one child process for each measurement.

use std::fs;
use std::io::{Read, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::cell::{Cell, Key, Mode, Phase, parse_latency};
use crate::cli::{self, Cli, RunArgs};
use crate::device::Facts;
use crate::drive::{self, Answer, RESULT_MARK};
use crate::measure::Measurement;
use crate::priority::Scheduling;
use crate::proof::Proof;
use crate::prove;
use crate::report::{Recorded, Report, SubjectFacts};
use crate::subject::Entry;
use crate::subjects;

/// A child that takes this much longer than it should hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// Does what the command line asks for.
pub(crate) fn main(cli: Cli) -> Result<()> {
    match cli.command {
        cli::Command::Run(args) => run(&args),
        cli::Command::Prove(args) => prove::main(&args),
        cli::Command::List => list(),
        cli::Command::Cell { cell } => drive::child(&cell),
    }
}

fn list() -> Result<()> {
    let mut out = std::io::stdout().lock();
    for entry in subjects::ENTRIES {
        let version = entry.version().unwrap_or("-");
        writeln!(
            out,
            "{:<18} {:<5} {:<16} {}",
            entry.name,
            entry.side.name(),
            version,
            entry.about
        )?;
    }
    Ok(())
}

/// All cells without their subjects, in the order of the tables.
fn keys(args: &RunArgs) -> Result<Vec<Key>> {
    let mut modes = Vec::new();
    for text in &args.modes {
        match text.as_str() {
            "open" => modes.extend([Mode::OpenClean, Mode::OpenCrashed]),
            text => modes.push(text.parse()?),
        }
    }
    let latencies =
        args.barrier_latency.iter().map(|l| parse_latency(l)).collect::<Result<Vec<_>>>()?;
    let mut keys = Vec::new();
    for mode in modes {
        let threads = if mode.single_threaded() { &[1][..] } else { &args.threads };
        for &barrier_latency_us in latencies.iter().filter(|l| **l == 0 || mode.acknowledges()) {
            for &threads in threads {
                for &size in &args.sizes {
                    ensure!(threads > 0 && size > 0, "threads and sizes begin at 1");
                    keys.push(Key { mode, threads, size, barrier_latency_us });
                }
            }
        }
    }
    Ok(keys)
}

fn run(args: &RunArgs) -> Result<()> {
    let keys = keys(args)?;
    let entries = subjects::select(&args.subjects)?;
    ensure!(
        args.runs > 0 && args.seconds > 0.0 && args.warmup >= 0.0,
        "runs and seconds must be positive"
    );
    let dir = args.dir.canonicalize().context("the directory to measure in")?;
    let mut report = Report {
        facts: Facts::gather(&dir)?,
        seconds: args.seconds,
        warmup: args.warmup,
        runs: args.runs,
        segment_bytes: args.segment_bytes,
        keep_bytes: args.keep_bytes.unwrap_or(args.segment_bytes * 4),
        open_bytes: args.open_bytes,
        empty_cache: args.empty_cache,
        free_blocks: args.free_blocks,
        subjects: Vec::new(),
        measurements: Vec::new(),
    };
    let scheduling = Scheduling::current();
    scheduling.rise()?;
    for entry in &entries {
        let acknowledges = keys.iter().any(|key| key.mode.acknowledges() && entry.can(key.mode));
        let provable = acknowledges && !args.no_prove && entry.provable().is_some();
        let proof = if provable {
            prove::proof(entry, &dir, scheduling, prove::COMMITS, None)
        } else {
            Proof::not_looked()
        };
        report.subjects.push(SubjectFacts::new(entry, proof));
    }
    for run in 0..args.runs {
        for key in &keys {
            // Nobody is always the first one, or always right after the one that leaves the most
            // behind.
            for at in 0..entries.len() {
                let entry = entries[(at + run) % entries.len()];
                if !entry.can(key.mode) || (key.barrier_latency_us > 0 && !entry.slowable) {
                    continue;
                }
                let result = measure(args, &dir, scheduling, entry, *key);
                progress(run, args.runs, entry, key, &result);
                let result = result.map_err(|error| format!("{error:#}"));
                report.measurements.push(Recorded {
                    subject: entry.name.to_owned(),
                    key: *key,
                    run,
                    result,
                });
            }
        }
        save(args, &report)?;
    }
    if args.markdown.is_none() {
        println!("{}", report.markdown());
    }
    Ok(())
}

fn save(args: &RunArgs, report: &Report) -> Result<()> {
    if let Some(path) = &args.json {
        fs::write(path, serde_json::to_string_pretty(report)?)
            .context("writing the JSON report")?;
    }
    if let Some(path) = &args.markdown {
        fs::write(path, report.markdown()).context("writing the Markdown report")?;
    }
    Ok(())
}

fn progress(run: usize, runs: usize, entry: &Entry, key: &Key, result: &Result<Measurement>) {
    let what = match result {
        Ok(m) => format!("{:>12.0}/s  p50 {:>9.1} µs", m.per_second, m.latency_us.p50),
        Err(error) => format!("failed: {error:#}"),
    };
    eprintln!("{}/{runs}  {:<40} {:<18} {what}", run + 1, key.to_string(), entry.name);
}

/// One measurement: a fresh directory, what has to be prepared, the child, and nothing left behind.
fn measure(
    args: &RunArgs,
    dir: &Path,
    scheduling: Scheduling,
    entry: &Entry,
    key: Key,
) -> Result<Measurement> {
    let fresh = tempfile::Builder::new()
        .prefix("cairn-bench-")
        .tempdir_in(dir)
        .context("a fresh directory")?;
    let mut cell = Cell {
        subject: entry.name.to_owned(),
        mode: key.mode,
        threads: key.threads,
        size: key.size,
        barrier_latency_us: key.barrier_latency_us,
        warmup: args.warmup,
        seconds: args.seconds,
        max_bytes: match key.mode {
            Mode::Replay => args.replay_bytes,
            Mode::Soak => args.soak_bytes,
            mode if mode.opens() => args.open_bytes,
            _ => args.max_bytes,
        },
        segment_bytes: args.segment_bytes,
        keep_bytes: args.keep_bytes.unwrap_or(args.segment_bytes * 4),
        expected_records: if key.mode == Mode::HeapOpen { args.free_blocks } else { 0 },
        dir: fresh.path().to_owned(),
        phase: Phase::Measure,
    };
    if key.mode.prepared() {
        let prepare = Cell { phase: Phase::Prepare, ..cell.clone() };
        let Answer::Prepared(records) =
            ask(&prepare, scheduling, PATIENCE + drive::at_most(cell.max_bytes))?
        else {
            bail!("the preparation answered something else");
        };
        cell.expected_records = records;
        if args.empty_cache && key.mode.opens() {
            empty_cache(&cell.dir).context("emptying the page cache")?;
        }
    }
    let long = key.mode.prepared() || key.mode == Mode::Soak;
    let patience = if long { PATIENCE + drive::at_most(cell.max_bytes) } else { PATIENCE };
    let patience = patience + Duration::from_secs_f64(args.seconds + args.warmup);
    let Answer::Measured(measurement) = ask(&cell, scheduling, patience)? else {
        bail!("the measurement answered something else");
    };
    fresh.close().context("removing the directory of the measurement")?;
    Ok(*measurement)
}

/// Drops what the page cache holds of the files in a directory. Names and inodes stay in memory.
fn empty_cache(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            empty_cache(&entry.path())?;
        } else {
            let file = fs::File::open(entry.path())?;
            // What is not written yet would stay.
            file.sync_all()?;
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
    }
    Ok(())
}

/// Runs a child for one phase of a cell.
fn ask(cell: &Cell, scheduling: Scheduling, patience: Duration) -> Result<Answer> {
    let exe = std::env::current_exe().context("the path of this program")?;
    let mut command =
        if cell.mode.spins() { scheduling.normal_command(exe) } else { scheduling.command(exe) };
    command.arg("cell").arg(serde_json::to_string(cell)?);
    environment(&mut command, cell);
    let (stdout, stderr) = output(command, patience)?;
    let answer = stdout.lines().rev().find_map(|line| line.strip_prefix(RESULT_MARK));
    let answer = answer.with_context(|| format!("no answer: {}", last_line(&stderr)))?;
    Ok(serde_json::from_str(answer)?)
}

/// What some peers take from the environment, and from nowhere else.
pub(crate) fn environment(command: &mut Command, cell: &Cell) {
    command.env("WALRUS_DATA_DIR", cell.dir.join("walrus")).env("WALRUS_QUIET", "1");
}

fn last_line(text: &str) -> &str {
    text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("nothing on stderr")
}

/// Runs a command to its end; kills it when that takes too long. Returns what it printed.
pub(crate) fn output(mut command: Command, patience: Duration) -> Result<(String, String)> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.context("starting a child process")?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let status = wait(&mut child, patience);
    let text = |thread: thread::JoinHandle<String>| thread.join().unwrap_or_default();
    let (stdout, stderr) = (text(stdout), text(stderr));
    match status? {
        Some(status) if status.success() => Ok((stdout, stderr)),
        Some(status) => bail!("{status}: {}", last_line(&stderr)),
        None => bail!("hung and was killed: {}", last_line(&stderr)),
    }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read until an error is what there is.
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// `None` when it had to be killed.
fn wait(child: &mut Child, patience: Duration) -> Result<Option<std::process::ExitStatus>> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if begin.elapsed() > patience {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(20));
    }
}
