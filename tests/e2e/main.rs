#![forbid(unsafe_code)]
//! End-to-end tests with real processes, clients and sockets.
//!
//! One program, because each program links everything. The tests check counts, order and sets, but no durations.

#[cfg(test)]
mod access;
#[cfg(test)]
mod addresses;
#[cfg(test)]
mod ai_answer;
#[cfg(test)]
mod auction;
#[cfg(test)]
mod authorize;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod board;
#[cfg(test)]
mod calls;
#[cfg(test)]
mod canvas;
#[cfg(test)]
mod chaos;
#[cfg(test)]
mod chat_page;
#[cfg(test)]
mod churn;
#[cfg(test)]
mod client_results;
#[cfg(test)]
mod close_reasons;
#[cfg(test)]
mod compressed_clients;
#[cfg(test)]
mod configuration;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod deploy;
#[cfg(test)]
mod disconnects;
#[cfg(test)]
mod discovery;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod draining;
#[cfg(test)]
mod first_requests;
#[cfg(test)]
mod fleet;
#[cfg(test)]
mod flow_control;
#[cfg(test)]
mod functional;
#[cfg(test)]
mod host_names;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod http_transports;
#[cfg(test)]
mod identity;
#[cfg(test)]
mod idle;
#[cfg(test)]
mod key_rotation;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod live_updates;
#[cfg(test)]
mod load_balancers;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod lost_proxies;
#[cfg(test)]
mod message_routes;
#[cfg(test)]
mod methods;
#[cfg(test)]
mod negotiate;
#[cfg(test)]
mod new_app;
#[cfg(test)]
mod observer;
#[cfg(test)]
mod opentelemetry;
#[cfg(test)]
mod order;
#[cfg(test)]
mod other_libraries;
#[cfg(test)]
mod outages;
#[cfg(test)]
mod owner_hop;
#[cfg(test)]
mod pass_through;
#[cfg(test)]
mod pass_through_streams;
#[cfg(test)]
mod presence;
#[cfg(test)]
mod prometheus;
#[cfg(test)]
mod python;
#[cfg(test)]
mod raw_endpoints;
#[cfg(test)]
mod reassign;
#[cfg(test)]
mod records;
#[cfg(test)]
mod rest;
#[cfg(test)]
mod resume;
#[cfg(test)]
mod routing;
#[cfg(test)]
mod sends;
#[cfg(test)]
mod shutdown;
#[cfg(test)]
mod slow_clients;
#[cfg(test)]
mod startup;
#[cfg(test)]
mod store;
#[cfg(test)]
mod storms;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod tokens;
#[cfg(test)]
mod transcripts;
#[cfg(test)]
mod transfers;
#[cfg(test)]
mod typescript;
#[cfg(test)]
mod values;
#[cfg(test)]
mod webhooks;
#[cfg(test)]
mod wrong_node;
