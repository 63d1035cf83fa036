//! The real file system: `std` where it says what we need, `rustix` for directories by
//! descriptor, vectored writes and allocation, and an io_uring on demand.

mod barrier;
#[cfg(unix)]
mod dir;
#[cfg(target_os = "linux")]
mod direct;
mod file;
mod fs;
#[cfg(not(unix))]
mod path_dir;
#[cfg(all(feature = "io-uring", target_os = "linux"))]
mod ring;
#[cfg(all(feature = "io-uring", target_os = "linux"))]
mod rings;
mod stat;
#[cfg(feature = "io-uring")]
mod uring;

pub use fs::NativeFs;
#[cfg(feature = "io-uring")]
pub use uring::UringFs;
