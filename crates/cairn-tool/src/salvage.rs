//! `cairn salvage`: prints everything of a log that verifies, past all damage. Reads only.

use std::io;
use std::path::PathBuf;

use anyhow::Context as _;
use cairnlog::{Corruption, EndState, Error, Gap, Inspection, Lsn};
use serde::Serialize;

use crate::look;
use crate::report::{self, LostError, Outcome, Status};
use crate::sink::{Format, Sink};

/// Print every record that verifies, past all damage
///
/// Goes on behind whatever is damaged, missing or foreign, also where `cairn cat` fails. Each range
/// that is lost is a line on standard error. Takes no lock and changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Directory of the log
    dir: PathBuf,
    /// Form of the output
    #[arg(long, value_enum, default_value_t = Format::Lines)]
    format: Format,
    /// The same as --format json; each range that is lost is an object, too: {"lost": {..}}
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

const HELP: &str = "\
Examples:
  cairn salvage ./log > records.txt 2> lost.txt
  cairn salvage ./log --json | jq -c 'select(.lost)'
  cairn salvage ./log --format framed | cairn append ./new --format framed

To keep positions and numbers, repair the log instead: `cairn repair`.

Exit codes:
  0  nothing is lost: what was printed is the log
  1  could not be read
  4  something is lost; everything else was printed";

/// A range that is lost, as JSON.
#[derive(Serialize)]
struct Loss {
    lost: Lost,
}

#[derive(Debug, Serialize)]
pub(crate) struct Lost {
    from_lsn: u64,
    to_lsn: u64,
    bytes: u64,
    /// Number of the first record that is lost, if it is known.
    first_seq: Option<u64>,
    /// How many records are lost, if that is known.
    records: Option<u64>,
    message: String,
}

impl Lost {
    pub(crate) fn of_gap(gap: &Gap) -> Self {
        Lost {
            from_lsn: gap.from.0,
            to_lsn: gap.to.0,
            bytes: gap.bytes(),
            first_seq: Some(gap.first_seq.0),
            records: gap.records(),
            message: gap.to_string(),
        }
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    fn of_damage(damage: &Corruption) -> Self {
        let lost = damage.lost;
        let to = lost.map_or(damage.resumes, |lost| Some(lost.to)).unwrap_or(damage.lsn);
        Lost {
            from_lsn: damage.lsn.0,
            to_lsn: to.0,
            bytes: to.0.saturating_sub(damage.lsn.0),
            first_seq: lost.and_then(|lost| lost.first_seq).map(|seq| seq.0),
            records: lost.and_then(|lost| lost.records),
            message: damage.to_string(),
        }
    }
}

/// What was printed, and what could not be.
#[derive(Default)]
struct Tally {
    printed: u64,
    ranges: u64,
    bytes: u64,
    records: Option<u64>,
}

impl Tally {
    fn lose(&mut self, lost: &Lost) {
        if lost.records == Some(0) {
            return;
        }
        let before = if self.ranges == 0 { Some(0) } else { self.records };
        self.records = before.zip(lost.records).map(|(a, b)| a + b);
        self.ranges += 1;
        self.bytes += lost.bytes;
    }
}

pub(crate) fn run(args: &Args) -> Outcome {
    let log = Inspection::salvage(&args.dir).map_err(|error| look::missing(&args.dir, error))?;
    let json = args.json || args.format == Format::Json;
    let mut sink = Sink::stdout(if args.json { Format::Json } else { args.format });
    let is_torn = matches!(log.end_state(), EndState::Torn { .. });
    for problem in log.problems() {
        report::note(&problem.to_string());
    }
    let mut tally = Tally::default();
    let mut behind_end = Vec::new();
    let told = |lost: Lost, sink: &mut Sink, tally: &mut Tally| -> io::Result<()> {
        tally.lose(&lost);
        report::note(&format!("lost: {}", lost.message));
        if json { sink.write_json(&Loss { lost }) } else { Ok(()) }
    };
    let printed = (|| -> io::Result<anyhow::Result<()>> {
        let leading = log.gaps().iter().filter(|gap| gap.to <= log.head_lsn());
        for gap in leading {
            told(Lost::of_gap(gap), &mut sink, &mut tally)?;
        }
        let mut reader = match log.reader(Lsn::START) {
            Ok(reader) => reader.past_damage(),
            Err(error) => return Ok(Err(error.into())),
        };
        loop {
            match reader.next_record() {
                Ok(Some(record)) => {
                    for damage in behind_end.drain(..) {
                        told(Lost::of_damage(&damage), &mut sink, &mut tally)?;
                    }
                    sink.write(&record)?;
                }
                Ok(None) => return Ok(Ok(())),
                Err(Error::Gap(gap)) => {
                    told(Lost::of_gap(&gap), &mut sink, &mut tally)?;
                    continue;
                }
                // The beginning of an unfinished write, if no record follows.
                Err(Error::Corrupt(damage)) if is_torn && damage.lsn >= log.end_lsn() => {
                    behind_end.push(damage);
                    continue;
                }
                Err(Error::Corrupt(damage)) => {
                    told(Lost::of_damage(&damage), &mut sink, &mut tally)?;
                    continue;
                }
                Err(error) => return Ok(Err(error.into())),
            }
            tally.printed += 1;
        }
    })();
    match printed {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Status::Done),
        printed => printed.context("cannot write to standard output")??,
    }
    sink.finish()?;
    finish(&tally)
}

fn finish(tally: &Tally) -> Outcome {
    if tally.ranges == 0 {
        return Ok(Status::Done);
    }
    let records = match tally.records {
        Some(records) => report::count(records, "record"),
        None => "an unknown number of records".to_owned(),
    };
    Err(LostError(format!(
        "{} printed; {records} in {} of {} are lost",
        report::count(tally.printed, "record"),
        report::count(tally.ranges, "range"),
        report::count(tally.bytes, "byte"),
    ))
    .into())
}
