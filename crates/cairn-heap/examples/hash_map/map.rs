//! A hash map in a heap, with chains of entries.
//!
//! ```text
//! root ─► head: entries u64 | handle of the table ─► table: a handle for each bucket
//!      ─► entry: handle of the next entry | key length u64 | key | value
//! ```
//!
//! Each change is one transaction, also the one that makes the table larger: so a crash never shows
//! half of it.

use cairn_heap::{Block, Error, Heap, Result, Transaction};

const HANDLE: usize = 16;
const FIRST_BUCKETS: u64 = 8;

/// A map that is found by a root of the heap. Changes are durable on return.
pub(crate) struct Map<'a> {
    heap: &'a Heap,
    root: usize,
}

struct Head {
    block: Block,
    entries: u64,
    table: Block,
}

struct Entry {
    block: Block,
    next: Block,
    key: Vec<u8>,
    value: Vec<u8>,
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"))
}

fn handle(tx: &mut Transaction<'_, '_>, bytes: &[u8]) -> Result<Block> {
    tx.block(u128::from_le_bytes(bytes[..HANDLE].try_into().expect("sixteen bytes")))
}

/// FNV-1a: the same for ever, as it decides where entries are in the file.
fn hash(key: &[u8]) -> u64 {
    key.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl Head {
    fn load(tx: &mut Transaction<'_, '_>, root: usize) -> Result<Self> {
        let block = tx.root(root)?;
        let bytes = tx.read(block)?;
        Ok(Head { block, entries: number(&bytes), table: handle(tx, &bytes[8..])? })
    }

    fn store(&self, tx: &mut Transaction<'_, '_>) -> Result<()> {
        tx.write(
            self.block,
            [&self.entries.to_le_bytes()[..], &self.table.to_raw().to_le_bytes()].concat(),
        )
    }

    fn buckets(&self) -> u64 {
        self.table.len() / HANDLE as u64
    }

    /// Where the first handle of a key's chain is.
    fn bucket(&self, key: &[u8]) -> Result<cairn_heap::Slice> {
        let at = hash(key) % self.buckets() * HANDLE as u64;
        self.table.subslice(at..at + HANDLE as u64)
    }

    /// The entry of a key, and where the handle is that leads to it; or where one for a new entry
    /// belongs.
    fn find(
        &self,
        tx: &mut Transaction<'_, '_>,
        key: &[u8],
    ) -> Result<(cairn_heap::Slice, Option<Entry>)> {
        let mut link = self.bucket(key)?;
        loop {
            let bytes = tx.read(link)?;
            let block = handle(tx, &bytes)?;
            if block.is_empty() {
                return Ok((link, None));
            }
            let entry = Entry::load(tx, block)?;
            if entry.key == key {
                return Ok((link, Some(entry)));
            }
            link = block.subslice(0..HANDLE as u64)?;
        }
    }

    /// A table of twice the size, and all entries in it.
    fn grow(&mut self, tx: &mut Transaction<'_, '_>) -> Result<()> {
        let old = tx.read(self.table)?;
        let table = tx.alloc(self.table.len() * 2)?;
        tx.dealloc(self.table)?;
        self.table = table;
        for chain in old.chunks(HANDLE) {
            let mut block = handle(tx, chain)?;
            while !block.is_empty() {
                let entry = Entry::load(tx, block)?;
                let bucket = self.bucket(&entry.key)?;
                let first = tx.read(bucket)?;
                tx.write(block, first)?;
                tx.write(bucket, block.to_raw().to_le_bytes())?;
                block = entry.next;
            }
        }
        Ok(())
    }
}

impl Entry {
    fn load(tx: &mut Transaction<'_, '_>, block: Block) -> Result<Self> {
        let bytes = tx.read(block)?;
        let next = handle(tx, &bytes)?;
        let (key_len, rest) = bytes[HANDLE..].split_at(8);
        let (key, value) =
            rest.split_at(usize::try_from(number(key_len)).expect("as it was in memory before"));
        Ok(Entry { block, next, key: key.to_vec(), value: value.to_vec() })
    }
}

impl<'a> Map<'a> {
    /// The map at this root; an empty one if there is none.
    pub(crate) fn open(heap: &'a Heap, root: usize) -> Result<Self> {
        heap.transaction(|tx| {
            if tx.root(root)?.is_empty() {
                let table = tx.alloc(FIRST_BUCKETS * HANDLE as u64)?;
                let block = tx.alloc(8 + HANDLE as u64)?;
                Head { block, entries: 0, table }.store(tx)?;
                tx.set_root(root, block)?;
            }
            Ok::<_, Error>(())
        })?;
        Ok(Map { heap, root })
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> Result<u64> {
        self.heap.transaction(|tx| Ok(Head::load(tx, self.root)?.entries))
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.heap.transaction(|tx| {
            let head = Head::load(tx, self.root)?;
            Ok(head.find(tx, key)?.1.map(|entry| entry.value))
        })
    }

    /// Sets the value of a key; returns the old one.
    pub(crate) fn insert(&self, key: &[u8], value: &[u8]) -> Result<Option<Vec<u8>>> {
        self.heap.transaction(|tx| {
            let mut head = Head::load(tx, self.root)?;
            let (mut link, mut old) = head.find(tx, key)?;
            if old.is_none() {
                head.entries += 1;
                if head.entries > 2 * head.buckets() {
                    head.grow(tx)?;
                    (link, old) = head.find(tx, key)?;
                }
                head.store(tx)?;
            }
            let next = old.as_ref().map_or(Block::EMPTY, |entry| entry.next);
            let bytes =
                [&next.to_raw().to_le_bytes()[..], &(key.len() as u64).to_le_bytes(), key, value]
                    .concat();
            let entry = tx.alloc_with(bytes)?;
            tx.write(link, entry.to_raw().to_le_bytes())?;
            old.map(|old| tx.dealloc(old.block).map(|()| old.value)).transpose()
        })
    }

    /// Takes a key out; returns its value.
    pub(crate) fn remove(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.heap.transaction(|tx| {
            let mut head = Head::load(tx, self.root)?;
            let (link, Some(entry)) = head.find(tx, key)? else { return Ok(None) };
            tx.write(link, entry.next.to_raw().to_le_bytes())?;
            tx.dealloc(entry.block)?;
            head.entries -= 1;
            head.store(tx)?;
            Ok(Some(entry.value))
        })
    }

    /// All entries, in no order. Every chain is followed to its end, every entry is in its bucket,
    /// and their number is right: otherwise panics.
    pub(crate) fn entries(&self) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.heap.transaction(|tx| {
            let head = Head::load(tx, self.root)?;
            let mut found = Vec::new();
            for (bucket, chain) in (0..).zip(tx.read(head.table)?.chunks(HANDLE)) {
                let mut block = handle(tx, chain)?;
                while !block.is_empty() {
                    let entry = Entry::load(tx, block)?;
                    assert_eq!(
                        hash(&entry.key) % head.buckets(),
                        bucket,
                        "an entry is in another one's bucket"
                    );
                    found.push((entry.key, entry.value));
                    block = entry.next;
                }
            }
            assert_eq!(found.len() as u64, head.entries, "the number of entries is wrong");
            Ok(found)
        })
    }
}
