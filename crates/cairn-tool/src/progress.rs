//! Progress on standard error, for people only: nothing is drawn unless it is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar for `total` bytes, or a counter when the total is not known.
pub(crate) fn bytes(total: Option<u64>, what: &'static str) -> ProgressBar {
    let known =
        "{prefix} [{bar:30}] {bytes}/{total_bytes} {binary_bytes_per_sec}, {eta} left {msg}";
    bar(
        total,
        what,
        if total.is_some() {
            known
        } else {
            "{prefix} {spinner} {bytes} {binary_bytes_per_sec} {msg}"
        },
    )
}

/// A bar for `total` steps, or a counter when the total is not known.
pub(crate) fn count(total: Option<u64>, what: &'static str) -> ProgressBar {
    let known = "{prefix} [{bar:30}] {pos}/{len}, {eta} left: {msg}";
    bar(total, what, if total.is_some() { known } else { "{prefix} {spinner} {msg}" })
}

fn bar(total: Option<u64>, what: &'static str, template: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
    // The templates are constants; a wrong one only looks plain.
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style.progress_chars("=> "));
    bar.set_prefix(what);
    if !bar.is_hidden() {
        bar.enable_steady_tick(Duration::from_millis(200));
    }
    bar
}

/// Counts for people: `1234567` as `1.23 M`.
pub(crate) fn short_count(n: f64) -> String {
    match n {
        n if n >= 1e9 => format!("{:.2} G", n / 1e9),
        n if n >= 1e6 => format!("{:.2} M", n / 1e6),
        n if n >= 1e3 => format!("{:.1} k", n / 1e3),
        n => format!("{n:.0}"),
    }
}

/// Microseconds for people: `1234.5` as `1.23 ms`.
pub(crate) fn short_us(us: f64) -> String {
    match us {
        us if us >= 1e6 => format!("{:.2} s", us / 1e6),
        us if us >= 1e4 => format!("{:.1} ms", us / 1e3),
        us if us >= 1e3 => format!("{:.2} ms", us / 1e3),
        us if us >= 10.0 => format!("{us:.0} µs"),
        us => format!("{us:.1} µs"),
    }
}
