//! Who may do what in the database, what a tenant sees, and which room of the code may know which.

mod architecture;
mod catalogue;
mod links;
mod roles;
mod tenancy;
