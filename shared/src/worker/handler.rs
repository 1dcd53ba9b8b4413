//! Traits of handlers.

use tokio_postgres::Transaction;

use super::Ownership;
use crate::domain::{ClaimedStep, Outcome};
use crate::storage::StepStore;

/// The code for a family of tools. It gets the claimed step and storage, never the database, and returns an outcome. It
/// must be safe to run twice, because delivery is at least once.
pub trait Handler: Send + Sync + 'static {
    fn handle(&self, step: &ClaimedStep, store: &StepStore) -> impl Future<Output = Outcome> + Send;

    /// The worker calls this. A handler whose work costs money overrides it, and stops when `ownership` is lost. Any
    /// other handler continues, and its finish is fenced out.
    fn handle_while_owned(
        &self,
        step: &ClaimedStep,
        store: &StepStore,
        ownership: &Ownership,
    ) -> impl Future<Output = Outcome> + Send {
        let _ = ownership;
        self.handle(step, store)
    }
}

/// A handler that writes to the control plane's database. It works in the transaction that also finishes its step, so
/// that its effect happens exactly once. A failed outcome rolls back. It limits each statement to the rest of the
/// step's timeout, so that the database itself cancels it, and may change the role.
pub trait TransactionHandler: Send + Sync + 'static {
    fn handle(&self, step: &ClaimedStep, transaction: &Transaction<'_>) -> impl Future<Output = Outcome> + Send;
}
