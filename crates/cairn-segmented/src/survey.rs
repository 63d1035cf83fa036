//! What is in the directory, found by reading only.

use std::ffi::OsStr;

use cairn_io::{Access, read_full_at, retry};

use crate::error::Error;
use crate::home::{Home, segment_name};
use crate::superblock::{PAYLOAD_START, SUPERBLOCK_SIZE, Superblock};

/// A store that can be opened: segments `first..=last` are there, ours, and as long as they must
/// be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Survey {
    pub(crate) uuid: [u8; 16],
    pub(crate) segment_size: u64,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// The index in a segment's name. Any other name is a stray and is ignored; so are the names of
/// temporary files.
fn segment_index(name: &OsStr) -> Option<u64> {
    let digits = name.to_str()?.strip_suffix(".seg")?;
    if digits.len() != 20 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// Classifies the directory; `None` when it holds no segment.
///
/// | found | verdict |
/// |---|---|
/// | no segment | a new store |
/// | a segment without our magic | `Foreign` |
/// | a superblock that is cut short, does not verify, or is not the one of this name | `Corrupt` |
/// | a superblock that verifies, of another version | `UnsupportedVersion` |
/// | different identifiers | `WrongStore` |
/// | a number missing between two others | `MissingSegment` |
/// | not the last, and not exactly full; or longer than full | `WrongLength` |
/// | a segment size that was not asked for | `SegmentSizeMismatch` |
/// | else | a store |
pub(crate) fn survey(home: &Home, requested: Option<u64>) -> Result<Option<Survey>, Error> {
    let names = retry(|| home.dir.list());
    let names = names.map_err(Error::io("list the directory", &home.path))?;
    let mut indices: Vec<u64> = names.iter().filter_map(|n| segment_index(n)).collect();
    indices.sort_unstable();
    let (Some(&first), Some(&last)) = (indices.first(), indices.last()) else {
        return Ok(None);
    };
    let head = read_superblock(home, first)?.0;
    let survey = Survey { uuid: head.uuid, segment_size: head.segment_size, first, last };
    for &index in &indices {
        check_segment(home, index, &survey)?;
    }
    // After the segments themselves: of two stores' files in one directory, the stranger is the
    // better news.
    if let Some((_, missing)) = indices.iter().zip(first..).find(|(index, n)| *index != n) {
        return Err(Error::MissingSegment { path: home.path_of(missing) });
    }
    match requested {
        Some(requested) if requested != survey.segment_size => Err(Error::SegmentSizeMismatch {
            path: home.path.clone(),
            requested,
            found: survey.segment_size,
        }),
        _ => Ok(Some(survey)),
    }
}

fn check_segment(home: &Home, index: u64, survey: &Survey) -> Result<(), Error> {
    let path = home.path_of(index);
    let (superblock, len) = read_superblock(home, index)?;
    if superblock.uuid != survey.uuid {
        return Err(Error::WrongStore { path, expected: survey.uuid, found: superblock.uuid });
    }
    let corrupt = |offset, what| {
        let path = path.clone();
        Error::Corrupt { path, offset, what }
    };
    if superblock.segment_size != survey.segment_size {
        return Err(corrupt(32, "the segment size"));
    }
    if superblock.index != index {
        return Err(corrupt(40, "the segment's index"));
    }
    let full = PAYLOAD_START + survey.segment_size;
    if len > full || (index != survey.last && len < full) {
        return Err(Error::WrongLength { path, expected: full, found: len });
    }
    Ok(())
}

fn read_superblock(home: &Home, index: u64) -> Result<(Superblock, u64), Error> {
    let path = home.path_of(index);
    let name = segment_name(index);
    let file = retry(|| home.dir.open(name.as_ref(), Access::Read));
    let file = file.map_err(Error::io("open", &path))?;
    let mut block = [0; SUPERBLOCK_SIZE];
    let n = read_full_at(&*file, 0, &mut block).map_err(Error::io("read", &path))?;
    let superblock = Superblock::decode(&path, &block[..n])?;
    let len = file.len().map_err(Error::io("measure", &path))?;
    let found = file.stat().map_err(Error::io("look at", &path))?;
    home.note(index, found.id);
    Ok((superblock, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_segments() {
        let index = |name: &str| segment_index(OsStr::new(name));
        for n in [0, 7, u64::MAX] {
            assert_eq!(index(&segment_name(n)), Some(n));
        }
        for stray in [
            "",
            ".seg",
            "7.seg",
            "00000000000000000007",
            "00000000000000000007.seg.tmp",
            "+0000000000000000007.seg",
            "99999999999999999999.seg",
            "0000000000000000000x.seg",
        ] {
            assert_eq!(index(stray), None, "{stray}");
        }
    }
}
