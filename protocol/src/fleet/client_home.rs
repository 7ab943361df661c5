//! Home of a client connection in its app server: the link that brings what the client sends, and the way of frames to
//! the client alone.
//!
//! The home changes where a client comes back at another node, and where a service gives a server connection up in
//! order: the far end pauses the client at the old home, and resumes it over the new one. Nothing that is for the
//! client alone leaves in between, so that nothing is lost and the order stays.
//!
//! ```text
//!  flowing ──pause──► paused ──what was on its way has been queued──► acknowledged ──resume──► flowing, over the new link
//!                       └── frames wait here ──────────────────────────────────────────────────► leave first
//! ```
//!
//! Pure: links are named by an `L`, nodes by an `N`; what is to be sent is returned.

use bytes::Bytes;

/// Home of a connection that may get another one.
#[derive(Debug, Clone)]
pub struct ClientHome<L, N> {
    link: L,
    node: N,
    /// Whether it is at a proxy, and may go to another one; otherwise it is at a service.
    is_at_proxy: bool,
    /// Number of frames that have the way and are not queued yet, because their link is full.
    passing: u32,
    pause: Option<Pause>,
    /// Number of its pauses, the present one included.
    pauses: u32,
    /// The link has ended, and the connection with it.
    is_over: bool,
}

/// Pause of a connection.
#[derive(Debug, Clone, Default)]
struct Pause {
    /// Frames that wait for the end of the pause.
    frames: Vec<Bytes>,
    /// Acknowledgement that is owed when nothing passes any more.
    acknowledgement: Option<Bytes>,
    /// The last frame waits, too: whatever comes after it goes nowhere.
    is_last: bool,
}

/// Permission to queue a frame for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way<N> {
    /// At this node; once it is queued, it has [passed](ClientHome::passed).
    To(N),
    /// At the end of the pause.
    Paused,
    /// The connection is closed.
    Nowhere,
}

/// Outcome of a resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResumeOutcome {
    /// The connection goes on where it was.
    Stayed,
    /// The connection goes on over this link, at another node.
    Moved,
    /// It was not paused, and stays where it is.
    NotPaused,
}

/// Outcome of the end of a link for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HomeLoss {
    /// The link was not its home, or is no more.
    Elsewhere,
    /// The connection ends with the link.
    Over,
    /// It may be at another node by now, which is about to say so.
    Moving,
}

impl<L: Copy + PartialEq, N: Clone + PartialEq> ClientHome<L, N> {
    /// Home at a proxy, or at a service, which may always move it.
    #[must_use]
    pub fn new(link: L, node: N, is_at_proxy: bool) -> Self {
        Self { link, node, is_at_proxy, passing: 0, pause: None, pauses: 0, is_over: false }
    }

    /// Link that brings what the client sends.
    #[must_use]
    pub fn link(&self) -> L {
        self.link
    }

    /// Node that takes frames for the client.
    #[must_use]
    pub fn node(&self) -> &N {
        &self.node
    }

    /// Whether another proxy may take the connection over.
    #[must_use]
    pub fn is_at_proxy(&self) -> bool {
        self.is_at_proxy
    }

    /// Whether frames for the client wait.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.pause.is_some()
    }

    /// Number of the present pause by a proxy, which some node has to end.
    #[must_use]
    pub fn present_pause(&self) -> Option<u32> {
        self.pause.as_ref().filter(|_| self.is_at_proxy).map(|_| self.pauses)
    }

    /// Finds the way for a frame to the client alone.
    pub fn pass(&mut self) -> Way<N> {
        match &self.pause {
            None => {
                self.passing += 1;
                Way::To(self.node.clone())
            }
            Some(pause) if pause.is_last => Way::Nowhere,
            Some(_) => Way::Paused,
        }
    }

    /// Notes that a frame is queued which had the way. Returns the acknowledgement of a pause that has waited for it.
    pub fn passed(&mut self) -> Option<Bytes> {
        self.passing = self.passing.saturating_sub(1);
        if self.passing > 0 {
            return None;
        }
        self.pause.as_mut()?.acknowledgement.take()
    }

    /// Takes a control frame for the client. Returns it if it leaves at once, and keeps it while the client is paused.
    pub fn control(&mut self, frame: Bytes) -> Option<Bytes> {
        match &mut self.pause {
            None => return Some(frame),
            Some(pause) if pause.is_last => {}
            Some(pause) => pause.frames.push(frame),
        }
        None
    }

    /// Pauses the client as this node asks, which must be its own. Returns the acknowledgement once nothing else
    /// leaves.
    pub fn pause(&mut self, node: &N, acknowledgement: Bytes) -> Option<Bytes> {
        // A node has no say in what has left it.
        if self.is_at_proxy && *node != self.node {
            return None;
        }
        self.pauses = self.pauses.wrapping_add(u32::from(self.pause.is_none()));
        let pause = self.pause.get_or_insert_default();
        if self.passing == 0 {
            pause.acknowledgement = None;
            return Some(acknowledgement);
        }
        pause.acknowledgement = Some(acknowledgement);
        None
    }

    /// Resumes a client over this link: a paused client, or any client of a service that may have lost the other link.
    /// Returns what leaves first.
    pub fn resume(&mut self, link: L, node: &N) -> (ResumeOutcome, Vec<Bytes>) {
        let moves = *node != self.node;
        if self.is_over && moves {
            return (ResumeOutcome::NotPaused, Vec::new());
        }
        let frames = match self.pause.take() {
            Some(pause) => pause.frames,
            None if moves && !self.is_at_proxy => Vec::new(),
            None => return (ResumeOutcome::NotPaused, Vec::new()),
        };
        if !moves {
            return (ResumeOutcome::Stayed, frames);
        }
        (self.link, self.node) = (link, node.clone());
        (ResumeOutcome::Moved, frames)
    }

    /// Keeps the last frames for a client that moves. Returns `false` if it does not, and they may leave.
    pub fn keep_last(&mut self, frames: &[Bytes]) -> bool {
        let Some(pause) = self.pause.as_mut().filter(|_| self.is_at_proxy) else { return false };
        pause.frames.extend_from_slice(frames);
        pause.is_last = true;
        true
    }

    /// Handles the end of a link.
    pub fn end_link(&mut self, link: L) -> HomeLoss {
        if self.link != link {
            return HomeLoss::Elsewhere;
        }
        match &self.pause {
            Some(pause) if self.is_at_proxy && pause.acknowledgement.is_none() => HomeLoss::Moving,
            _ => {
                self.is_over = true;
                HomeLoss::Over
            }
        }
    }

    /// Gives up a connection that no node has resumed since this pause began: the new owner is gone, and the old one
    /// has forgotten it. Returns `false` if one has.
    pub fn give_up_pause(&mut self, pause: u32) -> bool {
        let is_left = self.present_pause() == Some(pause);
        self.is_over |= is_left;
        is_left
    }

    /// Gives up a connection that no other node has resumed. Returns `false` if its home is not this link any more.
    pub fn give_up(&mut self, link: L) -> bool {
        self.is_over |= self.link == link;
        self.is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACKNOWLEDGEMENT: Bytes = Bytes::from_static(b"!");

    fn frame(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn home() -> ClientHome<u8, &'static str> {
        ClientHome::new(1, "old", true)
    }

    #[test]
    fn what_a_pause_holds_back_leaves_over_the_new_link_in_order() {
        let mut home = home();
        assert_eq!(home.control(frame("a")), Some(frame("a")));
        assert_eq!(home.pause(&"old", ACKNOWLEDGEMENT), Some(ACKNOWLEDGEMENT));
        assert_eq!((home.control(frame("b")), home.pass()), (None, Way::Paused));
        assert_eq!(home.resume(2, &"new"), (ResumeOutcome::Moved, vec![frame("b")]));
        assert_eq!((home.control(frame("c")), home.pass(), home.link()), (Some(frame("c")), Way::To("new"), 2));
    }

    #[test]
    fn a_pause_is_acknowledged_when_what_was_on_its_way_is_queued() {
        let mut home = home();
        assert_eq!([home.pass(), home.pass()], [Way::To("old"); 2]);
        assert_eq!(home.pause(&"old", ACKNOWLEDGEMENT), None);
        assert_eq!([home.passed(), home.passed()], [None, Some(ACKNOWLEDGEMENT)]);
        assert_eq!(home.passed(), None, "it is acknowledged once");
    }

    #[test]
    fn a_move_that_fails_leaves_the_home_as_it_was() {
        let mut home = home();
        assert_eq!(home.pause(&"new", ACKNOWLEDGEMENT), None);
        assert!(!home.is_paused(), "only its own node pauses it");
        home.pause(&"old", ACKNOWLEDGEMENT);
        home.control(frame("b"));
        assert_eq!(home.resume(7, &"old"), (ResumeOutcome::Stayed, vec![frame("b")]), "over whichever of its links");
        assert_eq!(home.link(), 1);
        assert_eq!(home.resume(2, &"new").0, ResumeOutcome::NotPaused);
    }

    #[test]
    fn a_service_that_has_lost_the_link_resumes_the_connection_over_another_one_without_a_pause() {
        let mut home = ClientHome::new(1, "old", false);
        assert_eq!(home.resume(2, &"new"), (ResumeOutcome::Moved, Vec::new()));
        assert_eq!(home.pause(&"new", ACKNOWLEDGEMENT), Some(ACKNOWLEDGEMENT), "and is answered by that");
        assert_eq!((home.resume(2, &"new").0, home.end_link(1)), (ResumeOutcome::Stayed, HomeLoss::Elsewhere));
    }

    #[test]
    fn a_pause_that_nobody_ends_is_given_up() {
        let mut home = home();
        assert!(home.present_pause().is_none());
        home.pause(&"old", ACKNOWLEDGEMENT);
        let first = home.present_pause().unwrap();
        home.resume(1, &"old");
        assert!(!home.give_up_pause(first));
        home.pause(&"old", ACKNOWLEDGEMENT);
        let second = home.present_pause().unwrap();
        assert!(!home.give_up_pause(first) && home.give_up_pause(second));
        assert_eq!(home.resume(2, &"new").0, ResumeOutcome::NotPaused, "it comes too late");
    }

    #[test]
    fn behind_the_last_frame_nothing_leaves() {
        let mut home = home();
        assert!(!home.keep_last(&[frame("z")]));
        home.pause(&"old", ACKNOWLEDGEMENT);
        home.control(frame("a"));
        assert!(home.keep_last(&[frame("z")]));
        assert_eq!((home.control(frame("b")), home.pass()), (None, Way::Nowhere));
        assert_eq!(home.resume(2, &"new").1, [frame("a"), frame("z")]);
    }

    #[test]
    fn a_link_takes_its_connections_along_but_for_those_that_have_moved_or_are_about_to() {
        let mut moved = home();
        assert_eq!(moved.end_link(2), HomeLoss::Elsewhere);
        moved.pause(&"old", ACKNOWLEDGEMENT);
        assert_eq!(moved.end_link(1), HomeLoss::Moving);
        moved.resume(2, &"new");
        assert!(!moved.give_up(1));
        assert_eq!([moved.end_link(1), moved.end_link(2)], [HomeLoss::Elsewhere, HomeLoss::Over]);
        let mut late = home();
        late.pause(&"old", ACKNOWLEDGEMENT);
        assert!(late.give_up(1));
        assert_eq!(late.resume(2, &"new").0, ResumeOutcome::NotPaused, "it comes too late");
    }
}
