//! Contract suites: what every implementation of the two seams must do, as checks that panic.
