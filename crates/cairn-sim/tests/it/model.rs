//! The simulator against an independent, slow and obvious model: random operations on one file,
//! every reachable content computed byte by byte from the list of operations alone.

use std::io::IoSlice;
use std::path::Path;

use cairn_io::Fs;
use cairn_sim::{CrashExplorer, SimFs};

use crate::{last_states, open, read, write};

const SECTOR: usize = 512;
const SECTORS: usize = 6;

#[derive(Clone)]
#[repr(align(512))]
struct Sector([u8; SECTOR]);

/// Splitmix64, as the crate's own is private.
fn draw(state: &mut u64, bound: u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((x ^ (x >> 31)) >> 16) % bound
}

/// All images since the last barrier; the last is the live one.
struct Model {
    images: Vec<Vec<u8>>,
}

impl Model {
    fn live(&self) -> Vec<u8> {
        self.images.last().unwrap().clone()
    }

    fn sector(image: &[u8], i: usize) -> Vec<u8> {
        let mut padded = image.to_vec();
        padded.resize(SECTOR * SECTORS, 0);
        padded[i * SECTOR..(i + 1) * SECTOR].to_vec()
    }

    /// Whether `found` is made of one of the lengths and, sector by sector, of one of the versions
    /// (zeros past the chosen length).
    fn allows(&self, found: &[u8]) -> bool {
        let length = self.images.iter().any(|image| image.len() == found.len());
        let clipped = |image: &[u8]| image[..image.len().min(found.len())].to_vec();
        let sector = |i| {
            self.images
                .iter()
                .any(|image| Self::sector(&clipped(image), i) == Self::sector(found, i))
        };
        length && (0..SECTORS).all(sector)
    }
}

#[test]
fn every_state_is_one_that_the_model_allows() {
    for seed in 0..200 {
        let mut rng = seed;
        let sim = SimFs::new();
        sim.write_file("/f", [0xff; 1500]).unwrap();
        let (file, direct) = (open(&sim, "/f"), sim.open_direct(Path::new("/f")).unwrap());
        let mut model = Model { images: vec![vec![0xff; 1500]] };
        for step in 1..=12u8 {
            let mut image = model.live();
            match draw(&mut rng, 10) {
                0..=4 => {
                    let offset = usize::try_from(draw(&mut rng, 1800)).unwrap();
                    let len = usize::try_from(draw(&mut rng, 1200)).unwrap() + 1;
                    write(&file, offset as u64, &vec![step; len]);
                    image.resize(image.len().max(offset + len), 0);
                    image[offset..offset + len].fill(step);
                    model.images.push(image);
                }
                5 | 6 => {
                    let len = usize::try_from(draw(&mut rng, 3000)).unwrap();
                    file.set_len(len as u64).unwrap();
                    image.resize(len, 0);
                    model.images.push(image);
                }
                7 | 8 => {
                    let first = usize::try_from(draw(&mut rng, SECTORS as u64)).unwrap();
                    let count =
                        usize::try_from(draw(&mut rng, (SECTORS - first) as u64)).unwrap() + 1;
                    let (at, sectors) = (first * SECTOR, vec![Sector([step; SECTOR]); count]);
                    let slices: Vec<IoSlice<'_>> =
                        sectors.iter().map(|sector| IoSlice::new(&sector.0)).collect();
                    direct.write_at(at as u64, &slices).unwrap();
                    model.images.push(image);
                    // Whatever else survives, these bytes do.
                    for image in &mut model.images {
                        image.resize(image.len().max(at + count * SECTOR), 0);
                        image[at..at + count * SECTOR].fill(step);
                    }
                }
                _ => {
                    file.sync_data().unwrap();
                    model.images = vec![image];
                }
            }
            assert_eq!(read(&file), model.live(), "seed {seed}, step {step}");
            let explorer = CrashExplorer::new(sim.trace()).seed(seed).samples_per_point(40);
            for state in last_states(&explorer, &sim) {
                let found = state.fs().read_file("/f").unwrap();
                assert!(model.allows(&found), "seed {seed}, step {step}\n{state}");
            }
        }
        file.sync_data().unwrap();
        let states = last_states(&CrashExplorer::new(sim.trace()), &sim);
        assert_eq!(states.len(), 1, "seed {seed}");
        assert_eq!(states[0].fs().read_file("/f").unwrap(), model.live(), "seed {seed}");
    }
}
