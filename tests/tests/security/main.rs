//! The rights of database roles, the isolation of tenants, and the keys of an issuer.

mod admission;
mod approvals;
mod jwks;
mod roles;
mod tenancy;
