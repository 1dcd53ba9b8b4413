//! The pages. Plain data in, markup out; `maud` escapes every value.

mod gates;
mod layout;
mod notice;
mod run;
mod runs;
mod words;

pub use layout::Base;
pub use notice::{Message, message};
pub use run::{Notice, RunPage, run_live, run_page};
pub use runs::run_list;
