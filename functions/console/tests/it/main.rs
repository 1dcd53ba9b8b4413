//! The pages without a database: rendering of sample data, and the router as far as it answers by itself.

mod escaping;
mod forms;
mod links;
mod pages;
mod support;
