//! One segment's file taken apart: whatever it holds, each byte is in one part, and damage costs
//! the parts that it hits.

use std::path::Path;

use cairn_log::{Dissection, HeadState, Inspection, Part, PartKind};
use cairn_sim::{FaultPlan, SimFs};
use uuid::Uuid;

use crate::damage::{Image, SUPERBLOCK, closed_log};

/// All parts of a file; with the log's identity, if that is to be told.
fn parts(sim: &SimFs, path: &Path, uuid: Option<Uuid>) -> (HeadState, Vec<Part>) {
    let mut dissection = Dissection::open_on(sim, path).unwrap();
    if let Some(uuid) = uuid {
        dissection = dissection.of_log(uuid);
    }
    let mut parts = Vec::new();
    while let Some(part) = dissection.next_part().unwrap() {
        let at = parts.last().map_or(SUPERBLOCK, |last: &Part| last.offset + last.len);
        assert!(part.offset == at && part.len > 0, "{part:?} behind {at}");
        parts.push(part);
    }
    let end = parts.last().map_or(SUPERBLOCK, |last| last.offset + last.len);
    assert_eq!(end, dissection.file_len().max(SUPERBLOCK), "all of it");
    (dissection.head().state, parts)
}

fn is_record(part: &&Part) -> bool {
    matches!(part.kind, PartKind::Record { .. })
}

fn uuid_of(image: &Image) -> Uuid {
    let sim = image.plant();
    Inspection::open_on(std::sync::Arc::new(sim), crate::model::DIR).unwrap().uuid()
}

#[test]
fn an_intact_log_is_all_of_its_parts() {
    let image = closed_log();
    let sim = image.plant();
    let mut lsns = Vec::new();
    let mut seqs = Vec::new();
    for file in image.segments() {
        let (state, parts) = parts(&sim, &image.files[file].0, None);
        assert_eq!(state, HeadState::Valid);
        assert!(!parts.iter().any(|part| part.kind == PartKind::Unverified), "{parts:?}");
        for part in parts.iter().filter(is_record) {
            let PartKind::Record { seq, payload_len } = part.kind else { unreachable!() };
            assert_eq!(payload_len, image.records[lsns.len()].len() as u64);
            lsns.push(part.lsn.0);
            seqs.push(seq.unwrap().0);
        }
    }
    assert_eq!(lsns, image.lsns);
    assert!(seqs.into_iter().eq(0..image.records.len() as u64));
}

/// guards: L10
#[test]
fn a_flipped_bit_costs_the_part_that_it_hits() {
    let image = closed_log();
    let uuid = uuid_of(&image);
    for file in image.segments() {
        let (path, bytes) = &image.files[file];
        let sim = image.plant();
        let (_, intact) = parts(&sim, path, None);
        let records = intact.iter().filter(is_record).count();
        for bit in (0..bytes.len() * 8).step_by(61) {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            sim.write_file(path, &flipped).unwrap();
            let (state, found) = parts(&sim, path, Some(uuid));
            let at = (bit / 8) as u64;
            let hit =
                intact.iter().find(|part| (part.offset..part.offset + part.len).contains(&at));
            let is_lost = hit.as_ref().is_some_and(is_record);
            let left = found.iter().filter(is_record).count();
            assert_eq!(left, records - usize::from(is_lost), "bit {bit} of {}", path.display());
            assert_eq!(state != HeadState::Valid, at < SUPERBLOCK, "bit {bit}");
            let is_seen = found != intact || state != HeadState::Valid;
            assert!(is_seen, "bit {bit} of {} is not seen", path.display());
        }
    }
}

#[test]
fn a_sector_that_cannot_be_read_is_a_part_and_no_end() {
    let image = closed_log();
    for file in image.segments() {
        let (path, bytes) = &image.files[file];
        for at in (0..bytes.len() as u64).step_by(512) {
            let sim = image.plant();
            sim.set_faults(FaultPlan::new().unreadable(path, at..at + 512));
            let (state, found) = parts(&sim, path, Some(uuid_of(&image)));
            let unreadable = found.iter().any(|part| part.kind == PartKind::Unreadable);
            assert_eq!(unreadable, at >= SUPERBLOCK, "{at}: {found:?}");
            assert_eq!(state == HeadState::Unreadable, at < SUPERBLOCK, "{at}");
        }
    }
}

/// Each second position claims to be a frame as long as the file. Looking at all of them would take
/// hours.
#[test]
fn a_file_made_to_be_slow_is_not() {
    let image = closed_log();
    let (path, bytes) = &image.files[image.segments()[0]];
    let mut slow = bytes[..SUPERBLOCK as usize].to_vec();
    let len = 4u32 << 20;
    for _ in 0..len / 16 {
        slow.extend([7, 7, 7, 7]);
        slow.extend((len / 2).to_le_bytes());
        slow.extend([1, 0, 0, 0, 9, 9, 9, 9]);
    }
    let sim = image.plant();
    sim.write_file(path, &slow).unwrap();
    let (state, found) = parts(&sim, path, None);
    assert_eq!((state, found.len()), (HeadState::Valid, 1), "{found:?}");
}
