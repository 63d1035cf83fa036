#![doc = include_str!("../README.md")]

mod error;
mod handles;
mod home;
mod mutation;
mod open;
mod store;
mod superblock;
mod survey;

pub use error::Error;
#[cfg(feature = "mutations")]
#[doc(hidden)]
pub use mutation::Mutation;
pub use open::SegmentedOptions;
pub use store::SegmentedStore;
