//! Rights of the database roles, visibility of tenants' rows, architecture, and the catalogues in `docs`.

mod architecture;
mod catalogue;
mod links;
mod roles;
mod tenancy;
