//! What may be found in a store after a power cut.

use cairn_io::Store;

/// A store's bytes at one moment. Bytes below the head do not count.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Image {
    /// The first offset that exists.
    pub head: u64,
    /// All bytes from offset 0 on.
    pub bytes: Vec<u8>,
}

impl Image {
    /// Whether nothing was ever stored.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// One past the last byte.
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The contents of a store, read through its interface.
    ///
    /// # Errors
    /// The store's, in words; a read that ends before the store does.
    pub fn of(store: &dyn Store) -> Result<Self, String> {
        let (head, len) = (store.head(), store.len().map_err(|e| format!("len: {e}"))?);
        let mut bytes = vec![0; usize::try_from(len).unwrap()];
        let wanted = &mut bytes[usize::try_from(head).unwrap()..];
        let n = store.read_at(head, wanted).map_err(|e| format!("read_at: {e}"))?;
        match n == wanted.len() {
            true => Ok(Self { head, bytes }),
            false => Err(format!("{n} bytes read of {}", wanted.len())),
        }
    }

    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) {
        if !bytes.is_empty() {
            let end = offset + bytes.len();
            self.bytes.resize(self.bytes.len().max(end), 0);
            self.bytes[offset..end].copy_from_slice(bytes);
        }
    }

    fn sectors(&self, from: usize) -> &[u8] {
        self.bytes.get(from..self.bytes.len().min(from + 512)).unwrap_or(&[])
    }
}

/// The contents that may be found: each byte as the last barrier covered it, or as any later change
/// made it, each byte apart from the others. The same holds for the length and the head.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    /// The contents at the last barrier, and after each change since.
    pub(crate) images: Vec<Image>,
    /// The smallest and largest head.
    pub(crate) heads: (u64, u64),
    /// Heads are multiples of this.
    pub(crate) head_unit: u64,
}

impl Model {
    pub(crate) fn now(&self) -> &Image {
        self.images.last().expect("there is always one")
    }

    pub(crate) fn changed(&mut self, change: impl FnOnce(&mut Image)) {
        let mut next = self.now().clone();
        change(&mut next);
        self.images.push(next);
    }

    pub(crate) fn synced(&mut self) {
        self.images.drain(..self.images.len() - 1);
    }

    pub(crate) fn accepts(&self, found: &Image) -> Result<(), String> {
        let Self { images, heads: (low, high), head_unit } = self;
        if found.head < *low || found.head > *high || !found.head.is_multiple_of(*head_unit) {
            return Err(format!("head {}, must be {low} to {high}", found.head));
        }
        let lens = || images.iter().map(Image::len);
        let (shortest, longest) = (lens().min().unwrap_or(0), lens().max().unwrap_or(0));
        if found.len() < shortest || found.len() > longest {
            return Err(format!("length {}, must be {shortest} to {longest}", found.len()));
        }
        let head = usize::try_from(found.head).unwrap();
        for at in (head..found.bytes.len()).step_by(512) {
            let sector = found.sectors(at);
            if images.iter().any(|image| image.sectors(at) == sector) {
                continue;
            }
            for (i, byte) in sector.iter().enumerate() {
                if images.iter().all(|image| image.bytes.get(at + i).copied().unwrap_or(0) != *byte)
                {
                    return Err(format!(
                        "byte {} is {byte}, which was never written there",
                        at + i
                    ));
                }
            }
        }
        Ok(())
    }
}
