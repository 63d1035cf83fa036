//! `cairn bench`: how fast a log is in a directory, beside what the device can do without one.

mod args;
mod html;
mod measure;
mod report;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, anyhow};
use bytesize::ByteSize;

use crate::report::{Outcome, Status, UsageError};
use crate::{progress, scratch, signals};
pub(crate) use args::Args;
use args::SIZE_MAX;
use measure::{Figures, Meter, Mode};
use report::Report;

pub(crate) fn run(args: &Args) -> Outcome {
    check(args)?;
    let stop = signals::stop_flag().context("cannot handle signals")?;
    signals::survive_file_size_limit().context("cannot handle signals")?;
    let scratch = scratch::create(&args.dir, "cairn-bench")?;
    let cells = measure(args, scratch.path(), &stop)?;
    scratch::remove(scratch)?;
    let is_whole = !stop.load(Ordering::Relaxed);
    if cells.is_empty() {
        return Err(anyhow!(
            "ended by a signal before anything was measured; nothing was left behind"
        ));
    }
    let report = Report::new(args, cells, is_whole);
    if let Some(path) = &args.report {
        std::fs::write(path, html::page(&report)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
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
        let parent =
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if path.is_dir() || !parent.is_dir() {
            return Err(UsageError(format!(
                "--report {} is not a file in a directory",
                path.display()
            ))
            .into());
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
    /// Everything the arguments ask for, in order; [`Mode::Append`] brings its [`Mode::Replay`]
    /// along.
    fn all(args: &Args) -> anyhow::Result<Vec<Self>> {
        let of = |mode, threads, size| Cell { mode, threads, size };
        let sizes = args
            .size
            .iter()
            .map(|size| usize::try_from(size.as_u64()))
            .collect::<Result<Vec<_>, _>>()?;
        let mut cells = vec![of(Mode::RawBuffered, 1, 0), of(Mode::RawDirect, 1, 0)];
        cells.extend(
            args.threads
                .iter()
                .flat_map(|n| sizes.iter().map(move |s| of(Mode::Durable, (*n).into(), *s))),
        );
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
    for figures in
        measured.iter_mut().filter(|figures| figures.mode.is_durable() && !figures.mode.is_raw())
    {
        figures.ratio_to_raw = (raw > 0.0).then(|| figures.records_per_second / raw);
    }
    Ok(measured)
}
