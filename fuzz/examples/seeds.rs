//! Writes the seed corpus: `cargo run --example seeds` in `fuzz/`. The same every time.

use std::fs;
use std::path::Path;

use cairn_fuzz::frame::UUID;
use cairn_fuzz::logs::{DATA_OFFSET, Files, packed, real, stores};

fn main() -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let write = |target: &str, name: String, bytes: &[u8]| {
        let dir = corpus.join(target);
        fs::create_dir_all(&dir)?;
        fs::write(dir.join(name), bytes)
    };
    let logs: Vec<Files> = real();
    for (i, files) in logs.iter().enumerate() {
        let segments = files
            .iter()
            .filter(|(name, bytes)| name.ends_with(".cairn") && bytes.len() >= DATA_OFFSET);
        for (j, (_, segment)) in segments.enumerate().filter(|(j, _)| *j < 3) {
            // Unsigned as they are, and with everything signed.
            for (control, kind) in [(0x8E, "raw"), (0x00, "signed")] {
                let input = [&[control, 0, 0, (i % 4) as u8][..], &packed(segment)].concat();
                if input.len() < 12 << 10 {
                    write("segment_scan", format!("log{i}-segment{j}-{kind}"), &input)?;
                }
            }
            write(
                "superblock",
                format!("log{i}-segment{j}"),
                &[&[0][..], &segment[..88]].concat(),
            )?;
            let groups = &segment[DATA_OFFSET..];
            let groups = &groups[..groups.len().min(2048)];
            write("frame", format!("log{i}-segment{j}"), &[&[0; 8][..], groups].concat())?;
        }
    }
    for (i, (store, head)) in stores().iter().enumerate() {
        // Whole, and without its beginning, as a store of small files would leave it.
        let before_the_head = u8::try_from((head - 40) / 32).expect("a small log");
        for (kind, dropped, how) in
            [("whole", 0, 0), ("dropped", before_the_head, 2), ("half", before_the_head / 2, 2)]
        {
            let input = [&[0x8E, 0, dropped, how][..], &packed(store)].concat();
            write("segment_scan", format!("store{i}-{kind}"), &input)?;
        }
    }
    write("frame", "uuid".into(), &[&[0x20; 8][..], &UUID].concat())?;
    write("superblock", "name".into(), b"00000000000000004096-0000000007.cairn")?;
    // The others decode their inputs by kind: any bytes mean something.
    let mut dice = 0x9E37_79B9_7F4A_7C15_u64;
    for i in 0..10u64 {
        let len = 16 + 24 * i as usize;
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            dice = dice
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (dice >> 56) as u8
        })
        .take(len)
        .collect();
        write("open_directory", format!("random{i:02}"), &bytes)?;
        write("operations", format!("random{i:02}"), &bytes)?;
        write("stack_open", format!("random{i:02}"), &bytes)?;
        write("stack_operations", format!("random{i:02}"), &bytes)?;
        write("heap_open", format!("random{i:02}"), &bytes)?;
        write("heap_operations", format!("random{i:02}"), &bytes)?;
    }
    Ok(())
}
