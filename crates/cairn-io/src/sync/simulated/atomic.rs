//! Atomics whose operations are steps.

pub use std::sync::atomic::Ordering;

use std::sync::atomic as native;

use crate::sync::seam::step;

macro_rules! atomics {
    ($($name:ident: $value:ty { $($op:ident)* })*) => {$(
        #[derive(Debug, Default)]
        #[repr(transparent)]
        pub struct $name(native::$name);

        impl $name {
            pub const fn new(value: $value) -> Self {
                Self(native::$name::new(value))
            }

            pub fn into_inner(self) -> $value {
                self.0.into_inner()
            }

            pub fn get_mut(&mut self) -> &mut $value {
                self.0.get_mut()
            }

            pub fn load(&self, order: Ordering) -> $value {
                step("load");
                self.0.load(order)
            }

            pub fn store(&self, value: $value, order: Ordering) {
                step("store");
                self.0.store(value, order);
            }

            pub fn swap(&self, value: $value, order: Ordering) -> $value {
                step("swap");
                self.0.swap(value, order)
            }

            pub fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                step("compare_exchange");
                self.0.compare_exchange(current, new, success, failure)
            }

            pub fn compare_exchange_weak(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                step("compare_exchange");
                self.0.compare_exchange_weak(current, new, success, failure)
            }

            pub fn fetch_update(
                &self,
                set: Ordering,
                fetch: Ordering,
                update: impl FnMut($value) -> Option<$value>,
            ) -> Result<$value, $value> {
                step("fetch_update");
                self.0.fetch_update(set, fetch, update)
            }

            $(pub fn $op(&self, value: $value, order: Ordering) -> $value {
                step(stringify!($op));
                self.0.$op(value, order)
            })*
        }

        impl From<$value> for $name {
            fn from(value: $value) -> Self {
                Self::new(value)
            }
        }
    )*};
}

atomics! {
    AtomicBool: bool { fetch_and fetch_or fetch_xor }
    AtomicU8: u8 { fetch_add fetch_sub fetch_max fetch_min fetch_and fetch_or fetch_xor }
    AtomicU32: u32 { fetch_add fetch_sub fetch_max fetch_min fetch_and fetch_or fetch_xor }
    AtomicU64: u64 { fetch_add fetch_sub fetch_max fetch_min fetch_and fetch_or fetch_xor }
    AtomicUsize: usize { fetch_add fetch_sub fetch_max fetch_min fetch_and fetch_or fetch_xor }
}

pub fn fence(order: Ordering) {
    step("fence");
    native::fence(order);
}
