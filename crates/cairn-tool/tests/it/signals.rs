//! A polite signal ends an append as the end of its input does.

use std::io::Write as _;
use std::time::{Duration, Instant};

use crate::common::*;
use crate::look::kill;

#[test]
fn a_signal_ends_cleanly_with_everything_acknowledged() {
    for (signal, each) in
        [("TERM", &[][..]), ("INT", &[]), ("HUP", &["--each"]), ("INT", &["--each"])]
    {
        let (_parent, dir) = fresh();
        let mut appender = Appender::start(&[&["append", &dir, "--ack"], each].concat());
        let mut stdin = appender.stdin.take().unwrap();
        let feeder = std::thread::spawn(move || {
            for n in 0..u64::MAX {
                if stdin.write_all(&numbers(n * 10_000..(n + 1) * 10_000)).is_err() {
                    return;
                }
            }
        });
        let first = appender.ack();
        std::thread::sleep(Duration::from_millis(60));
        kill(&appender.child, signal);
        let asked = Instant::now();
        let mut acks = vec![first];
        acks.extend(appender.remaining_acks());
        let output = appender.end();
        feeder.join().unwrap();
        assert!(
            asked.elapsed() < Duration::from_secs(5),
            "what was read ahead delays the end: {:?}",
            asked.elapsed()
        );
        let said = text(&output.stderr);
        check(0, output);
        assert!(
            said.contains(&format!("{} records, ", acks.len())),
            "{} acknowledged: {said}",
            acks.len()
        );
        assert!(said.contains(&format!("ended by SIG{signal}")), "{said}");
        let shown = records(&dir);
        assert_eq!(shown.iter().map(|record| record.lsn).collect::<Vec<_>>(), acks);
        assert!(shown.iter().enumerate().all(|(n, record)| record.payload == Some(n.to_string())));
        let info = json(&check(0, run(&["info", &dir, "--json"])));
        assert_eq!(info["state"], "closed");
    }
}

#[test]
fn a_line_whose_end_was_not_read_is_left_out() {
    let (_parent, dir) = fresh();
    let mut appender = Appender::start(&["append", &dir, "--ack"]);
    appender.write(b"whole\nhalf");
    appender.ack();
    kill(&appender.child, "TERM");
    let stdin = appender.stdin.take();
    let output = appender.end();
    drop(stdin);
    assert!(
        text(&output.stderr).contains("4 bytes read are not a whole record"),
        "{}",
        text(&output.stderr)
    );
    check(0, output);
    assert_eq!(cat(&dir), b"whole\n");
}
