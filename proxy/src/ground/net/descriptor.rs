//! Reserved file descriptors: clients can't use the last ones, so the admin port stays available.
//!
//! Descriptors are not counted: POSIX assigns the lowest free number, so a high number means that all lower ones are in
//! use.

use std::sync::OnceLock;

use trunkline_process::open_files;

/// Descriptors not available to clients and passed-through requests. The admin port, links and files need them.
const RESERVED: u64 = 128;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DescriptorLimit {
    /// First refused number; `None` if the system has no limit.
    first_refused: Option<u64>,
}

impl DescriptorLimit {
    /// Limit for clients: the system's limit minus the reserve.
    pub(crate) fn for_clients() -> Self {
        // Queried once, because connectors are also created for single requests.
        static LIMIT: OnceLock<DescriptorLimit> = OnceLock::new();
        *LIMIT.get_or_init(|| Self::below(open_files().soft))
    }

    /// Number of files available to clients; `None` for no limit.
    #[must_use]
    pub(crate) fn most(self) -> Option<u64> {
        self.first_refused
    }

    /// Number of the next free descriptor, by which clients are refused, and the limit; `None` without a limit.
    #[cfg(unix)]
    #[must_use]
    pub(crate) fn usage(self) -> Option<(u64, u64)> {
        use std::os::fd::AsRawFd;

        let most = self.first_refused?;
        let next = std::fs::File::open("/dev/null").map_or(Ok(most), |file| u64::try_from(file.as_raw_fd()));
        Some((next.unwrap_or_default().min(most), most))
    }

    /// Usage; this system has no small limit.
    #[cfg(not(unix))]
    #[must_use]
    pub(crate) fn usage(self) -> Option<(u64, u64)> {
        None
    }

    fn below(open_files_max: Option<u64>) -> Self {
        // With a low system limit, a quarter is reserved.
        Self { first_refused: open_files_max.map(|most| most - RESERVED.min(most / 4)) }
    }

    /// Whether a newly opened socket may be kept.
    #[cfg(unix)]
    pub(crate) fn allows(self, socket: &impl std::os::fd::AsRawFd) -> bool {
        let number = u64::try_from(socket.as_raw_fd()).unwrap_or(u64::MAX);
        self.first_refused.is_none_or(|first| number < first)
    }

    /// Whether a socket may be kept. This system has no small limit.
    #[cfg(not(unix))]
    pub(crate) fn allows<S>(self, _socket: &S) -> bool {
        self.first_refused.is_none()
    }
}

/// Number of files available to clients in this process; `None` if the system has no limit.
#[must_use]
pub fn client_files_max() -> Option<u64> {
    DescriptorLimit::for_clients().most()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_descriptors_are_kept_back_and_a_quarter_of_a_few() {
        assert_eq!(DescriptorLimit::below(Some(20_000)).first_refused, Some(19_872));
        assert_eq!(DescriptorLimit::below(Some(256)).first_refused, Some(192));
        assert_eq!(DescriptorLimit::below(None).first_refused, None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_socket_is_judged_by_its_number() {
        use std::os::fd::AsRawFd;

        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let number = u64::try_from(socket.as_raw_fd()).unwrap();
        assert!(DescriptorLimit { first_refused: Some(number + 1) }.allows(&socket));
        assert!(!DescriptorLimit { first_refused: Some(number) }.allows(&socket));
        assert!(DescriptorLimit::for_clients().allows(&socket));
        let (used, most) = DescriptorLimit { first_refused: Some(number + 1) }.usage().unwrap();
        assert_eq!((used.min(number), most), (number.min(used), number + 1));
    }
}
