//! A request to stop, seen by every clone.

use tokio::sync::watch;

/// Hands out the request. Dropping it asks, too: no task outlives the part of the stack it belongs to.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

/// Waits for the request.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

pub fn channel() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    pub fn ask(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Returns when asked to stop.
    pub async fn asked(&mut self) {
        // An error means that the stopper is gone, which asks as well.
        let _ = self.0.wait_for(|asked| *asked).await;
    }
}
