//! Code that the functions of the NOFX control plane share. The modules are in reading order.

pub mod domain;
pub mod encryption;

pub mod view;

pub mod error;

pub mod config;

pub mod db;

pub mod queue;

pub mod storage;

pub mod secrets;

pub mod auth;

pub mod invoke;
pub mod signing;

pub mod context;

pub mod flow;

pub mod worker;

pub mod http;

pub mod telemetry;
