//! A stop signal for tasks.

use tokio::sync::watch;

/// Sends the stop signal. Dropping it sends the signal too, so no task outlives its part of the stack.
#[derive(Debug)]
pub struct StopSender(watch::Sender<bool>);

/// Receives the stop signal. Every clone receives it.
#[derive(Clone, Debug)]
pub struct StopSignal(watch::Receiver<bool>);

pub fn channel() -> (StopSender, StopSignal) {
    let (sender, receiver) = watch::channel(false);
    (StopSender(sender), StopSignal(receiver))
}

impl StopSender {
    pub fn send(&self) {
        self.0.send_replace(true);
    }
}

impl StopSignal {
    /// Returns when the signal was sent.
    pub async fn received(&mut self) {
        // An error means that the sender was dropped, which is a stop signal too.
        let _ = self.0.wait_for(|sent| *sent).await;
    }
}
