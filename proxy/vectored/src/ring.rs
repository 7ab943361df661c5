//! The ring of one thread.
//!
//! **Why no buffer can outlive its borrow.** The kernel reads a buffer while executing its send. All sends of a call
//! are executed inside it: `MSG_DONTWAIT` prevents waiting for a full socket, so each send completes or fails on
//! submission. Even so, a call returns only when each send accepted by the kernel has produced a completion. Between
//! the first entry and the last completion only code of this file runs, so nothing can unwind or leak in between. Sends
//! that the kernel has not accepted (for lack of memory) remain in the ring; such a ring is closed, and they are never
//! executed.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;

use io_uring::{EnterFlags, IoUring, opcode, squeue, types};

/// Maximum number of sends per system call. More bring no gain and use more of the processor's caches.
const SENDS_MAX: usize = 256;

/// Fail instead of waiting, and return an error instead of a signal if the peer is gone.
const FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;

/// Sender to many sockets, for the thread that created it.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use std::io::Read;
/// use std::os::fd::AsFd;
/// use std::os::unix::net::UnixStream;
///
/// // A container or an old kernel may refuse it: then send to each socket separately.
/// let Ok(mut ring) = trunkline_vectored::SendRing::new() else { return Ok(()) };
/// let (ann, mut at_ann) = UnixStream::pair()?;
/// let (ben, mut at_ben) = UnixStream::pair()?;
/// let sends = [(ann.as_fd(), [&b"hi, "[..], b"all"]), (ben.as_fd(), [&b"hi, "[..], b"all"])];
/// for sent in ring.send_many(sends) {
///     assert_eq!(sent?, 7);
/// }
/// for far in [&mut at_ann, &mut at_ben] {
///     let mut text = [0; 7];
///     far.read_exact(&mut text)?;
///     assert_eq!(&text, b"hi, all");
/// }
/// # Ok(())
/// # }
/// ```
pub struct SendRing {
    /// `None` once it has failed.
    ring: Option<IoUring>,
    sends: Vec<Send>,
    slices: Vec<libc::iovec>,
    heads: Vec<libc::msghdr>,
    entries: Vec<squeue::Entry>,
    results: Vec<i32>,
}

/// One send, identified by the position of its slices.
#[derive(Debug, Clone, Copy)]
struct Send {
    socket: RawFd,
    first_slice: usize,
    slices: usize,
}

/// Results of a call, in the order of its sends.
#[derive(Debug)]
pub struct Sent<'a>(std::slice::Iter<'a, i32>);

impl SendRing {
    /// Creates and tests a ring.
    ///
    /// # Errors
    /// If the kernel is too old (before Linux 6.1) or a sandbox forbids it.
    pub fn new() -> io::Result<Self> {
        // Only one thread submits, and completions are processed only in its calls, without interrupting it.
        let ring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(SENDS_MAX as u32)?;
        let mut ring = Self {
            ring: Some(ring),
            sends: Vec::with_capacity(SENDS_MAX),
            slices: Vec::with_capacity(SENDS_MAX),
            heads: Vec::new(),
            entries: Vec::with_capacity(SENDS_MAX),
            results: Vec::with_capacity(SENDS_MAX),
        };
        ring.try_out()?;
        Ok(ring)
    }

    /// Sends as many bytes as each socket accepts without waiting. Results are in the order of the sends: the number of
    /// bytes, or the error if none were sent; `WouldBlock` means that the socket is full.
    pub fn send_many<'a, S>(&mut self, sends: impl IntoIterator<Item = (BorrowedFd<'a>, S)>) -> Sent<'_>
    where
        S: IntoIterator<Item = &'a [u8]>,
    {
        self.results.clear();
        let mut sends = sends.into_iter();
        loop {
            self.sends.clear();
            self.slices.clear();
            for (socket, slices) in sends.by_ref().take(SENDS_MAX) {
                let first_slice = self.slices.len();
                self.slices.extend(slices.into_iter().map(io_slice));
                let slices = self.slices.len() - first_slice;
                self.sends.push(Send { socket: socket.as_raw_fd(), first_slice, slices });
            }
            if self.sends.is_empty() {
                break;
            }
            self.submit();
        }
        Sent(self.results.iter())
    }

    /// Verifies that a send works and that a closed socket returns an error.
    fn try_out(&mut self) -> io::Result<()> {
        let (near, far) = UnixStream::pair()?;
        let (shut, _) = UnixStream::pair()?;
        let sends = [(near.as_fd(), [&b"a"[..], b"b"]), (shut.as_fd(), [b"", b"c"]), (far.as_fd(), [b"", b"d"])];
        let sent: Vec<_> = self.send_many(sends).collect();
        match sent.as_slice() {
            [Ok(2), Err(error), Ok(1)] if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::Unsupported, format!("a trial ended with {sent:?}"))),
        }
    }

    /// Executes all listed sends and adds their results.
    fn submit(&mut self) {
        let begin = self.results.len();
        // Failed by default, so that the caller retries individually.
        self.results.resize(begin + self.sends.len(), -libc::EAGAIN);
        let Some(ring) = &mut self.ring else { return };
        list(&self.sends, &self.slices, &mut self.heads, &mut self.entries);
        let results = self.results.get_mut(begin..).unwrap_or_default();
        if !carry_out(ring, &self.entries, results) {
            self.ring = None;
        }
    }
}

fn io_slice(slice: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: slice.as_ptr().cast_mut().cast(), iov_len: slice.len() }
}

/// Creates an entry per send: a plain one for one slice, a message for several.
fn list(sends: &[Send], slices: &[libc::iovec], heads: &mut Vec<libc::msghdr>, entries: &mut Vec<squeue::Entry>) {
    heads.clear();
    // Heads must not move once an entry points to them.
    heads.reserve(sends.len());
    entries.clear();
    for (number, send) in sends.iter().enumerate() {
        let socket = types::Fd(send.socket);
        let entry = match slices.get(send.first_slice..).unwrap_or_default() {
            [only, ..] if send.slices == 1 => {
                let length = u32::try_from(only.iov_len).unwrap_or(u32::MAX);
                opcode::Send::new(socket, only.iov_base.cast(), length).flags(FLAGS).build()
            }
            several => {
                heads.push(head(several.as_ptr(), send.slices));
                let head = heads.last().map_or(std::ptr::null(), std::ptr::from_ref);
                opcode::SendMsg::new(socket, head).flags(FLAGS as u32).build()
            }
        };
        entries.push(entry.user_data(number as u64));
    }
}

/// Header of a message with several slices.
fn head(slices: *const libc::iovec, count: usize) -> libc::msghdr {
    // SAFETY: all its fields are integers and pointers, for which zero is valid.
    let mut head: libc::msghdr = unsafe { std::mem::zeroed() };
    head.msg_iov = slices.cast_mut();
    head.msg_iovlen = count as _;
    head
}

/// Has the kernel execute these entries and records their results. Returns whether the ring is still usable.
fn carry_out(ring: &mut IoUring, entries: &[squeue::Entry], results: &mut [i32]) -> bool {
    // SAFETY: the caller borrows the buffers, slices and heads that entries point to until this returns, when the
    // kernel no longer has any entry: see the head of this file.
    if unsafe { ring.submission().push_multiple(entries) }.is_err() {
        return false;
    }
    let mut open = entries.len();
    loop {
        let entered = ring.submit_and_wait(open);
        open -= take_completions(ring, results);
        if open == 0 {
            return true;
        }
        match entered {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return wait_for_taken(ring, open, results),
        }
    }
}

/// After an error, waits for the sends that the kernel has accepted; the others stay in a ring that is closed.
#[cold]
fn wait_for_taken(ring: &mut IoUring, mut open: usize, results: &mut [i32]) -> bool {
    while open > ring.submission().len() {
        // SAFETY: submits nothing and passes no argument.
        let entered = unsafe { ring.submitter().enter::<()>(0, 1, EnterFlags::GETEVENTS.bits(), None) };
        open -= take_completions(ring, results);
        let may_pass = |error: &io::Error| {
            matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::ENOMEM))
        };
        if entered.is_err_and(|error| !may_pass(&error)) {
            // The kernel may still read buffers that are about to be freed, and there is no way to find out.
            std::process::abort();
        }
    }
    false
}

/// Records available results and returns their number.
fn take_completions(ring: &mut IoUring, results: &mut [i32]) -> usize {
    let mut count = 0;
    for completion in ring.completion() {
        let number = usize::try_from(completion.user_data()).unwrap_or(usize::MAX);
        if let Some(result) = results.get_mut(number) {
            *result = completion.result();
        }
        count += 1;
    }
    count
}

impl Iterator for Sent<'_> {
    type Item = io::Result<usize>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|&result| match result {
            0.. => Ok(result as usize),
            error => Err(io::Error::from_raw_os_error(-error)),
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl std::fmt::Debug for SendRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SendRing").field("is_working", &self.ring.is_some()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};

    use super::*;

    /// Creates a ring; `None` if a sandbox forbids it, which leaves nothing to test.
    fn new_ring() -> Option<SendRing> {
        let ring = SendRing::new();
        if let Err(error) = &ring {
            println!("skipped, because the system refuses a ring: {error}");
        }
        ring.ok()
    }

    /// Both ends of a TCP connection, with the near end non-blocking.
    fn connection(listener: &TcpListener) -> (TcpStream, TcpStream) {
        let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let near = listener.accept().unwrap().0;
        near.set_nonblocking(true).unwrap();
        (near, far)
    }

    fn connections(count: usize) -> Vec<(TcpStream, TcpStream)> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        (0..count).map(|_| connection(&listener)).collect()
    }

    fn read(mut far: &TcpStream, bytes: usize) -> String {
        let mut text = vec![0; bytes];
        far.read_exact(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    /// Writes until a socket accepts no further bytes, and returns the total.
    fn fill(mut near: &TcpStream) -> usize {
        let mut taken = 0;
        while let Ok(bytes) = near.write(&[b'x'; 100_000]) {
            taken += bytes;
        }
        taken
    }

    fn bytes(ring: &mut SendRing, sends: &[(&TcpStream, &[&'static str])]) -> Vec<Result<usize, io::ErrorKind>> {
        let sends = sends.iter().map(|(near, slices)| (near.as_fd(), slices.iter().map(|slice| slice.as_bytes())));
        ring.send_many(sends).map(|sent| sent.map_err(|error| error.kind())).collect()
    }

    #[test]
    fn each_socket_gets_its_own_slices_in_their_order_however_many_there_are() {
        let Some(mut ring) = new_ring() else { return };
        let all = connections(2 * SENDS_MAX + 3);
        let texts: Vec<Vec<String>> =
            (0..all.len()).map(|place| (0..place % 5).map(|part| format!("<{place}.{part}>")).collect()).collect();
        for _ in 0..3 {
            let slices = |place: usize| texts[place].iter().map(String::as_bytes);
            let sends = all.iter().enumerate().map(|(place, (near, _))| (near.as_fd(), slices(place)));
            let sent: Vec<usize> = ring.send_many(sends).map(Result::unwrap).collect();
            assert_eq!(sent.len(), all.len());
            for ((sent, texts), (_, far)) in sent.into_iter().zip(&texts).zip(&all) {
                assert_eq!(sent, texts.concat().len());
                assert_eq!(read(far, sent), texts.concat());
            }
        }
    }

    #[test]
    fn full_closed_and_reset_sockets_give_different_errors_and_affect_no_other() {
        let Some(mut ring) = new_ring() else { return };
        let [full, shut, reset, good] = <[_; 4]>::try_from(connections(4)).unwrap();
        fill(&full.0);
        shut.0.shutdown(Shutdown::Write).unwrap();
        // Unread data at an end turns its close into a reset.
        (&reset.0).write_all(b"unread").unwrap();
        assert_eq!(reset.1.peek(&mut [0]).unwrap(), 1);
        drop(reset.1);
        let hi: &[&str] = &["hi"];
        let sent = bytes(&mut ring, &[(&full.0, hi), (&shut.0, hi), (&reset.0, hi), (&good.0, hi)]);
        let gone = [Err(io::ErrorKind::ConnectionReset), Err(io::ErrorKind::BrokenPipe)];
        assert_eq!(
            (sent[0], sent[1], sent[3]),
            (Err(io::ErrorKind::WouldBlock), Err(io::ErrorKind::BrokenPipe), Ok(2))
        );
        assert!(gone.contains(&sent[2]), "{:?}", sent[2]);
        assert_eq!(read(&good.1, 2), "hi");
    }

    #[test]
    fn a_socket_takes_a_part_where_it_has_room_for_a_part() {
        let Some(mut ring) = new_ring() else { return };
        let [(near, far)] = <[_; 1]>::try_from(connections(1)).unwrap();
        let large = vec![b'y'; 64 << 20];
        for slices in [vec![&large[..]], vec![&large[..1], &large[1..]]] {
            let sent: Vec<_> = ring.send_many([(near.as_fd(), slices)]).collect();
            let [Ok(taken)] = sent.as_slice() else { panic!("{sent:?}") };
            assert!((1..large.len()).contains(taken), "{taken}");
            let rest = fill(&near);
            assert_eq!(read(&far, taken + rest).matches('y').count(), *taken);
        }
    }

    #[test]
    fn a_call_without_sends_and_a_send_without_slices_are_nothing() {
        let Some(mut ring) = new_ring() else { return };
        let [(near, far)] = <[_; 1]>::try_from(connections(1)).unwrap();
        assert_eq!(bytes(&mut ring, &[]), []);
        assert_eq!(bytes(&mut ring, &[(&near, &[]), (&near, &["", ""]), (&near, &["a"])]), [Ok(0), Ok(0), Ok(1)]);
        assert_eq!(read(&far, 1), "a");
    }

    #[test]
    fn sends_that_are_never_listed_to_the_end_are_never_sent() {
        let Some(mut ring) = new_ring() else { return };
        let [(near, far)] = <[_; 1]>::try_from(connections(1)).unwrap();
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let sends = (0..2).map(|number| {
                assert_eq!(number, 0, "the second one panics");
                (near.as_fd(), [&b"lost"[..]])
            });
            ring.send_many(sends).count()
        }));
        assert!(unwound.is_err());
        assert_eq!(bytes(&mut ring, &[(&near, &["next"])]), [Ok(4)]);
        assert_eq!(read(&far, 4), "next");
    }

    #[test]
    fn a_failed_ring_returns_errors_so_that_its_caller_sends_separately() {
        let Some(mut ring) = new_ring() else { return };
        // Simulates a failed ring.
        ring.ring = None;
        let [(near, _far)] = <[_; 1]>::try_from(connections(1)).unwrap();
        assert_eq!(bytes(&mut ring, &[(&near, &["a"])]), [Err(io::ErrorKind::WouldBlock)]);
    }
}
