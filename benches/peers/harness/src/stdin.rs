//! Standard input as the driver's way to say "go", "report" and "you may stop".

use std::io::{BufRead, stdin};

use futures::channel::oneshot;

/// Waits, without blocking the thread that asks, until the driver closes standard input.
pub async fn until_stdin_closes() {
    let (closed, wait) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        for line in stdin().lock().lines() {
            if line.is_err() {
                break;
            }
        }
        drop(closed);
    });
    // The sender is dropped without a word: the error is the signal.
    let _ = wait.await;
}

/// Calls `each` for every line of standard input on a thread of its own, then `end`.
pub(crate) fn on_each_line(mut each: impl FnMut() + Send + 'static, end: impl FnOnce() + Send + 'static) {
    std::thread::spawn(move || {
        for line in stdin().lock().lines() {
            if line.is_err() {
                break;
            }
            each();
        }
        end();
    });
}
