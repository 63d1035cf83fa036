//! Slots by one thread and by many, and the ends of their memory.

use super::*;

fn opened(capacity: usize, start: usize, end: usize) -> Slot {
    let slot = Slot::new(capacity);
    slot.contents().expect("closed and empty").open(start, end);
    slot
}

#[test]
fn reservations_follow_each_other_and_end_with_the_room() {
    let slot = opened(64, 8, 40);
    let places: Vec<_> = std::iter::from_fn(|| {
        let mut part = slot.reserve(16, 1)?;
        let item = u8::try_from(part.item()).unwrap();
        part.fill(item + 1);
        let place = (part.start(), part.item());
        part.publish();
        Some(place)
    })
    .collect();
    assert_eq!(places, [(8, 0), (24, 1)]);
    assert_eq!(slot.extent(), Some(Extent { start: 8, end: 40, items: 2 }));
    assert_eq!(slot.close(), Extent { start: 8, end: 40, items: 2 });
    assert_eq!(slot.close(), Extent { start: 8, end: 40, items: 2 }, "closed again");
    assert!(slot.reserve(0, 0).is_none());
    let contents = slot.contents().unwrap();
    assert_eq!(contents[..8], [0; 8]);
    assert_eq!(contents[8..40], [[1; 16], [2; 16]].concat());
    contents.open(0, 64);
    assert_eq!(slot.extent(), Some(Extent { start: 0, end: 0, items: 0 }));
}

#[test]
fn a_slot_is_complete_when_all_is_published_and_never_after_one_was_abandoned() {
    let slot = opened(64, 0, 64);
    let first = slot.reserve(8, 1).unwrap();
    let second = slot.reserve(8, 1).unwrap();
    assert_eq!(slot.is_complete(), Ok(false), "open");
    slot.close();
    second.publish();
    assert_eq!(slot.is_complete(), Ok(false), "the first one is being filled");
    drop(first);
    assert_eq!(slot.is_complete(), Err(Abandoned));
    assert!(slot.contents().is_err());
}

#[test]
fn contents_have_one_owner_and_reservations_stay_inside() {
    let slot = opened(64, 0, 64);
    assert!(slot.has_room(64) && !slot.has_room(72));
    assert!(slot.reserve(72, 1).is_none() && slot.reserve(8, ITEMS_MAX + 1).is_none());
    slot.reserve(0, 1).unwrap().publish();
    assert!(slot.reserve(8, u64::MAX).is_none(), "the number of items does not wrap");
    let between = std::panic::AssertUnwindSafe(|| slot.reserve(12, 1).is_some());
    assert!(std::panic::catch_unwind(between).is_err(), "units are not shared");
    assert_eq!(slot.extent().unwrap().items, 1, "what does not fit changes nothing");
    slot.close();
    assert!(!slot.has_room(0) && slot.extent().is_none());
    let contents = slot.contents().unwrap();
    let second = std::panic::AssertUnwindSafe(|| slot.contents().is_ok());
    assert!(std::panic::catch_unwind(second).is_err());
    let outside = std::panic::AssertUnwindSafe(|| contents.open(0, 72));
    assert!(std::panic::catch_unwind(outside).is_err());
    assert!(slot.reserve(8, 1).is_none(), "and it stays closed");
}

#[test]
fn memory_is_aligned_and_can_be_replaced() {
    let slot = opened(8, 0, 8);
    slot.close();
    let mut contents = slot.contents().unwrap();
    contents.resize(1 << 20);
    assert_eq!(contents.as_ptr().addr() % MEMORY_ALIGN, 0);
    assert_eq!(contents.len(), 1 << 20);
    contents.open(4096, 1 << 20);
    assert_eq!(slot.reserve(8, 1).unwrap().start(), 4096);
}

/// guards: L69
///
/// On 32 bits the largest of these cannot be addressed, on 64 bits it is more than a slot has.
#[test]
fn memory_that_is_not_there_is_an_error() {
    let capacity = usize::MAX - usize::MAX % UNIT;
    assert_eq!(Slot::try_new(capacity).unwrap_err(), OutOfMemory { capacity });
    let slot = opened(64, 0, 64);
    slot.close();
    let mut contents = slot.contents().unwrap();
    contents[0] = 7;
    assert_eq!(contents.try_resize(capacity), Err(OutOfMemory { capacity }));
    assert_eq!((contents[0], contents.len()), (7, 64), "the memory is as it was");
    assert_eq!(contents.try_resize(128), Ok(()));
    assert_eq!((contents[0], contents.len()), (0, 128));
    let error = std::io::Error::from(OutOfMemory { capacity });
    assert_eq!(error.kind(), std::io::ErrorKind::OutOfMemory);
}

#[test]
fn many_threads_fill_disjoint_parts() {
    const ROUNDS: usize = 50;
    let slot = Slot::new(1 << 12);
    for round in 0..ROUNDS {
        slot.contents().unwrap().open(0, 1 << 12);
        std::thread::scope(|scope| {
            for thread in 0..4u8 {
                let slot = &slot;
                scope.spawn(move || {
                    while let Some(mut part) = slot.reserve(24, 1) {
                        part.fill(thread + 1);
                        part.publish();
                    }
                });
            }
            if round % 2 == 0 {
                slot.close();
            }
        });
        let extent = slot.close();
        let contents = slot.contents().unwrap();
        assert_eq!(extent.end as u64, extent.items * 24);
        for part in contents[..extent.end].chunks(24) {
            assert!(part[0] > 0 && part.iter().all(|b| *b == part[0]));
        }
    }
}
