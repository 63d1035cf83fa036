//! The bytes of a file as a table of shared pages: copying a file costs one reference count,
//! changing it copies only the pages that change. Crash states of the same trace share everything
//! they have in common.

use std::sync::{Arc, LazyLock, OnceLock};

use crate::rng::mix;

/// Bytes per page; also the unit in which space is accounted.
pub(crate) const PAGE: usize = 4096;

/// Longest file, so that a hostile length cannot make the simulator allocate without bound.
pub(crate) const MAX_FILE_LEN: u64 = 1 << 34;

/// Page contents that are shared between images; `None` stands for a page of zeros that takes no
/// space.
pub(crate) type Slot = Option<Arc<Page>>;

static ZERO_PAGE: [u8; PAGE] = [0; PAGE];
static RESERVED: LazyLock<Arc<Page>> = LazyLock::new(|| Arc::new(Page::new(ZERO_PAGE)));

/// One page with its hash, computed when first asked for.
#[derive(Debug)]
pub(crate) struct Page {
    bytes: [u8; PAGE],
    hash: OnceLock<u64>,
}

impl Clone for Page {
    fn clone(&self) -> Self {
        Self::new(self.bytes)
    }
}

impl Page {
    fn new(bytes: [u8; PAGE]) -> Self {
        Self { bytes, hash: OnceLock::new() }
    }

    /// 0 for a page of zeros, so that a hole and written zeros are the same content.
    fn hash(&self) -> u64 {
        *self.hash.get_or_init(|| {
            if self.bytes == ZERO_PAGE {
                return 0;
            }
            let mut lanes = [1u64, 2, 3, 4];
            for chunk in self.bytes.chunks_exact(32) {
                for (lane, word) in lanes.iter_mut().zip(chunk.chunks_exact(8)) {
                    let mut le = [0; 8];
                    le.copy_from_slice(word);
                    *lane = (*lane ^ u64::from_le_bytes(le))
                        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                        .rotate_left(29);
                }
            }
            lanes.iter().fold(0, |sum, lane| mix(sum ^ lane))
        })
    }
}

/// A slice of the page in `slot`; the page of zeros when there is none.
pub(crate) fn slice_of(slot: &Slot, at: usize, len: usize) -> &[u8] {
    match slot {
        Some(page) => &page.bytes[at..at + len],
        None => &ZERO_PAGE[at..at + len],
    }
}

/// Changes one bit inside a shared page.
pub(crate) fn flip_in(slot: &mut Slot, at: usize, mask: u8) {
    let page = Arc::make_mut(slot.get_or_insert_with(|| RESERVED.clone()));
    page.hash = OnceLock::new();
    page.bytes[at] ^= mask;
}

/// Splits a byte position into page number and position inside that page.
pub(crate) fn locate(offset: u64) -> (usize, usize) {
    let page = usize::try_from(offset / PAGE as u64).expect("offsets are at most MAX_FILE_LEN");
    let at = usize::try_from(offset % PAGE as u64).expect("below PAGE");
    (page, at)
}

/// Pages of one chunk: 256 KiB. Two levels keep the cost of a changed copy of a large file small.
const CHUNK: usize = 64;

#[derive(Clone, Debug)]
struct Chunk {
    slots: [Slot; CHUNK],
    /// The hashes of the pages and their places in the file, summed; computed when first asked for.
    fold: OnceLock<u64>,
}

impl Default for Chunk {
    fn default() -> Self {
        Self { slots: [const { None }; CHUNK], fold: OnceLock::new() }
    }
}

impl Chunk {
    fn fold(&self, chunk: usize) -> u64 {
        *self.fold.get_or_init(|| {
            let mut sum = 0u64;
            for (i, page) in self.slots.iter().enumerate() {
                let hash = page.as_ref().map_or(0, |page| page.hash());
                if hash != 0 {
                    sum = sum.wrapping_add(mix(hash ^ mix((chunk * CHUNK + i) as u64 + 1)));
                }
            }
            sum
        })
    }
}

#[derive(Clone, Debug, Default)]
struct Pages {
    chunks: Vec<Option<Arc<Chunk>>>,
    /// Number of slots that are not `None`.
    used: u64,
}

/// Bytes and length of one file.
///
/// Invariant: every byte at or after `len` is zero. `chunks` may be shorter than `len` needs (the
/// rest is zeros).
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    pages: Arc<Pages>,
    len: u64,
}

impl Content {
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let mut content = Self::default();
        content.write(0, bytes);
        content
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Pages that take space.
    pub(crate) fn pages_used(&self) -> u64 {
        self.pages.used
    }

    /// Pages of `offset..offset + len` that a write or a reservation there would newly take.
    pub(crate) fn pages_missing(&self, offset: u64, len: u64) -> u64 {
        if len == 0 {
            return 0;
        }
        let (first, last) = (locate(offset).0, locate(offset + len - 1).0);
        (first..=last).filter(|&p| self.get(p).is_none()).count() as u64
    }

    pub(crate) fn slot(&self, page: usize) -> Slot {
        self.get(page).cloned()
    }

    fn get(&self, page: usize) -> Option<&Arc<Page>> {
        self.pages.chunks.get(page / CHUNK)?.as_ref()?.slots[page % CHUNK].as_ref()
    }

    /// Certainly all zeros; `false` says nothing.
    pub(crate) fn is_zero_page(&self, page: usize) -> bool {
        self.get(page).is_none_or(|page| Arc::ptr_eq(page, &RESERVED))
    }

    pub(crate) fn slice(&self, page: usize, at: usize, len: usize) -> &[u8] {
        self.get(page).map_or(&ZERO_PAGE[at..at + len], |page| &page.bytes[at..at + len])
    }

    pub(crate) fn read(&self, offset: u64, buf: &mut [u8]) -> usize {
        let rest = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let total = buf.len().min(rest);
        let mut done = 0;
        while done < total {
            let (page, at) = locate(offset + done as u64);
            let n = (PAGE - at).min(total - done);
            buf[done..done + n].copy_from_slice(self.slice(page, at, n));
            done += n;
        }
        total
    }

    /// The first offset at or behind `offset` that lies in a page that takes space.
    pub(crate) fn data_from(&self, offset: u64) -> u64 {
        if offset >= self.len {
            return self.len;
        }
        let first = locate(offset).0;
        let pages = first..self.pages.chunks.len() * CHUNK;
        let found = pages.into_iter().find(|&page| self.get(page).is_some());
        found.map_or(self.len, |page| (page as u64 * PAGE as u64).clamp(offset, self.len))
    }

    pub(crate) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.len).expect("at most MAX_FILE_LEN")];
        self.read(0, &mut bytes);
        bytes
    }

    /// Writes and grows. The caller has checked `offset + bytes.len()` against [`MAX_FILE_LEN`].
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let (page, at) = locate(offset + done as u64);
            let n = (PAGE - at).min(bytes.len() - done);
            self.page_mut(page)[at..at + n].copy_from_slice(&bytes[done..done + n]);
            done += n;
        }
        if !bytes.is_empty() {
            self.len = self.len.max(offset + bytes.len() as u64);
        }
    }

    /// Cuts, or extends with zeros that take no space.
    pub(crate) fn set_len(&mut self, len: u64) {
        if len < self.len {
            let (page, at) = locate(len);
            let keep = if at == 0 { page } else { page + 1 };
            if at != 0
                && !self.is_zero_page(page)
                && self.slice(page, at, PAGE - at) != &ZERO_PAGE[at..]
            {
                self.page_mut(page)[at..].fill(0);
            }
            let last = self.pages.chunks.len() * CHUNK;
            for page in keep..last {
                if self.get(page).is_some() {
                    *self.slot_mut(page) = None;
                    Arc::make_mut(&mut self.pages).used -= 1;
                }
            }
            if self.pages.chunks.len() > keep.div_ceil(CHUNK) {
                Arc::make_mut(&mut self.pages).chunks.truncate(keep.div_ceil(CHUNK));
            }
        }
        self.len = len;
    }

    /// Takes space for a range without changing what is read.
    pub(crate) fn reserve(&mut self, offset: u64, len: u64) {
        if len == 0 {
            return;
        }
        let (first, last) = (locate(offset).0, locate(offset + len - 1).0);
        for page in first..=last {
            if self.get(page).is_none() {
                *self.slot_mut(page) = Some(RESERVED.clone());
                Arc::make_mut(&mut self.pages).used += 1;
            }
        }
    }

    pub(crate) fn flip(&mut self, offset: u64, mask: u8) {
        let (page, at) = locate(offset);
        self.page_mut(page)[at] ^= mask;
    }

    /// Depends on bytes and length only, not on holes or reservations.
    pub(crate) fn fingerprint(&self) -> u64 {
        let chunks = self.pages.chunks.iter().enumerate();
        let fold = |(i, chunk): (usize, &Option<Arc<Chunk>>)| {
            chunk.as_ref().map_or(0, |chunk| chunk.fold(i))
        };
        let sum = chunks.map(fold).fold(0, u64::wrapping_add);
        mix(sum ^ mix(self.len ^ 0x5bd1_e995))
    }

    /// The place of a page, to be changed.
    fn slot_mut(&mut self, page: usize) -> &mut Slot {
        let pages = Arc::make_mut(&mut self.pages);
        if pages.chunks.len() <= page / CHUNK {
            pages.chunks.resize(page / CHUNK + 1, None);
        }
        let chunk = Arc::make_mut(pages.chunks[page / CHUNK].get_or_insert_default());
        chunk.fold = OnceLock::new();
        &mut chunk.slots[page % CHUNK]
    }

    fn page_mut(&mut self, page: usize) -> &mut [u8; PAGE] {
        if self.get(page).is_none() {
            Arc::make_mut(&mut self.pages).used += 1;
        }
        let page = Arc::make_mut(self.slot_mut(page).get_or_insert_with(|| RESERVED.clone()));
        page.hash = OnceLock::new();
        &mut page.bytes
    }
}
