//! Who may do what in the database, and what a tenant sees.

mod roles;
mod tenancy;
