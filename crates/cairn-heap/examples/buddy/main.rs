//! A heap with a custom policy:
//! `cargo run --example buddy -- FILE [LENGTH | free INDEX]…`.
#![allow(clippy::print_stdout, reason = "it is what the program is for")]

use cairn_heap::Heap;
use cairn_stack::Stack;

mod buddy;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: buddy FILE [LENGTH | free INDEX]…")?;
    let heap = Heap::open(Stack::open(path)?, buddy::Buddy)?;
    while let Some(arg) = args.next() {
        if arg == "free" {
            let index: usize = args.next().ok_or("free takes an index")?.parse()?;
            let block = heap.blocks()?.nth(index).ok_or("there is no such block")?;
            heap.dealloc(block)?;
        } else {
            heap.alloc(arg.parse()?)?;
        }
    }
    for (index, block) in heap.blocks()?.enumerate() {
        println!("{index:4} offset {:8}, {} bytes", block.start(), block.len());
    }
    let stats = heap.stats()?;
    println!("{} bytes live, {} free", stats.live_bytes, stats.free_bytes);
    Ok(heap.close()?)
}
