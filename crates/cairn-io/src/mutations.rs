//! One switch for deliberate bugs, for every crate that has a catalogue of them.

/// Defines a crate's catalogue of deliberate bugs and the switch that turns one of them on.
///
/// Tests use it to show that they would catch a bug. The feature `mutations` belongs to the crate
/// that calls the macro. Without the feature no bug can be turned on, and `is` is a constant.
///
/// The macro is called once, in a module `mutation`, and defines there:
/// * the enum, with the variants and the comments that were given;
/// * `is(Mutation::X)`, which the crate's code asks: whether this thread has the bug now;
/// * with the feature, `Mutation::X.during(|| ..)` for tests, and `Mutation::ALL`.
///
/// Not for users: it changes without notice.
#[doc(hidden)]
#[macro_export]
macro_rules! mutations {
    (
        $(#[$about:meta])*
        pub enum $Mutation:ident {
            $($(#[$bug:meta])* $Variant:ident),+ $(,)?
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[cfg_attr(
            not(feature = "mutations"),
            allow(unreachable_pub, dead_code, reason = "tests alone see it")
        )]
        pub enum $Mutation {
            $($(#[$bug])* $Variant),+
        }

        #[cfg(feature = "mutations")]
        mod switch {
            use std::cell::Cell;

            use super::$Mutation;

            thread_local! {
                static ACTIVE: Cell<Option<$Mutation>> = const { Cell::new(None) };
            }

            pub(crate) fn is(mutation: $Mutation) -> bool {
                ACTIVE.get() == Some(mutation)
            }

            impl $Mutation {
                /// Every bug of the catalogue, in the order of the enum.
                pub const ALL: &[$Mutation] = &[$($Mutation::$Variant),+];

                /// Turns the bug on for this thread while `run` runs. It is off again afterwards,
                /// also after a panic; then the bug that was on before is on again, if any was.
                pub fn during<T>(self, run: impl FnOnce() -> T) -> T {
                    struct Reset(Option<$Mutation>);
                    impl Drop for Reset {
                        fn drop(&mut self) {
                            ACTIVE.set(self.0);
                        }
                    }
                    let _reset = Reset(ACTIVE.replace(Some(self)));
                    run()
                }
            }
        }

        #[cfg(not(feature = "mutations"))]
        mod switch {
            use super::$Mutation;

            pub(crate) const fn is(_: $Mutation) -> bool {
                false
            }
        }

        /// Whether this thread has the bug now.
        pub(crate) use switch::is;
    };
}
