//! The functions on a real database: HTTP routes with both event formats of API Gateway, handlers, and
//! the command.

mod addresses;
mod artifact_pages;
mod audit;
mod codegen;
mod commands;
mod console_lists;
mod console_logins;
mod db_write;
mod evidence_pages;
mod filters;
mod gate_pages;
mod gates;
mod gateway;
mod hostile;
mod keys;
mod logins;
mod new_runs;
mod operator_pages;
mod own_handler;
mod pages;
mod plans;
mod policy;
mod polling;
mod queues;
mod routes;
mod rules;
mod run_controls;
mod run_pages;
mod shapes;
mod submit;
mod terminals;
mod timelines;
mod trusted_bases;
mod uploads;
mod workspaces;
