//! What `tracing` is told: spans of a socket and of its peers, events of connections, and nothing per message.

mod common;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::raw::{READY_PUSH, Raw};
use common::*;
use tracing::Level;

/// The lines that have been written.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Begins to listen to what this thread says.
    fn begin() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(Level::TRACE)
            .with_ansi(false)
            .without_time()
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    /// What the library has said.
    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains(" sinew::")).map(str::to_owned).collect()
    }

    /// The only line with this text.
    fn line(&self, text: &str) -> String {
        let lines: Vec<_> = self.lines().into_iter().filter(|line| line.contains(text)).collect();
        assert_eq!(lines.len(), 1, "{text}: {lines:#?} of {:#?}", self.lines());
        lines[0].clone()
    }
}

async fn a_connection_s_events_name_socket_peer_and_endpoint(place: Place) {
    let (log, _guard) = Log::begin();
    let pull = new_pull();
    let mut monitor = pull.monitor();
    let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
    assert!(
        log.line("listening")
            .contains(&format!("socket{{socket_type=PULL}}: sinew::socket::handle: listening endpoint={endpoint}"))
    );
    let raw = Raw::peer(&endpoint, READY_PUSH).await;
    drop(raw);
    wait_disconnected(&mut monitor).await;
    for text in ["new connection", "handshake succeeded", "connection ended"] {
        let line = log.line(text);
        let spans = format!("socket{{socket_type=PULL}}:peer{{id=1 endpoint={endpoint} address=");
        assert!(line.contains(&spans), "{line}");
    }
    assert!(log.line("handshake succeeded").contains("socket_type=PUSH version=3.1"));
    assert!(log.line("connection ended").contains("reason=the peer closed the connection"));
}

async fn a_retry_names_socket_and_endpoint(place: Place) {
    let (log, _guard) = Log::begin();
    let push = push_builder().reconnect_delay(Duration::from_secs(60), Duration::from_secs(60)).build().unwrap();
    let mut monitor = push.monitor();
    let endpoint = place.fresh();
    push.connect(&endpoint).unwrap();
    wait_for(&mut monitor, |event| matches!(event, sinew::Event::ConnectRetried { .. }).then_some(())).await;
    let line = log.line("will reconnect");
    assert!(line.contains(&format!("socket{{socket_type=PUSH}}:connected{{endpoint={endpoint}}}")), "{line}");
    assert!(line.contains("cause="), "{line}");
}

async fn nothing_is_said_per_message(place: Place) {
    let (log, _guard) = Log::begin();
    let (push, pull) = join(&place, new_push(), new_pull()).await;
    let before = log.lines();
    assert_ne!(before.len(), 0);
    for number in 0..1_000 {
        within(push.send(numbered(number))).await.unwrap();
        within(pull.recv()).await.unwrap();
    }
    assert_eq!(log.lines(), before);
}

over_each_transport! {
    a_connection_s_events_name_socket_peer_and_endpoint,
    a_retry_names_socket_and_endpoint,
    nothing_is_said_per_message,
}
