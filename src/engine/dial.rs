//! Dialling: one task per connected endpoint that connects, waits for the end, backs off, and connects again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::endpoint::Endpoint;
use crate::engine::shared::{Arrival, AttachmentId, Command, Shared};
use crate::monitor::Event;
use crate::transport;

/// A connection that lasts no longer than this is a short one.
const SHORT: Duration = Duration::from_secs(1);

/// The delays between attempts: exponential, with jitter.
#[derive(Debug)]
struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    fn reset(&mut self) {
        self.next = self.first;
    }

    fn slowest(&mut self) {
        self.next = self.longest;
    }

    /// The next delay: between three quarters of its nominal value and all of it, so that peers that lost the same
    /// server do not come back in step.
    fn delay(&mut self) -> Duration {
        let nominal = self.next;
        self.next = nominal.saturating_mul(2).min(self.longest);
        nominal.mul_f64(0.75 + 0.25 * fastrand::f64())
    }
}

/// Keeps `endpoint` connected until the task is aborted or the I/O task is gone.
pub(crate) async fn dial(shared: Arc<Shared>, endpoint: Endpoint, attachment: AttachmentId) {
    let mut backoff = Backoff::new(shared.options.reconnect_first, shared.options.reconnect_longest);
    let (mut careful, mut hurried) = (false, false);
    loop {
        let start = Instant::now();
        let cause = match transport::connect(&endpoint, &shared.options).await {
            Ok(connected) => {
                let (ended, end) = oneshot::channel();
                shared.signal.command(Command::Attach(Box::new(Arrival {
                    connected,
                    attachment,
                    endpoint: endpoint.clone(),
                    permit: None,
                    careful,
                    ended: Some(ended),
                })));
                let Ok(end) = end.await else {
                    return;
                };
                careful = end.in_greeting;
                // A peer that ends one connection after the other right after the handshake is none to be hurried back to.
                let was_short = start.elapsed() < SHORT;
                if end.was_ready && !(was_short && hurried) {
                    hurried = was_short;
                    backoff.reset();
                }
                if end.permanent {
                    backoff.slowest();
                }
                end.cause
            }
            Err(error) => error.to_string(),
        };
        let delay = backoff.delay();
        tracing::debug!(%cause, ?delay, "will reconnect");
        shared.counters.connects_retried.add(1);
        shared.reporter.report(|| Event::ConnectRetried { endpoint: endpoint.clone(), cause, delay });
        tokio::time::sleep(delay).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest_with_jitter_below() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(500));
        for nominal in [100, 200, 400, 500, 500] {
            let delay = backoff.delay();
            let nominal = Duration::from_millis(nominal);
            assert!((nominal.mul_f64(0.75)..=nominal).contains(&delay), "{delay:?} for {nominal:?}");
        }
        backoff.reset();
        assert!(backoff.delay() <= Duration::from_millis(100));
        backoff.slowest();
        assert!(backoff.delay() >= Duration::from_millis(375));
    }
}
