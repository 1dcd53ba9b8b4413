//! The pages without a database: rendering of sample data, and the router as far as it needs no database.

mod admin;
mod artifact;
mod control;
mod documents;
mod escaping;
mod forms;
mod links;
mod new;
mod pages;
mod step;
mod steps;
mod support;
