//! Checks name resolution and TCP connections.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::time::timeout;
use trunkline_proxy::Resolver;
use trunkline_proxy::parts::Address;

use super::finding::{Finding, milliseconds_text};

const NAME: &str = "name";
const CONNECT: &str = "connect";

/// Maximum number of addresses to try per name.
const TRIED_MAX: usize = 16;

/// Address with the connect time, or the error.
#[derive(Debug)]
struct AddressSeen {
    address: SocketAddr,
    connected: Result<Duration, String>,
}

/// Resolves the name and connects to its addresses. Returns the findings and a reachable address.
pub(super) async fn check_reach(address: &Address, deadline: Duration) -> (Vec<Finding>, Option<SocketAddr>) {
    let resolved = match timeout(deadline, Resolver::default().resolve(address)).await {
        Ok(resolved) => resolved.map_err(|error| error.to_string()),
        Err(_) => Err("the resolver does not answer".into()),
    };
    let addresses = match resolved {
        Ok(addresses) if !addresses.is_empty() => addresses,
        Ok(_) => return (vec![unresolved(address, "the name has no address")], None),
        Err(problem) => return (vec![unresolved(address, &problem)], None),
    };
    let mut seen = Vec::new();
    for &address in addresses.iter().take(TRIED_MAX) {
        let begun = Instant::now();
        let connected = match timeout(deadline, TcpStream::connect(address)).await {
            Ok(Ok(_)) => Ok(begun.elapsed()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer".into()),
        };
        seen.push(AddressSeen { address, connected });
    }
    let first = seen.iter().find(|seen| seen.connected.is_ok()).map(|seen| seen.address);
    let list: Vec<_> = addresses.iter().take(TRIED_MAX).map(|address| address.ip().to_string()).collect();
    let name = Finding::ok(NAME, format!("{} is {}", address.host(), list.join(", ")));
    (vec![name, judge_addresses(address, &seen)], first)
}

fn unresolved(address: &Address, problem: &str) -> Finding {
    let seen = format!("cannot resolve {}: {problem}", address.host());
    Finding::failed(NAME, seen, "add the name to the DNS, or correct the URL of clients")
}

fn judge_addresses(address: &Address, seen: &[AddressSeen]) -> Finding {
    let failed: Vec<_> =
        seen.iter().filter_map(|seen| Some(format!("{} ({})", seen.address, seen.connected.as_ref().err()?))).collect();
    let best = seen.iter().filter_map(|seen| seen.connected.as_ref().ok()).min();
    match best {
        None => Finding::failed(
            CONNECT,
            format!("connection failed: {}", failed.join(", ")),
            "start the load balancer or the node there (`--listen`), and open the port in firewalls and security \
             groups",
        ),
        // A local machine's name often has an address of an unused family.
        Some(best) if failed.is_empty() || address.is_loopback() => {
            Finding::ok(CONNECT, format!("connected in {}", milliseconds_text(*best)))
        }
        Some(_) => Finding::warning(
            CONNECT,
            format!("{} of {} addresses don't accept connections: {}", failed.len(), seen.len(), failed.join(", ")),
            "remove these addresses from the DNS, or start the servers there: clients lose time at these addresses",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    fn verdict(url: &str, connected: &[bool]) -> Verdict {
        let seen = |is_up: &bool| AddressSeen {
            address: ([10, 0, 0, 1], 80).into(),
            connected: if *is_up { Ok(Duration::from_millis(1)) } else { Err("refused".into()) },
        };
        judge_addresses(&url.parse().unwrap(), &connected.iter().map(seen).collect::<Vec<_>>()).verdict
    }

    #[test]
    fn one_dead_address_of_several_is_a_warning_unless_it_is_this_machine() {
        assert_eq!(verdict("http://chat.example", &[true, true]), Verdict::Ok);
        assert_eq!(verdict("http://chat.example", &[false, true]), Verdict::Warning);
        assert_eq!(verdict("http://localhost", &[false, true]), Verdict::Ok);
        assert_eq!(verdict("http://localhost", &[false, false]), Verdict::Failed);
    }

    #[tokio::test]
    async fn a_closed_port_is_reported_with_its_address() {
        let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let address = format!("http://{gone}").parse().unwrap();
        let (findings, reached) = check_reach(&address, Duration::from_secs(5)).await;
        assert_eq!(reached, None);
        assert!(findings[1].seen.contains(&gone.to_string()), "{findings:?}");
    }
}
