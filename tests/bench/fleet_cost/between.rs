//! Bytes between nodes: data sent on connections to their admin ports, according to the system.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Bytes sent in both directions on connections with these ports at either end. Excludes `own`, the ports of this
/// process's connections to them, and ended connections, which are no longer in the table.
pub(crate) fn sent(admins: &[SocketAddr], own: &[u16]) -> Result<u64> {
    // Loopback addresses: every connection is in the table twice, with the bytes sent by each end.
    let output =
        Command::new("ss").args(["-tinH"]).output().context("ss can't be run (the Debian package iproute2)")?;
    ensure!(output.status.success(), "ss: {}", String::from_utf8_lossy(&output.stderr));
    let ports: BTreeSet<u16> = admins.iter().map(SocketAddr::port).collect();
    Ok(sum(&String::from_utf8_lossy(&output.stdout), &ports, &own.iter().copied().collect()))
}

/// Sums `bytes_sent` of the relevant sockets. A socket has a line with addresses and an indented one with counters.
fn sum(table: &str, admins: &BTreeSet<u16>, own: &BTreeSet<u16>) -> u64 {
    let (mut sum, mut counts) = (0, false);
    for line in table.lines() {
        if line.starts_with(char::is_whitespace) {
            let sent = line.split_whitespace().find_map(|word| word.strip_prefix("bytes_sent:")?.parse::<u64>().ok());
            sum += sent.filter(|_| counts).unwrap_or(0);
        } else {
            let ports: Vec<u16> = line
                .split_whitespace()
                .skip(3)
                .filter_map(|address| address.rsplit(':').next()?.parse().ok())
                .collect();
            counts = ports.iter().any(|port| admins.contains(port)) && !ports.iter().any(|port| own.contains(port));
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_of_connections_between_nodes_are_summed_and_no_others() {
        let table = "ESTAB 0 0 127.0.0.1:8090 127.0.0.1:40000\n\t bbr rto:200 bytes_sent:10 bytes_acked:10 lastsnd:5\n\
                     ESTAB 0 0 127.0.0.1:40000 127.0.0.1:8090\n\t bbr bytes_sent:7 bytes_received:10\n\
                     ESTAB 0 0 127.0.0.1:8090 127.0.0.1:50000\n\t bytes_sent:1000\n\
                     ESTAB 0 0 127.0.0.1:8080 127.0.0.1:40001\n\t bytes_sent:100000\n\
                     ESTAB 0 0 127.0.0.1:8090 127.0.0.1:40002\n\t bbr rto:200 lastsnd:5\n";
        assert_eq!(sum(table, &[8090].into(), &[50_000].into()), 17);
    }
}
