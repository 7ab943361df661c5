//! Misconfigurations in front of a node, such as of a load balancer. Every client triggers them, so each is logged once
//! a minute.

use std::time::Duration;

use tokio::time::Instant;

use super::LogThrottle;

const INTERVAL: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SetupFault {
    /// `Origin` of the page and `Host` of its request differ.
    Host,
    /// A header of a WebSocket upgrade was removed.
    Upgrade,
    /// HTTP/2 arrives without TLS.
    PlainHttp2,
}

#[derive(Debug)]
pub(crate) struct SetupFaults([LogThrottle; 3]);

impl Default for SetupFaults {
    fn default() -> Self {
        Self(std::array::from_fn(|_| LogThrottle::every(INTERVAL)))
    }
}

impl SetupFaults {
    pub(crate) fn pass(&self, fault: SetupFault) -> Option<u64> {
        let Self([host, upgrade, http2]) = self;
        let throttle = match fault {
            SetupFault::Host => host,
            SetupFault::Upgrade => upgrade,
            SetupFault::PlainHttp2 => http2,
        };
        throttle.pass(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_fault_has_one_line_a_minute() {
        let faults = SetupFaults::default();
        assert_eq!((faults.pass(SetupFault::Host), faults.pass(SetupFault::Upgrade)), (Some(0), Some(0)));
        assert_eq!((faults.pass(SetupFault::Host), faults.pass(SetupFault::Host)), (None, None));
        tokio::time::advance(INTERVAL).await;
        assert_eq!(faults.pass(SetupFault::Host), Some(2));
    }
}
