//! Messages of all protocols, connection strings and sessions: golden vectors and properties.

mod dial_in_properties;
mod fleet_properties;
mod hub_properties;
mod hub_vectors;
mod service_properties;
mod service_vectors;
mod session_properties;
