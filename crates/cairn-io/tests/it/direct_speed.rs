//! How fast durable writes are, each way. Not a test: `cargo test --release -p cairn-io --features io-uring direct_speed -- --ignored --nocapture`,
//! best under `chrt -f 10`, with `CARGO_TARGET_DIR` on the device that is meant.
#![expect(clippy::print_stdout, reason = "it is there to print")]

use std::io::IoSlice;
use std::thread;
use std::time::Instant;

use cairn_io::{DirectStore, FileStore, NativeFs, Store};

use crate::direct::direct_dir;

/// Bytes written in each run.
const FILE: usize = 64 << 20;

/// Median and 99th percentile of one durable write, in microseconds, by `threads` threads at once.
fn measure(store: &dyn Store, len: usize, threads: usize) -> (f64, f64, f64) {
    let memory = vec![7; len + 4096];
    let start = memory.as_ptr().addr().next_multiple_of(4096) - memory.as_ptr().addr();
    let slices = [IoSlice::new(&memory[start..start + len])];
    let writes = (FILE / len).min(4000);
    let begun = Instant::now();
    let mut times: Vec<f64> = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|thread| {
                let slices = &slices;
                scope.spawn(move || {
                    let mut times = Vec::new();
                    for write in (thread..writes).step_by(threads) {
                        let begun = Instant::now();
                        store.write_durable((write * len) as u64, slices).unwrap();
                        times.push(begun.elapsed().as_secs_f64() * 1e6);
                    }
                    times
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let all = begun.elapsed().as_secs_f64();
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[times.len() * 99 / 100], writes as f64 / all)
}

#[test]
#[ignore = "measures"]
fn direct_speed() {
    let Some(dir) = direct_dir() else { return };
    let buffered = FileStore::open(&NativeFs, &dir.path().join("buffered")).unwrap();
    let direct = DirectStore::open(&NativeFs, &dir.path().join("direct")).unwrap();
    let ways: &[(&str, &dyn Store)] = &[
        ("buffered", &buffered),
        ("direct", &direct),
        #[cfg(feature = "io-uring")]
        ("io_uring", &DirectStore::open(&cairn_io::UringFs, &dir.path().join("io_uring")).unwrap()),
    ];
    for (_, store) in ways {
        store.write_at(0, &vec![0; FILE]).unwrap();
        store.sync().unwrap();
    }
    for (len, threads) in [(4 << 10, 1), (64 << 10, 1), (256 << 10, 1), (1 << 20, 1), (4 << 10, 4), (64 << 10, 4)] {
        println!("{} KiB, {threads} threads:", len >> 10);
        let mut runs = vec![Vec::new(); ways.len()];
        for _ in 0..7 {
            for (run, (_, store)) in runs.iter_mut().zip(ways) {
                run.push(measure(*store, len, threads));
            }
        }
        for (run, (name, store)) in runs.iter_mut().zip(ways) {
            run.sort_by(|a, b| a.0.total_cmp(&b.0));
            let (median, p99, rate) = run[run.len() / 2];
            println!("  {name:9} ({}): median {median:7.1} µs, p99 {p99:7.1} µs, {rate:7.0}/s", store.backend());
        }
    }
}
