//! Programs that the stack needs: installed below `.local`, or expected on the machine.

pub(crate) mod lock;
pub mod node;
pub mod python;
