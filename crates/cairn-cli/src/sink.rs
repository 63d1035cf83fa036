//! Where `cairn cat` writes records to, and in which form.

use std::io::{self, BufWriter, Write};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail};
use cairnlog::RecordRef;
use clap::ValueEnum;
use serde::Serialize;

use crate::stack::to_hex;

/// How records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// The bytes and a newline
    Lines,
    /// A little-endian u32 length and the bytes
    Framed,
    /// The bytes as hexadecimal digits and a newline
    Hex,
    /// {"lsn", "end_lsn", "seq", "payload"} and a newline; "payload_hex" when the bytes are not UTF-8
    Json,
}

/// One record as JSON.
#[derive(Serialize)]
struct JsonRecord<'a> {
    lsn: u64,
    end_lsn: u64,
    seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_hex: Option<String>,
}

/// Buffered standard output, directly or through a decoder.
pub(crate) struct Sink {
    out: BufWriter<Box<dyn Write>>,
    format: Format,
    decoder: Option<Child>,
}

impl Sink {
    const BUFFER_SIZE: usize = 256 << 10;

    pub(crate) fn stdout(format: Format) -> Self {
        Sink { out: BufWriter::with_capacity(Self::BUFFER_SIZE, Box::new(io::stdout().lock())), format, decoder: None }
    }

    /// Starts `command` in a shell; it gets frames and prints what it makes of them.
    pub(crate) fn decoder(command: &str) -> anyhow::Result<Self> {
        let mut shell = if cfg!(windows) { Command::new("cmd") } else { Command::new("sh") };
        shell.arg(if cfg!(windows) { "/C" } else { "-c" }).arg(command).stdin(Stdio::piped());
        let mut child = shell.spawn().context("cannot start a shell for the decoder")?;
        let stdin = child.stdin.take().context("the decoder has no standard input")?;
        let out = BufWriter::with_capacity(Self::BUFFER_SIZE, Box::new(stdin) as Box<dyn Write>);
        Ok(Sink { out, format: Format::Framed, decoder: Some(child) })
    }

    pub(crate) fn write(&mut self, record: &RecordRef<'_>) -> io::Result<()> {
        let payload = record.payload();
        match self.format {
            Format::Lines => {
                self.out.write_all(payload)?;
                self.out.write_all(b"\n")
            }
            Format::Framed => {
                let len = u32::try_from(payload.len()).map_err(|_| io::ErrorKind::InvalidData)?;
                self.out.write_all(&len.to_le_bytes())?;
                self.out.write_all(payload)
            }
            Format::Hex => {
                self.out.write_all(to_hex(payload).as_bytes())?;
                self.out.write_all(b"\n")
            }
            Format::Json => {
                let text = std::str::from_utf8(payload).ok();
                let json = JsonRecord {
                    lsn: record.lsn().0,
                    end_lsn: record.end_lsn().0,
                    seq: record.seq().0,
                    payload: text,
                    payload_hex: text.is_none().then(|| to_hex(payload)),
                };
                serde_json::to_writer(&mut self.out, &json).map_err(io::Error::from)?;
                self.out.write_all(b"\n")
            }
        }
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Waits until whoever reads the output closed it, or for `limit`; `true` when it was closed.
    pub(crate) fn wait_closed(&mut self, limit: std::time::Duration) -> bool {
        #[cfg(unix)]
        if self.decoder.is_none() {
            use rustix::event::{PollFd, PollFlags, poll};
            // Nothing is asked for: errors and hang-ups are reported all the same.
            let stdout = io::stdout();
            let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
            let limit = rustix::event::Timespec {
                tv_sec: limit.as_secs().try_into().unwrap_or(1),
                tv_nsec: limit.subsec_nanos().into(),
            };
            return match poll(&mut fds, Some(&limit)) {
                Ok(ready) => ready > 0 && fds[0].revents().intersects(PollFlags::ERR | PollFlags::NVAL),
                Err(_) => false,
            };
        }
        std::thread::sleep(limit);
        self.decoder.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(Some(_))))
    }

    /// Writes out what is buffered and waits for the decoder. A reader that went away is no error.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        let Sink { mut out, decoder, .. } = self;
        match out.flush() {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                return Err(error).context("cannot write to standard output");
            }
            // Dropping a buffer that could not be written would try again.
            Err(_) => drop(out.into_parts()),
            Ok(()) => drop(out),
        }
        if let Some(mut child) = decoder {
            let status = child.wait().context("cannot wait for the decoder")?;
            if !status.success() {
                bail!("the decoder failed ({status}); try it on the output of --format framed");
            }
        }
        Ok(())
    }
}
