//! The numbers of a socket, through the `metrics` facade.

use metrics::{Label, Unit, counter, describe_counter, describe_gauge, gauge};

use crate::stats::Stats;

/// A total, how it is called, and what it is.
type Total = (&'static str, Unit, &'static str, fn(&Stats) -> u64);
/// Why messages were dropped, and how many.
type Reason = (&'static str, fn(&Stats) -> u64);
/// A number that goes up and down.
type Level = (&'static str, Unit, &'static str, fn(&Stats) -> usize);

const TOTALS: [Total; 10] = [
    ("sinew_messages_sent_total", Unit::Count, "Messages handed to the kernel.", |stats| stats.messages_sent),
    ("sinew_sent_bytes_total", Unit::Bytes, "Their bodies.", |stats| stats.bytes_sent),
    ("sinew_messages_received_total", Unit::Count, "Messages that came from peers.", |stats| stats.messages_received),
    ("sinew_received_bytes_total", Unit::Bytes, "Bytes that came from peers.", |stats| stats.bytes_received),
    ("sinew_messages_returned_total", Unit::Count, "Messages that went back to the outbound queue.", |stats| {
        stats.messages_returned
    }),
    ("sinew_messages_refused_total", Unit::Count, "Messages that the socket type has no use for.", |stats| {
        stats.messages_refused
    }),
    ("sinew_messages_unmatched_total", Unit::Count, "Messages that nobody had subscribed to.", |stats| {
        stats.messages_unmatched
    }),
    ("sinew_connects_retried_total", Unit::Count, "Attempts to connect again.", |stats| stats.connects_retried),
    ("sinew_handshakes_failed_total", Unit::Count, "Handshakes that failed.", |stats| stats.handshakes_failed),
    ("sinew_connections_refused_total", Unit::Count, "Connections that were too many.", |stats| {
        stats.connections_refused
    }),
];

const DROPPED: &str = "sinew_messages_dropped_total";
const DROPPED_BECAUSE: [Reason; 4] = [
    ("slow", |stats| stats.messages_dropped_slow),
    ("lost", |stats| stats.messages_dropped_lost),
    ("replaced", |stats| stats.messages_dropped_replaced),
    ("unread", |stats| stats.messages_dropped_unread),
];

const LEVELS: [Level; 6] = [
    ("sinew_peers", Unit::Count, "Connected peers.", |stats| stats.peers),
    ("sinew_outbound_messages", Unit::Count, "Messages in the outbound queue.", |stats| stats.outbound_messages),
    ("sinew_outbound_bytes", Unit::Bytes, "Their bodies.", |stats| stats.outbound_bytes),
    ("sinew_unfinished_bytes", Unit::Bytes, "Of messages that have not come whole.", |stats| stats.unfinished_bytes),
    ("sinew_inbound_messages", Unit::Count, "Messages in the inbound queue.", |stats| stats.inbound_messages),
    ("sinew_inbound_bytes", Unit::Bytes, "Their bodies.", |stats| stats.inbound_bytes),
];

impl Stats {
    /// Hands these numbers to the recorder of the [`metrics`](https://docs.rs/metrics) facade, with a label `socket` that
    /// has this name; why messages were dropped is in a label `reason`. To be called as often as they are to be seen, say every second:
    ///
    /// ```
    /// let push = sinew::PushSocket::new();
    /// push.stats().record("orders");
    /// ```
    pub fn record(&self, socket: &str) {
        for (name, _, _, total) in TOTALS {
            counter!(name, label(socket)).absolute(total(self));
        }
        for (reason, total) in DROPPED_BECAUSE {
            let mut labels = label(socket);
            labels.push(Label::from_static_parts("reason", reason));
            counter!(DROPPED, labels).absolute(total(self));
        }
        for (name, _, _, level) in LEVELS {
            #[allow(clippy::cast_precision_loss)] // a gauge is a float
            gauge!(name, label(socket)).set(level(self) as f64);
        }
    }

    /// Describes all of these metrics, with their units, to the recorder; to be called once.
    pub fn describe() {
        for (name, unit, text, _) in TOTALS {
            describe_counter!(name, unit, text);
        }
        describe_counter!(DROPPED, Unit::Count, "Messages that were dropped, by reason.");
        for (name, unit, text, _) in LEVELS {
            describe_gauge!(name, unit, text);
        }
    }
}

fn label(socket: &str) -> Vec<Label> {
    vec![Label::new("socket", socket.to_owned())]
}

#[cfg(test)]
mod tests {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    use super::*;

    #[test]
    fn every_number_is_recorded_under_the_name_of_its_socket() {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        metrics::with_local_recorder(&recorder, || {
            Stats::describe();
            Stats { messages_sent: 7, peers: 2, ..Stats::default() }.record("orders");
        });
        let mut seen = 0;
        for (key, unit, text, value) in snapshotter.snapshot().into_vec() {
            assert!(unit.is_some() && text.is_some());
            let labels: Vec<_> = key.key().labels().map(|label| (label.key(), label.value())).collect();
            assert_eq!(labels[0], ("socket", "orders"));
            assert_eq!(
                labels[1..].iter().map(|(key, _)| *key).collect::<Vec<_>>(),
                match key.key().name() {
                    DROPPED => vec!["reason"],
                    _ => vec![],
                }
            );
            match (key.key().name(), value) {
                ("sinew_messages_sent_total", value) => assert_eq!(value, DebugValue::Counter(7)),
                ("sinew_peers", value) => assert_eq!(value, DebugValue::Gauge(2.0.into())),
                (_, DebugValue::Counter(0)) => {}
                (_, value) => assert_eq!(value, DebugValue::Gauge(0.0.into())),
            }
            seen += 1;
        }
        assert_eq!(seen, TOTALS.len() + DROPPED_BECAUSE.len() + LEVELS.len());
    }
}
