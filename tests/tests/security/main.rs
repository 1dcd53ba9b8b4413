//! The rights of database roles, and the isolation of tenants.

mod admission;
mod roles;
mod tenancy;
