//! The rights of database roles, and the isolation of tenants.

mod roles;
mod tenancy;
