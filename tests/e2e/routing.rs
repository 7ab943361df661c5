//! The operator's rules: groups of app servers, routes, reloads under load, and mirrors.

mod groups;
mod kinds;
mod mirrors;
mod percent;
mod recipes;
mod reload;
mod ruled_fleet;
