//! The pages: plain data in, markup out. `maud` escapes every value.

mod format;
mod gates;
mod layout;
mod message;
mod run;
mod runs;

pub use layout::Base;
pub use message::{Message, message};
pub use run::{Notice, RunPage, run_live, run_page};
pub use runs::run_list;
