#![forbid(unsafe_code)]
//! Dial-in: app servers and clients of Azure's SDK with our proxies.
//!
//! A scripted app server implements the documented layouts of the service protocol independently; recorded
//! conversations of real app servers are replayed; and real ASP.NET Core apps and .NET clients run. The recordings and
//! real programs are not in the repository: tests that need them are skipped without them.

#[cfg(test)]
mod aspnet;
#[cfg(test)]
mod bad_frames;
#[cfg(test)]
mod blazor;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod coming_back;
#[cfg(test)]
mod crowd;
#[cfg(test)]
mod departures;
#[cfg(test)]
mod dial_in;
#[cfg(test)]
mod fleets;
#[cfg(test)]
mod frame;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod guest;
#[cfg(test)]
mod layout;
#[cfg(test)]
mod losses;
#[cfg(test)]
mod management;
#[cfg(test)]
mod messages;
#[cfg(test)]
mod parity;
#[cfg(test)]
mod pings;
#[cfg(test)]
mod probe;
#[cfg(test)]
mod record;
#[cfg(test)]
mod records;
#[cfg(test)]
mod replay;
#[cfg(test)]
mod scene;
#[cfg(test)]
mod scripted;
#[cfg(test)]
mod upgrades;
#[cfg(test)]
mod value;
