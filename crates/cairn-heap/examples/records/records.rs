//! A vector of records of one length in a heap: one block that grows by doubling, and shrinks when
//! three quarters are empty.
//!
//! ```text
//! root ─► head: record length u64 | records u64 | data, handle ─► record | record | … | room
//! ```

use cairn_heap::{Block, Error, Heap, Result, Transaction};

/// A vector that is found by a root of the heap. Changes are durable on return.
pub(crate) struct Records<'a> {
    heap: &'a Heap,
    root: usize,
}

struct Head {
    block: Block,
    record_len: u64,
    records: u64,
    data: Block,
}

impl Head {
    fn load(tx: &mut Transaction<'_, '_>, root: usize) -> Result<Self> {
        let block = tx.root(root)?;
        let mut bytes = [0; 32];
        tx.read_into(block, &mut bytes)?;
        let number =
            |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let data = tx.block(u128::from_le_bytes(bytes[16..].try_into().expect("sixteen bytes")))?;
        Ok(Head { block, record_len: number(0), records: number(8), data })
    }

    fn store(&self, tx: &mut Transaction<'_, '_>) -> Result<()> {
        let (record_len, records) = (self.record_len.to_le_bytes(), self.records.to_le_bytes());
        tx.write(
            self.block,
            [&record_len[..], &records, &self.data.to_raw().to_le_bytes()].concat(),
        )
    }

    fn record(&self, index: u64) -> Result<cairn_heap::Slice> {
        self.data.subslice(index * self.record_len..(index + 1) * self.record_len)
    }
}

impl<'a> Records<'a> {
    /// The vector at this root; an empty one if there is none.
    pub(crate) fn open(heap: &'a Heap, root: usize, record_len: u64) -> Result<Self> {
        heap.transaction(|tx| {
            if tx.root(root)?.is_empty() {
                let block = tx.alloc(32)?;
                Head { block, record_len, records: 0, data: Block::EMPTY }.store(tx)?;
                tx.set_root(root, block)?;
            }
            Ok::<_, Error>(())
        })?;
        Ok(Records { heap, root })
    }

    /// Appends a record; returns its index.
    pub(crate) fn push(&self, record: &[u8]) -> Result<u64> {
        self.heap.transaction(|tx| {
            let mut head = Head::load(tx, self.root)?;
            if (head.records + 1) * head.record_len > head.data.len() {
                head.data =
                    tx.realloc(head.data, (head.data.len() * 2).max(4 * head.record_len))?;
            }
            tx.write(head.record(head.records)?, record)?;
            head.records += 1;
            head.store(tx)?;
            Ok(head.records - 1)
        })
    }

    /// Takes the last record off.
    pub(crate) fn pop(&self) -> Result<Option<Vec<u8>>> {
        self.heap.transaction(|tx| {
            let mut head = Head::load(tx, self.root)?;
            let Some(last) = head.records.checked_sub(1) else { return Ok(None) };
            let record = tx.read(head.record(last)?)?;
            head.records = last;
            if last * head.record_len * 4 <= head.data.len() {
                head.data = tx.realloc(head.data, last * head.record_len * 2)?;
            }
            head.store(tx)?;
            Ok(Some(record))
        })
    }

    /// Overwrites a record.
    pub(crate) fn set(&self, index: u64, record: &[u8]) -> Result<()> {
        self.heap.transaction(|tx| {
            let head = Head::load(tx, self.root)?;
            if index >= head.records {
                return Err(Error::OutOfRange { start: index, end: index, len: head.records });
            }
            tx.write(head.record(index)?, record)
        })
    }

    /// All records.
    pub(crate) fn all(&self) -> Result<Vec<Vec<u8>>> {
        self.heap.transaction(|tx| {
            let head = Head::load(tx, self.root)?;
            (0..head.records).map(|index| tx.read(head.record(index)?)).collect()
        })
    }
}
