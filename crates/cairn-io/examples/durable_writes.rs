//! How fast durable writes are in a directory, each way there is: what each backend of a log can
//! give at most.
//!
//! `cargo run --release -p cairn-io --features io-uring --example durable_writes -- DIR`, best
//! under `chrt -f 10`. Needs 192 MiB, which it gives back.
#![expect(clippy::print_stdout, reason = "it is there to print")]

use std::error::Error;
use std::io::{self, IoSlice};
use std::path::Path;
use std::thread;
use std::time::Instant;

use cairn_io::{DirectStore, FileStore, NativeFs, Store};

/// Bytes written in each run.
const FILE: usize = 64 << 20;

/// Median and 99th percentile of one durable write, in microseconds, by `threads` threads at once.
fn measure(store: &dyn Store, len: usize, threads: usize) -> io::Result<(f64, f64, f64)> {
    let memory = vec![7; len + 4096];
    let start = memory.as_ptr().addr().next_multiple_of(4096) - memory.as_ptr().addr();
    let slices = [IoSlice::new(&memory[start..start + len])];
    let writes = (FILE / len).min(4000);
    let begun = Instant::now();
    let times: io::Result<Vec<_>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|thread| {
                let slices = &slices;
                scope.spawn(move || {
                    let mut times = Vec::new();
                    for write in (thread..writes).step_by(threads) {
                        let begun = Instant::now();
                        store.write_durable((write * len) as u64, slices)?;
                        times.push(begun.elapsed().as_secs_f64() * 1e6);
                    }
                    Ok(times)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
    });
    let mut times: Vec<f64> = times?.concat();
    let all = begun.elapsed().as_secs_f64();
    times.sort_by(f64::total_cmp);
    Ok((times[times.len() / 2], times[times.len() * 99 / 100], writes as f64 / all))
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args_os().nth(1).ok_or("name a directory on the device that is meant")?;
    let dir = tempfile::tempdir_in(Path::new(&dir))?;
    let buffered = FileStore::open(&NativeFs, &dir.path().join("buffered"))?;
    let direct = DirectStore::open(&NativeFs, &dir.path().join("direct"))?;
    let ways: &[(&str, &dyn Store)] = &[
        ("buffered", &buffered),
        ("direct", &direct),
        #[cfg(feature = "io-uring")]
        ("io_uring", &DirectStore::open(&cairn_io::UringFs, &dir.path().join("io_uring"))?),
    ];
    for (_, store) in ways {
        store.write_at(0, &vec![0; FILE])?;
        store.sync()?;
    }
    for (len, threads) in
        [(4 << 10, 1), (64 << 10, 1), (256 << 10, 1), (1 << 20, 1), (4 << 10, 4), (64 << 10, 4)]
    {
        println!("{} KiB, {threads} threads:", len >> 10);
        let mut runs = vec![Vec::new(); ways.len()];
        for _ in 0..7 {
            for (run, (_, store)) in runs.iter_mut().zip(ways) {
                run.push(measure(*store, len, threads)?);
            }
        }
        for (run, (name, store)) in runs.iter_mut().zip(ways) {
            run.sort_by(|a, b| a.0.total_cmp(&b.0));
            let (median, p99, rate) = run[run.len() / 2];
            println!(
                "  {name:9} ({}): median {median:7.1} µs, p99 {p99:7.1} µs, {rate:7.0}/s",
                store.backend()
            );
        }
    }
    Ok(())
}
