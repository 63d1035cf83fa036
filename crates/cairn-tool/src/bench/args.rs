//! What `cairn bench` is asked.

use std::path::PathBuf;

use bytesize::ByteSize;

/// Measure how fast a log is in a directory
///
/// Makes logs in a directory of its own inside DIR, one after the other, and removes it. What else
/// is in DIR is not touched.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Directory to measure in; it need not hold a log
    pub(super) dir: PathBuf,
    /// How long one measurement takes
    #[arg(long, value_name = "S", default_value = "2", value_parser = seconds)]
    pub(super) seconds: f64,
    /// Threads that commit, one measurement for each number
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,8,64")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(super) threads: Vec<u16>,
    /// Sizes of records, one measurement for each
    #[arg(long, value_name = "SIZE,...", value_delimiter = ',', default_value = "100,1024,16384")]
    pub(super) size: Vec<ByteSize>,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
    /// Write a page with charts, in one file that needs nothing else
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
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
pub(super) const SIZE_MAX: ByteSize = ByteSize::mib(64);

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if seconds > 0.0 && seconds <= SECONDS_MAX => Ok(seconds),
        _ => Err(format!("a number above 0, at most {SECONDS_MAX}, is needed")),
    }
}
