//! A record that does not fit in memory is an error with its place, and never an abort.

use std::process::{Command, Output};

use crate::common::*;

/// Runs a command in a shell with so little address space.
fn limited(kib: u32, shell: &str) -> Output {
    let command = format!("ulimit -c 0; ulimit -v {kib}; {shell}");
    Command::new("bash").args(["-c", &command]).output().unwrap()
}

/// A line of this many bytes, made by a program that has the memory.
fn long_line(mib: u32) -> String {
    format!("head -c {}M /dev/zero | tr '\\0' x", mib)
}

/// guards: L69
#[test]
fn a_line_larger_than_memory_is_an_error_with_its_number() {
    let (_parent, dir) = fresh();
    for (args, words) in [
        ("--max-record-size 1GiB", "line 2 has "),
        ("--max-record-size 1GiB --json", "line 2 has "),
    ] {
        let input = format!("(echo first; {})", long_line(300));
        let bounded = format!("(ulimit -v 150000; '{CAIRN}' append '{dir}' {args})");
        let output = limited(4_000_000, &format!("{input} | {bounded}"));
        check_error(1, &output, &[words, "refuses the memory", "durable of this run: 1 record"]);
    }
    assert_eq!(cat(&dir), b"first\nfirst\n");
}

/// guards: L69
#[test]
fn a_frame_larger_than_memory_is_an_error_with_its_number() {
    let (_parent, dir) = fresh();
    let input = format!("(printf '\\001\\0\\0\\0a\\0\\0\\0\\020'; {})", long_line(256));
    let args = "--framed --max-record-size 1GiB";
    let bounded = format!("(ulimit -v 150000; '{CAIRN}' append '{dir}' {args})");
    let output = limited(4_000_000, &format!("{input} | {bounded}"));
    check_error(1, &output, &["frame 2 has ", "refuses the memory"]);
    assert_eq!(cat(&dir), b"a\n");
}

/// guards: L69
#[test]
fn a_record_larger_than_memory_cannot_be_read_and_nothing_aborts() {
    let (_parent, dir) = fresh();
    let made = limited(4_000_000, &format!("{} | '{CAIRN}' append '{dir}'", long_line(60)));
    check(0, made);
    let (_other, small) = fresh();
    append(&small, b"x\n");
    let segment = segments(&dir)[0].to_str().unwrap().to_owned();
    for what in [
        format!("cat '{dir}'"),
        format!("cat '{dir}' --json"),
        format!("digest '{dir}'"),
        format!("diff '{dir}' '{dir}'"),
        format!("dump '{segment}'"),
        format!("info '{dir}' --stats"),
        format!("verify '{dir}'"),
    ] {
        let output = limited(50_000, &format!("'{CAIRN}' {what}"));
        check_error(1, &output, &["LSN 56"]);
    }
}
