//! Any bytes as the only segment of a directory, and as a log in a store whose beginning may be
//! gone.
//!
//! Looking never panics, hangs or changes anything, whatever the bytes are. If the log opens, it
//! can be read and written and opened again, unless the bytes lie under right checksums. If it is
//! refused, nothing has changed.
//!
//! The first 4 bytes say how to sign and where the store begins; then the superblock's first 88
//! bytes; then groups.

use std::sync::Arc;

use cairn_io::{Fs, MemStore, Store};
use cairn_log::fuzzing::{self, Signing};
use cairn_log::{Error, ErrorKind, Log};
use cairn_sim::SimFs;

use crate::frame::signing;
use crate::logs::{DIR, Trust, exercise, inspect, tiny, unpacked};

/// Runs one input.
pub fn run(data: &[u8]) {
    let Some(([control, skip, head, more], packed)) = data.split_first_chunk::<4>() else {
        return;
    };
    let mut segment = unpacked(packed);
    let how: Signing = signing(*control, *skip);
    let forged = control & 0x80 == 0;
    if forged {
        fuzzing::sign_segment(&mut segment, how);
    }
    if more & 1 != 0 {
        // Space that was reserved.
        segment.resize(segment.len() + 5000, 0);
    }
    in_directory(&segment, forged);
    in_store(&segment, if more & 2 != 0 { u64::from(*head) * 32 + 4096 } else { 0 }, forged);
}

/// The name the segment says it has.
fn name_of(segment: &[u8]) -> String {
    let generation = u32::from_le_bytes(segment[32..36].try_into().expect("four bytes"));
    let base_lsn = u64::from_le_bytes(segment[40..48].try_into().expect("eight bytes"));
    format!("{base_lsn:020}-{generation:010}.cairn")
}

fn in_directory(segment: &[u8], forged: bool) {
    let sim = SimFs::new();
    sim.create_dir(DIR.as_ref()).expect("a directory");
    sim.write_file(format!("{DIR}/{}", name_of(segment)), segment).expect("a file");
    // It says nothing: the segment is believed.
    sim.write_file(format!("{DIR}/STATE"), [0; 0]).expect("a file");
    let before = sim.fingerprint();
    let (trust, records) = inspect(&sim, forged);
    let open = || tiny(&sim).open(DIR);
    let opened = open();
    crate::trace(&("a directory", trust, &opened));
    match opened {
        Ok(log) => {
            let seen = exercise(log, &open, trust);
            assert!(trust != Trust::Whole || seen == records, "opening shows what looking did");
        }
        Err(error) => refused(&error, before == sim.fingerprint()),
    }
}

fn in_store(segment: &[u8], head: u64, forged: bool) {
    let store = MemStore::from_bytes(segment);
    let _ = store.truncate_before(head.min(segment.len() as u64)).expect("drops");
    let before = store.to_bytes();
    let store: Arc<MemStore> = Arc::new(store);
    let sim = SimFs::new();
    let open = || Log::with_store(store.clone(), tiny(&sim));
    let opened = open();
    crate::trace(&("a store from", store.head(), &opened));
    match opened {
        // A store is scanned as a whole: nothing is left to be found out later.
        Ok(log) => drop(exercise(log, &open, if forged { Trust::Forged } else { Trust::Whole })),
        Err(error) => refused(&error, before == store.to_bytes()),
    }
}

fn refused(error: &Error, unchanged: bool) {
    match error.kind() {
        ErrorKind::Repair => assert!(unchanged, "refused, and changed: {error:?}"),
        // Generations and positions have an end.
        _ if matches!(error, Error::Exhausted { .. }) => {}
        _ => panic!("no reason to refuse: {error:?}"),
    }
}
