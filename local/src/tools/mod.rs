//! Programs that the stack needs: installed below `.local`, or expected on the machine.

pub mod browser;
pub(crate) mod lock;
pub mod node;
pub mod npm;
pub mod python;
