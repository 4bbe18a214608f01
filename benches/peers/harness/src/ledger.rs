//! The receiver's books: nothing lost, nothing doubled, nothing out of order, and when the first and the last came.

use anyhow::{Result, anyhow, bail};

use crate::{meter::Meter, payload::read_head};

/// Which order the receiver may insist on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Each source's counter goes up by one: one receiver gets everything.
    Exact,
    /// The counter goes up at each socket: several sockets share the messages.
    Rising,
    /// The payload is shared and has no counter; only sizes and numbers are checked.
    Unnumbered,
}

/// Counts and checks what arrives.
#[derive(Debug)]
pub struct Ledger {
    size: usize,
    wanted: u64,
    order: Order,
    /// By source ([`Order::Exact`]) or by socket ([`Order::Rising`]): the smallest counter still allowed.
    next: Vec<u64>,
    received: u64,
    /// Sum of all counters: shared out among sockets, it shows a loss or a double.
    sum: u64,
    fault: Option<String>,
    meter: Option<Meter>,
    /// Taken when the last message came.
    measured: Option<(f64, f64)>,
}

impl Ledger {
    /// Books for `wanted` messages of `size` bytes on `lanes` sources or sockets.
    pub fn new(size: usize, wanted: u64, order: Order, lanes: usize) -> Self {
        Self {
            size,
            wanted,
            order,
            next: vec![0; lanes],
            received: 0,
            sum: 0,
            fault: None,
            meter: None,
            measured: None,
        }
    }

    /// Enters one message that came on socket number `socket`; true when no more is needed.
    #[inline]
    pub fn take(&mut self, socket: usize, body: &[u8]) -> bool {
        if self.meter.is_none() {
            self.meter = Some(Meter::start());
        }
        self.received += 1;
        if body.len() != self.size {
            self.fail(format!("a message of {} bytes instead of {}", body.len(), self.size));
        } else if self.order != Order::Unnumbered {
            self.check_order(socket, body);
        }
        if self.received == self.wanted {
            self.measured = self.meter.as_ref().map(Meter::elapsed);
        }
        self.is_done()
    }

    /// Whether everything came, or something went wrong.
    #[inline]
    pub fn is_done(&self) -> bool {
        self.received >= self.wanted || self.fault.is_some()
    }

    #[inline]
    fn check_order(&mut self, socket: usize, body: &[u8]) {
        let Some((source, counter)) = read_head(body) else {
            return self.fail("a message without a head".to_owned());
        };
        let lane = if self.order == Order::Exact { source } else { socket };
        let Some(next) = self.next.get_mut(lane) else {
            return self.fail(format!("a message from the unknown source {lane}"));
        };
        let expected = *next;
        let in_order = if self.order == Order::Exact { counter == expected } else { counter >= expected };
        *next = counter + 1;
        self.sum = self.sum.wrapping_add(counter);
        if !in_order {
            self.fail(format!("message {counter} of lane {lane} came where {expected} was due"));
        }
    }

    #[cold]
    fn fail(&mut self, fault: String) {
        self.fault.get_or_insert(fault);
    }

    /// Closes the books: seconds from the first to the last message, and the CPU seconds used meanwhile.
    pub fn close(self) -> Result<(f64, f64)> {
        if let Some(fault) = self.fault {
            bail!("{fault} (after {} of {} messages)", self.received, self.wanted);
        }
        if self.received != self.wanted {
            bail!("{} messages instead of {}", self.received, self.wanted);
        }
        let all = (0..self.wanted).fold(0_u64, u64::wrapping_add);
        if self.order == Order::Rising && self.sum != all {
            bail!("the counters do not add up: a message was lost and another one doubled");
        }
        self.measured.ok_or_else(|| anyhow!("no message came"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Payload;

    fn received(order: Order, wanted: u64, bodies: &[(usize, Vec<u8>)]) -> Result<(f64, f64)> {
        let mut ledger = Ledger::new(16, wanted, order, 2);
        for (socket, body) in bodies {
            ledger.take(*socket, body);
        }
        ledger.close()
    }

    #[test]
    fn everything_in_order_is_accepted_from_each_source() {
        let (mut first, mut second) = (Payload::new(16, 0), Payload::new(16, 1));
        let bodies = [first.fresh(), second.fresh(), second.fresh(), first.fresh()].map(|body| (0, body));
        assert!(received(Order::Exact, 4, &bodies).is_ok());
    }

    #[test]
    fn a_lost_message_is_noticed() {
        let mut payload = Payload::new(16, 0);
        let bodies = [payload.fresh(), payload.fresh(), payload.fresh()].map(|body| (0, body));
        assert!(received(Order::Exact, 2, &[bodies[0].clone(), bodies[2].clone()]).is_err());
        assert!(received(Order::Rising, 2, &[bodies[0].clone(), bodies[2].clone()]).is_err());
        assert!(received(Order::Exact, 3, &bodies[..2]).is_err());
    }

    #[test]
    fn messages_shared_out_among_sockets_may_only_rise_at_each() {
        let mut payload = Payload::new(16, 0);
        let bodies = [payload.fresh(), payload.fresh(), payload.fresh()];
        let at = |socket, index: usize| (socket, bodies[index].clone());
        assert!(received(Order::Rising, 3, &[at(1, 1), at(0, 0), at(0, 2)]).is_ok());
        assert!(received(Order::Rising, 3, &[at(0, 1), at(0, 0), at(1, 2)]).is_err());
    }

    #[test]
    fn a_wrong_size_is_noticed() {
        assert!(received(Order::Unnumbered, 1, &[(0, vec![0; 17])]).is_err());
    }
}
