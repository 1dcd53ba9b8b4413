//! Traits of handlers.

use tokio_postgres::Transaction;

use super::{ModelCalls, Ownership};
use crate::domain::{ClaimedStep, Outcome};
use crate::storage::StepStore;

/// The code for a family of tools. It gets the claimed step and storage, never the database, and returns an outcome. It
/// must be safe to run twice, because delivery is at least once.
pub trait Handler: Send + Sync + 'static {
    fn handle(&self, step: &ClaimedStep, store: &StepStore) -> impl Future<Output = Outcome> + Send;

    /// A handler whose work is long overrides it, and stops when `ownership` is lost. Any other handler continues, and its
    /// finish is fenced out.
    fn handle_while_owned(
        &self,
        step: &ClaimedStep,
        store: &StepStore,
        ownership: &Ownership,
    ) -> impl Future<Output = Outcome> + Send {
        let _ = ownership;
        self.handle(step, store)
    }

    /// The worker calls this. A handler that calls models overrides it: it starts and ends each request in `calls`, which
    /// reserve and settle its money, and stops when the step is lost.
    fn handle_with_models(
        &self,
        step: &ClaimedStep,
        store: &StepStore,
        calls: &ModelCalls,
    ) -> impl Future<Output = Outcome> + Send {
        self.handle_while_owned(step, store, calls.ownership())
    }
}

/// A handler that writes to the control plane's database. It works in the transaction that also finishes its step, so
/// that its effect happens exactly once. A failed outcome rolls back. It limits each statement to the rest of the
/// step's timeout, so that the database itself cancels it, and may change the role.
pub trait TransactionHandler: Send + Sync + 'static {
    fn handle(&self, step: &ClaimedStep, transaction: &Transaction<'_>) -> impl Future<Output = Outcome> + Send;
}
