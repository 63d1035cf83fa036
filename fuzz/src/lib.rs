//! What the fuzz targets do, as functions of bytes, so that an input can also be run without
//! libFuzzer.
//!
//! A finding is a panic. Each module says what must hold.

pub mod frame;
pub mod heap_open;
pub mod heap_operations;
pub mod logs;
pub mod open_directory;
pub mod operations;
pub mod segment_scan;
pub mod stack_open;
pub mod stack_operations;
pub mod superblock;

/// Prints what an input means when `CAIRN_FUZZ_TRACE` is set.
fn trace(what: &dyn std::fmt::Debug) {
    if std::env::var_os("CAIRN_FUZZ_TRACE").is_some() {
        eprintln!("{what:?}");
    }
}
