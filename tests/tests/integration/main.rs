//! The engine on a real Postgres: transitions, deliveries, races.

mod bounds;
mod continuation;
mod control;
mod delivery;
mod failures;
mod fencing;
mod footprint;

mod logs;
mod migrations;
mod model;
mod money;
mod money_budgets;
mod money_model;
mod money_waits;
mod ownership;
mod races;
mod repair;
mod terms;
mod transaction;
