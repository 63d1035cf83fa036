//! `cairn bench`: how fast a log is in a directory, beside what the device can do without one.

mod html;
mod measure;
mod report;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, anyhow};
use bytesize::ByteSize;

use crate::report::{Outcome, Status, UsageError};
use crate::{progress, scratch, signals};
use measure::{Figures, Meter, Mode};
use report::Report;

/// Measure how fast a log is in a directory
///
/// Makes logs in a directory of its own inside DIR, one after the other, and removes it. What else is in DIR is not touched.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Directory to measure in; it need not hold a log
    dir: PathBuf,
    /// How long one measurement takes
    #[arg(long, value_name = "S", default_value = "2", value_parser = seconds)]
    seconds: f64,
    /// Threads that commit, one measurement for each number
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,8,64")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1000))]
    threads: Vec<u16>,
    /// Sizes of records, one measurement for each
    #[arg(long, value_name = "SIZE,...", value_delimiter = ',', default_value = "100,1024,16384")]
    size: Vec<ByteSize>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Write a page with charts, in one file that needs nothing else
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

const HELP: &str = "\
Examples:
  cairn bench .
  cairn bench /var/lib/app --report bench.html
  cairn bench . --threads 1,4,16 --size 64,4KiB --seconds 10
  cairn bench . --json | jq '.cells[] | {mode, threads, size, records_per_second}'

What is measured:
  raw      no log: 4 KiB written over zeros and made durable, by one thread, through the page cache
           and past it; what one thread can hope for
  durable  every record is waited for until it is durable; threads share barriers
  tickets  one thread asks for durability and goes on, up to 4096 records on their way
  append   one thread appends; nobody asks for durability
  replay   reading that again from the page cache, with every checksum

  PER BARRIER is how many records became durable with one barrier, VS RAW the records per second
  over the faster raw loop. Figures of two runs compare only if the machine had nothing else to do.

It needs up to 1 GiB of space for a moment, and with the defaults about a minute.

Exit codes:
  0  measured, also when SIGINT ended it early: what was measured by then is printed
  1  failed: see the message
  2  wrong usage";

const SECONDS_MAX: f64 = 3600.0;
/// What a log takes by default.
const SIZE_MAX: ByteSize = ByteSize::mib(64);

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if seconds > 0.0 && seconds <= SECONDS_MAX => Ok(seconds),
        _ => Err(format!("a number above 0, at most {SECONDS_MAX}, is needed")),
    }
}

pub(crate) fn run(args: &Args) -> Outcome {
    check(args)?;
    let stop = signals::stop_flag().context("cannot handle signals")?;
    signals::survive_file_size_limit().context("cannot handle signals")?;
    let scratch = scratch::create(&args.dir, "cairn-bench")?;
    let cells = measure(args, scratch.path(), &stop)?;
    scratch::remove(scratch)?;
    let is_whole = !stop.load(Ordering::Relaxed);
    if cells.is_empty() {
        return Err(anyhow!("ended by a signal before anything was measured; nothing was left behind"));
    }
    let report = Report::new(args, cells, is_whole);
    if let Some(path) = &args.report {
        std::fs::write(path, html::page(&report)?).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if args.json {
        crate::report::print_json(&report)?;
    } else {
        crate::report::print(&report.to_text(args.report.as_deref()))?;
    }
    Ok(Status::Done)
}

/// What would otherwise fail only after everything was measured.
fn check(args: &Args) -> anyhow::Result<()> {
    if args.size.iter().any(|size| *size > SIZE_MAX) {
        return Err(UsageError(format!("--size must be {SIZE_MAX} or less")).into());
    }
    if let Some(path) = &args.report {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if path.is_dir() || !parent.is_dir() {
            return Err(UsageError(format!("--report {} is not a file in a directory", path.display())).into());
        }
    }
    Ok(())
}

/// One thing to measure.
#[derive(Clone, Copy, Debug)]
struct Cell {
    mode: Mode,
    threads: usize,
    size: usize,
}

impl Cell {
    /// Everything the arguments ask for, in order; [`Mode::Append`] brings its [`Mode::Replay`] along.
    fn all(args: &Args) -> anyhow::Result<Vec<Self>> {
        let of = |mode, threads, size| Cell { mode, threads, size };
        let sizes = args.size.iter().map(|size| usize::try_from(size.as_u64())).collect::<Result<Vec<_>, _>>()?;
        let mut cells = vec![of(Mode::RawBuffered, 1, 0), of(Mode::RawDirect, 1, 0)];
        cells.extend(args.threads.iter().flat_map(|n| sizes.iter().map(move |s| of(Mode::Durable, (*n).into(), *s))));
        cells.extend(sizes.iter().map(|size| of(Mode::Tickets, 1, *size)));
        cells.extend(sizes.iter().map(|size| of(Mode::Append, 1, *size)));
        Ok(cells)
    }

    fn measure(self, meter: &Meter<'_>) -> anyhow::Result<Vec<Figures>> {
        Ok(match self.mode {
            Mode::RawBuffered => vec![meter.raw_buffered()?],
            Mode::RawDirect => meter.raw_direct()?.into_iter().collect(),
            Mode::Durable => vec![meter.durable(self.threads, self.size)?],
            Mode::Tickets => vec![meter.tickets(self.size)?],
            Mode::Append | Mode::Replay => meter.append_and_replay(self.size)?.into(),
        })
    }

    fn to_text(self) -> String {
        let threads = crate::report::count(self.threads as u64, "thread");
        match self.mode.is_raw() {
            true => self.mode.name().to_owned(),
            false => format!("{}, {threads}, {}", self.mode.name(), ByteSize(self.size as u64)),
        }
    }
}

/// Measures one cell after the other; what a signal cut short is left out.
fn measure(args: &Args, dir: &Path, stop: &AtomicBool) -> anyhow::Result<Vec<Figures>> {
    let cells = Cell::all(args)?;
    let meter = Meter { dir, seconds: args.seconds, stop };
    let bar = progress::count(Some(cells.len() as u64), "measuring");
    let mut measured: Vec<Figures> = Vec::new();
    for cell in cells {
        bar.set_message(cell.to_text());
        let figures = cell.measure(&meter).with_context(|| format!("measuring {}", cell.to_text()));
        if stop.load(Ordering::Relaxed) {
            break;
        }
        measured.extend(figures.inspect_err(|_| bar.finish_and_clear())?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let raw = measured.iter().filter(|figures| figures.mode.is_raw());
    let raw = raw.map(|figures| figures.records_per_second).fold(0.0, f64::max);
    for figures in measured.iter_mut().filter(|figures| figures.mode.is_durable() && !figures.mode.is_raw()) {
        figures.ratio_to_raw = (raw > 0.0).then(|| figures.records_per_second / raw);
    }
    Ok(measured)
}
