//! A limit on what costs a peer nothing to send: so much at once, and so much per second from then on.

use tokio::time::Instant;

/// What one peer may still send.
#[derive(Debug)]
pub(crate) struct Allowance {
    used: usize,
    since: Instant,
}

impl Allowance {
    pub(crate) fn new(now: Instant) -> Self {
        Self { used: 0, since: now }
    }

    /// Uses so many; `false` if there are none left. Looks at the clock only when the burst is used up.
    #[inline]
    pub(crate) fn spend(&mut self, count: usize, burst: usize, per_second: usize) -> bool {
        self.used = self.used.saturating_add(count);
        self.used <= burst || self.refill(burst, per_second, Instant::now())
    }

    #[cold]
    fn refill(&mut self, burst: usize, per_second: usize, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.since).as_secs_f64();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)] // saturates
        let refilled = (elapsed * per_second as f64) as usize;
        if refilled > 0 {
            self.since = now;
            self.used = self.used.saturating_sub(refilled);
        }
        self.used <= burst
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_is_allowed_and_then_the_rate() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        assert!((0..10).all(|_| allowance.spend(1, 10, 1)));
        allowance.used += 1;
        assert!(!allowance.refill(10, 100, start), "nothing has been given back yet");
        assert!(allowance.refill(10, 100, start + Duration::from_millis(50)));
        assert_eq!(allowance.used, 6);
    }

    #[test]
    fn a_long_life_at_a_low_rate_is_no_flood() {
        let start = Instant::now();
        let mut allowance = Allowance { used: 10, since: start };
        for second in 1..1_000 {
            allowance.used += 1;
            assert!(allowance.used <= 10 || allowance.refill(10, 2, start + Duration::from_secs(second)));
        }
    }
}
