//! Counts words, in a file that any crash leaves whole: `cargo run --example hash_map -- FILE < text`.
#![allow(clippy::print_stdout, reason = "it is what the program is for")]

use cairn_heap::{Heap, Policy};
use cairn_stack::Stack;

mod map;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: hash_map FILE < text")?;
    let heap = Heap::open(Stack::open(path)?, Policy::SizeClass)?;
    let words = map::Map::open(&heap, 0)?;
    for word in std::io::read_to_string(std::io::stdin())?.split_whitespace() {
        let count = words.get(word.as_bytes())?.map_or(0, |count| count[0]);
        words.insert(word.as_bytes(), &[count.saturating_add(1)])?;
    }
    for (word, count) in words.entries()? {
        println!("{:4} {}", count[0], String::from_utf8_lossy(&word));
    }
    println!("{} words", words.len()?);
    words.remove(b"")?;
    Ok(heap.close()?)
}
