//! The functions on a real database: HTTP routes through both event shapes of API Gateway, and handlers.

mod codegen;
mod db_write;
mod docs;
mod gateway;
mod hostile;
mod pages;
mod routes;
mod rules;
mod shapes;
mod submit;
