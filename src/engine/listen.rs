//! Listening: one task per bound endpoint that accepts connections and passes them on.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::engine::shared::{Arrival, AttachmentId, Command, ListenerSlot, Shared};
use crate::monitor::Event;
use crate::sync::lock;
use crate::transport::Connected;

/// When the system has no descriptor or no memory for a connection, trying again at once would only spin.
const PAUSE_FIRST: Duration = Duration::from_millis(10);
const PAUSE_LONGEST: Duration = Duration::from_secs(1);

/// Accepts until the task is aborted.
pub(crate) async fn listen(shared: Arc<Shared>, listener: ListenerSlot, endpoint: Endpoint, attachment: AttachmentId) {
    let mut pause = PAUSE_FIRST;
    loop {
        // Further connections wait in the backlog while so many are in the handshake. The semaphore is never closed.
        let Ok(permit) = shared.handshakes.clone().acquire_owned().await else {
            return;
        };
        match accept(&listener).await {
            Ok(connected) => {
                pause = PAUSE_FIRST;
                shared.signal.command(Command::Attach(Box::new(Arrival {
                    connected,
                    attachment,
                    endpoint: endpoint.clone(),
                    permit: Some(permit),
                    careful: false,
                    ended: None,
                })));
            }
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, ?pause, "cannot accept");
                shared.reporter.report(|| Event::AcceptFailed {
                    endpoint: endpoint.clone(),
                    cause: error.to_string(),
                    delay: pause,
                });
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_LONGEST);
            }
        }
    }
}

/// Waits for the next connection; for ever if the listener is gone, and then this task is about to be.
async fn accept(listener: &ListenerSlot) -> io::Result<Connected> {
    poll_fn(|cx| match &*lock(listener) {
        Some(listener) => listener.poll_accept(cx),
        None => Poll::Pending,
    })
    .await
}

/// The peer gave up before it was accepted; the next one may be fine.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
            | io::ErrorKind::NotConnected
    )
}
