#![forbid(unsafe_code)]
//! The promises of the whole, shown with real processes, real clients and real sockets.
//!
//! One program, because each one links everything. Counts, order and sets are looked at, never a time.

#[cfg(test)]
mod addresses;
#[cfg(test)]
mod asking;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod calls;
#[cfg(test)]
mod carried;
#[cfg(test)]
mod causes;
#[cfg(test)]
mod chaos;
#[cfg(test)]
mod chat_page;
#[cfg(test)]
mod churn;
#[cfg(test)]
mod client_results;
#[cfg(test)]
mod configuration;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod departures;
#[cfg(test)]
mod deploy;
#[cfg(test)]
mod discovery;
#[cfg(test)]
mod doors;
#[cfg(test)]
mod draining;
#[cfg(test)]
mod ending;
#[cfg(test)]
mod forwarded;
#[cfg(test)]
mod functional;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod hub_features;
#[cfg(test)]
mod identity;
#[cfg(test)]
mod idle;
#[cfg(test)]
mod keep_alive;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod links;
#[cfg(test)]
mod load_balancers;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod lost_proxies;
#[cfg(test)]
mod names;
#[cfg(test)]
mod negotiate;
#[cfg(test)]
mod observer;
#[cfg(test)]
mod order;
#[cfg(test)]
mod owner_hop;
#[cfg(test)]
mod pace;
#[cfg(test)]
mod pass_through;
#[cfg(test)]
mod pass_through_streams;
#[cfg(test)]
mod prometheus;
#[cfg(test)]
mod python;
#[cfg(test)]
mod raw_endpoints;
#[cfg(test)]
mod rehoming;
#[cfg(test)]
mod resume;
#[cfg(test)]
mod sends;
#[cfg(test)]
mod slow_clients;
#[cfg(test)]
mod starting;
#[cfg(test)]
mod storms;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod tokens;
#[cfg(test)]
mod transcripts;
#[cfg(test)]
mod values;
#[cfg(test)]
mod wrong_node;
