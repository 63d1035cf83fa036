//! A list of measurements that any crash leaves whole:
//! `cargo run --example records -- FILE [NUMBER | INDEX=NUMBER | pop]…`.
#![allow(clippy::print_stdout, reason = "it is what the program is for")]

use cairn_heap::{Heap, SizeClass};
use cairn_stack::Stack;

mod records;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: records FILE [NUMBER | INDEX=NUMBER | pop]…")?;
    let heap = Heap::open(Stack::open(path)?, SizeClass)?;
    let records = records::Records::open(&heap, 0, 8)?;
    for arg in args {
        match arg.split_once('=') {
            Some((index, number)) => {
                records.set(index.parse()?, &number.parse::<f64>()?.to_le_bytes())?
            }
            None if arg == "pop" => _ = records.pop()?,
            None => _ = records.push(&arg.parse::<f64>()?.to_le_bytes())?,
        }
    }
    for (index, record) in records.all()?.iter().enumerate() {
        println!("{index:4} {}", f64::from_le_bytes(record[..].try_into()?));
    }
    Ok(heap.close()?)
}
