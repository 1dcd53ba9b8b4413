//! Sessions, tokens and members, the rights of database roles, the isolation of tenants, and the keys of an issuer.

mod accounts;
mod admission;
mod approvals;
mod audit;
mod bootstrap;
mod bound;
mod entitled;
mod jwks;
mod keys;
mod links;
mod matrix;
mod roles;
mod tenancy;
