//! How long things took.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Durations, to three digits, from a nanosecond to a minute; a longer one counts as a minute.
#[derive(Clone, Debug)]
pub(crate) struct Latencies(Histogram<u64>);

const MAX_NS: u64 = 60_000_000_000;
const DIGITS: u8 = 3;

impl Latencies {
    pub(crate) fn new() -> Self {
        Latencies(Histogram::new_with_bounds(1, MAX_NS, DIGITS).expect("these bounds are legal"))
    }

    pub(crate) fn record(&mut self, duration: Duration) {
        self.0.saturating_record(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// In microseconds, what this part of all durations, from 0 to 1, does not exceed.
    pub(crate) fn quantile_us(&self, part: f64) -> f64 {
        self.0.value_at_quantile(part) as f64 / 1e3
    }

    pub(crate) fn max_us(&self) -> f64 {
        self.0.max() as f64 / 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_all_that_was_recorded() {
        let (mut all, mut more) = (Latencies::new(), Latencies::new());
        (1..=50).for_each(|us| all.record(Duration::from_micros(us)));
        (51..=100).for_each(|us| more.record(Duration::from_micros(us)));
        all.add(&more);
        assert_eq!(all.count(), 100);
        for (part, us) in [(0.0, 1.0), (0.5, 50.0), (0.99, 99.0), (1.0, 100.0)] {
            assert!(
                (all.quantile_us(part) - us).abs() <= us / 500.0,
                "{part}: {}",
                all.quantile_us(part)
            );
        }
        more.record(Duration::from_secs(3600));
        assert!((more.max_us() - 60e6).abs() < 60e3, "{}", more.max_us());
    }
}
