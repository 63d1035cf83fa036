//! Counts words, in a file that any crash leaves whole; forgets those with a `-` before them:
//! `cargo run --example hash_map -- FILE < text`.
#![allow(clippy::print_stdout, reason = "it is what the program is for")]

use cairn_heap::{Heap, SizeClass};
use cairn_stack::Stack;

mod map;

fn count(value: &[u8]) -> u64 {
    u64::from_le_bytes(value.try_into().expect("as it was inserted"))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: hash_map FILE < text")?;
    let heap = Heap::open(Stack::open(path)?, SizeClass)?;
    let words = map::Map::open(&heap, 0)?;
    for word in std::io::read_to_string(std::io::stdin())?.split_whitespace() {
        match word.strip_prefix('-') {
            Some(word) => _ = words.remove(word.as_bytes())?,
            None => {
                let before = words.get(word.as_bytes())?.map_or(0, |value| count(&value));
                words.insert(word.as_bytes(), &(before + 1).to_le_bytes())?;
            }
        }
    }
    for (word, value) in words.entries()? {
        println!("{:4} {}", count(&value), String::from_utf8_lossy(&word));
    }
    println!("{} words", words.len()?);
    Ok(heap.close()?)
}
