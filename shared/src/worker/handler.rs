//! The code for a family of tools.

use tokio_postgres::Transaction;

use super::Ownership;
use crate::domain::{ClaimedStep, Outcome};
use crate::storage::StepStore;

/// The code for a family of tools. It gets the claimed step and storage, never the database: what it wants changed it
/// returns as outcome. It must be safe to run twice: delivery is at least once.
pub trait Handler: Send + Sync + 'static {
    fn handle(&self, step: &ClaimedStep, store: &StepStore) -> impl Future<Output = Outcome> + Send;

    /// What the worker calls. A handler whose work costs money overrides it and stops when `ownership` is lost; every other
    /// handler works on, and its finish is fenced out.
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

/// A handler whose effect is in our database: it works in the transaction that also finishes its step, so that the
/// effect happens exactly once. A failed outcome rolls back. It bounds each of its statements by what is left of the
/// step's timeout, so that the database itself ends them, and may become another role.
pub trait TransactionHandler: Send + Sync + 'static {
    fn handle(&self, step: &ClaimedStep, transaction: &Transaction<'_>) -> impl Future<Output = Outcome> + Send;
}
