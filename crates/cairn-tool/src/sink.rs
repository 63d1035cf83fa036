//! Where `cairn cat` writes records to, and in which form.

use std::fmt;
use std::io::{self, BufWriter, IsTerminal as _, Write};
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
    /// {"lsn", "end_lsn", "seq", "payload"} and a newline; "payload_hex" when the bytes are not
    /// UTF-8
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
    payload_hex: Option<Hex<'a>>,
}

/// Bytes as hexadecimal digits, a few at a time: a record may leave no memory for twice its size.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chunks(4096).try_for_each(|part| f.write_str(&to_hex(part)))
    }
}

impl Serialize for Hex<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Text as it is, and each control character, and each byte that is no text, as an escape.
fn write_escaped(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\t' | '\n' | '\r' => write!(out, "{}", c.escape_default())?,
                c if u32::from(c) < 0x80 && c.is_control() => {
                    write!(out, "\\x{:02x}", u32::from(c))?
                }
                c if c.is_control() => write!(out, "{}", c.escape_unicode())?,
                c => write!(out, "{c}")?,
            }
        }
        chunk.invalid().iter().try_for_each(|byte| write!(out, "\\x{byte:02x}"))?;
    }
    Ok(())
}

/// Buffered standard output, directly or through a decoder.
pub(crate) struct Sink {
    out: BufWriter<Box<dyn Write>>,
    format: Format,
    /// Whether a line begins with its record's LSN.
    with_lsn: bool,
    /// Whether control characters would do something: there is a terminal.
    escape: bool,
    decoder: Option<Child>,
}

impl Sink {
    const BUFFER_SIZE: usize = 256 << 10;

    pub(crate) fn stdout(format: Format) -> Self {
        Sink {
            out: BufWriter::with_capacity(Self::BUFFER_SIZE, Box::new(io::stdout().lock())),
            format,
            with_lsn: false,
            escape: io::stdout().is_terminal(),
            decoder: None,
        }
    }

    /// Has each line begin with its record's LSN, or not.
    pub(crate) fn with_lsn(mut self, yes: bool) -> Self {
        self.with_lsn = yes;
        self
    }

    /// Starts `command` in a shell; it gets frames and prints what it makes of them.
    pub(crate) fn decoder(command: &str) -> anyhow::Result<Self> {
        let mut shell = if cfg!(windows) { Command::new("cmd") } else { Command::new("sh") };
        shell.arg(if cfg!(windows) { "/C" } else { "-c" }).arg(command).stdin(Stdio::piped());
        let mut child = shell.spawn().context("cannot start a shell for the decoder")?;
        let stdin = child.stdin.take().context("the decoder has no standard input")?;
        let out = BufWriter::with_capacity(Self::BUFFER_SIZE, Box::new(stdin) as Box<dyn Write>);
        let format = Format::Framed;
        Ok(Sink { out, format, with_lsn: false, escape: false, decoder: Some(child) })
    }

    pub(crate) fn write(&mut self, record: &RecordRef<'_>) -> io::Result<()> {
        let payload = record.payload();
        if self.with_lsn {
            write!(self.out, "{}\t", record.lsn())?;
        }
        match self.format {
            Format::Lines if self.escape => {
                write_escaped(&mut self.out, payload)?;
                self.out.write_all(b"\n")
            }
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
                writeln!(self.out, "{}", Hex(payload))
            }
            Format::Json => {
                let text = std::str::from_utf8(payload).ok();
                let json = JsonRecord {
                    lsn: record.lsn().0,
                    end_lsn: record.end_lsn().0,
                    seq: record.seq().0,
                    payload: text,
                    payload_hex: text.is_none().then_some(Hex(payload)),
                };
                if self.escape {
                    // JSON has escapes for all of them, and needs them for some only.
                    let text = serde_json::to_string(&json).map_err(io::Error::from)?;
                    for c in text.chars() {
                        if c.is_control() {
                            write!(self.out, "\\u{:04x}", u32::from(c))?;
                        } else {
                            write!(self.out, "{c}")?;
                        }
                    }
                } else {
                    serde_json::to_writer(&mut self.out, &json).map_err(io::Error::from)?;
                }
                self.out.write_all(b"\n")
            }
        }
    }

    /// Writes something that is no record among records that are JSON.
    pub(crate) fn write_json(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, value).map_err(io::Error::from)?;
        self.out.write_all(b"\n")
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
                Ok(ready) => {
                    ready > 0 && fds[0].revents().intersects(PollFlags::ERR | PollFlags::NVAL)
                }
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
