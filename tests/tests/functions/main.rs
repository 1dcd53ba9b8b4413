//! The functions on a real database: HTTP routes with both event formats of API Gateway, and handlers.

mod addresses;
mod codegen;
mod console_lists;
mod db_write;
mod evidence_pages;
mod filters;
mod gates;
mod gateway;
mod hostile;
mod keys;
mod pages;
mod plans;
mod policy;
mod polling;
mod routes;
mod rules;
mod shapes;
mod submit;
mod trusted_bases;
mod uploads;
mod workspaces;
