//! `bstack`, as the stack it is, and as a log: a push per commit. Records are not told apart by it,
//! so a length goes in front of each.

use std::io::{BufReader, ErrorKind, Read as _};

use anyhow::{Result, bail};
use bstack::BStack;

use crate::structures::{self, OfStack};
use crate::subject::{Seen, Setup, Subject, Writer};

struct Stack(BStack);

/// As a stack.
pub(crate) fn open_stack(setup: &Setup) -> Result<Box<dyn Subject>> {
    OfStack::subject(BStack::open(setup.dir.join("stack"))?, setup)
}

impl structures::Stack for BStack {
    fn push(&self, bytes: &[u8]) -> Result<()> {
        self.push(bytes)?;
        Ok(())
    }

    fn set(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        Ok(self.set(offset, bytes)?)
    }

    fn get(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        Ok(self.get_into(offset, buf)?)
    }

    fn len(&self) -> Result<u64> {
        Ok(self.len()?)
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}

/// As a log, in one file.
pub(crate) fn open(setup: &Setup) -> Result<Box<dyn Subject>> {
    Ok(Box::new(Stack(BStack::open(setup.dir.join("stack"))?)))
}

impl Subject for Stack {
    fn writer(&self, _thread: usize) -> Result<Box<dyn Writer + '_>> {
        Ok(Box::new(StackWriter { stack: &self.0, framed: Vec::new() }))
    }

    /// There is no checksum to be verified.
    fn replay(&self, seen: &mut Seen) -> Result<()> {
        let mut reader = BufReader::with_capacity(256 << 10, self.0.reader());
        let mut payload = Vec::new();
        loop {
            let mut len = [0; 4];
            match reader.read_exact(&mut len) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            payload.resize(u32::from_le_bytes(len) as usize, 0);
            reader.read_exact(&mut payload)?;
            seen.record(&payload);
        }
    }
}

struct StackWriter<'a> {
    stack: &'a BStack,
    framed: Vec<u8>,
}

impl Writer for StackWriter<'_> {
    fn commit(&mut self, record: &[u8]) -> Result<()> {
        self.commit_many(&[record])
    }

    /// One push of all of them.
    fn commit_many(&mut self, records: &[&[u8]]) -> Result<()> {
        self.framed.clear();
        for record in records {
            self.framed.extend_from_slice(&(record.len() as u32).to_le_bytes());
            self.framed.extend_from_slice(record);
        }
        self.stack.push(&self.framed)?;
        Ok(())
    }

    fn append(&mut self, _record: &[u8]) -> Result<()> {
        bail!("every push is durable")
    }
}
