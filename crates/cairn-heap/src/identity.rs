//! The identity of a policy, as a heap's file records it.

use std::fmt;

/// The identity of a policy, as a heap's file records it.
///
/// A heap opens only with a policy of the id that it was created with; otherwise opening fails with
/// [`Error::OtherPolicy`](crate::Error::OtherPolicy).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PolicyId {
    /// [`Slab`](crate::Slab).
    Slab {
        /// Length of a block that fits into one place, from 8 bytes to 1 GiB.
        block_size: u64,
    },
    /// [`Linear`](crate::Linear).
    Linear,
    /// [`SizeClass`](crate::SizeClass).
    SizeClass,
    /// A policy that is not one of Cairn's.
    Custom {
        /// At least [`CUSTOM_MIN`](Self::CUSTOM_MIN). Draw it at random when you write the policy,
        /// so that it differs from other people's policies.
        number: u32,
        /// A parameter that must be the same at each opening, such as a size or an alignment; or 0.
        parameter: u64,
    },
}

impl PolicyId {
    /// Lowest number of a custom policy: 2^31.
    pub const CUSTOM_MIN: u32 = 1 << 31;

    /// Number and parameter in the file.
    pub(crate) fn encode(self) -> (u32, u64) {
        match self {
            PolicyId::Slab { block_size } => (1, block_size),
            PolicyId::Linear => (2, 0),
            PolicyId::SizeClass => (3, 0),
            PolicyId::Custom { number, parameter } => (number, parameter),
        }
    }

    /// `None` for a reserved number.
    pub(crate) fn decode(number: u32, parameter: u64) -> Option<Self> {
        match (number, parameter) {
            (1, block_size) => Some(PolicyId::Slab { block_size }),
            (2, 0) => Some(PolicyId::Linear),
            (3, 0) => Some(PolicyId::SizeClass),
            (Self::CUSTOM_MIN.., _) => Some(PolicyId::Custom { number, parameter }),
            _ => None,
        }
    }
}

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PolicyId::Slab { block_size } => write!(f, "slab with blocks of {block_size} bytes"),
            PolicyId::Linear => f.write_str("linear"),
            PolicyId::SizeClass => f.write_str("size-class"),
            PolicyId::Custom { number, parameter } => {
                write!(f, "custom policy {number:#010x} with parameter {parameter}")
            }
        }
    }
}
