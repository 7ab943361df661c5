//! Home of a client connection in its app server: the link that brings the client's messages, and the route for frames
//! to this client alone.
//!
//! The home changes when a client reconnects to another node, or a service drains a server connection: the peer pauses
//! the client at the old home and resumes it over the new one. Meanwhile client-only frames wait, so none are lost or
//! reordered.
//!
//! ```text
//!  flowing ──pause──► paused ──in-flight frames are queued──► acknowledged ──resume──► flowing, over the new link
//!                       └── frames wait here ───────────────────────────────────────► leave first
//! ```
//!
//! Pure: `L` identifies links and `N` nodes. Frames to send are returned.

use bytes::Bytes;

/// Home of a connection, which may change.
#[derive(Debug, Clone)]
pub struct ClientHome<L, N> {
    link: L,
    node: N,
    /// At a proxy, another proxy may take the connection over. Otherwise the home is at a service.
    is_at_proxy: bool,
    /// Number of frames with a route that are not queued yet because their link is full.
    passing: u32,
    pause: Option<Pause>,
    /// Number of pauses, including the current one.
    pauses: u32,
    /// The link has ended, and the connection with it.
    is_over: bool,
}

#[derive(Debug, Clone, Default)]
struct Pause {
    /// Frames held until the pause ends.
    frames: Vec<Bytes>,
    /// Acknowledgement to send when no frame is in flight.
    acknowledgement: Option<Bytes>,
    /// The last frame is held; later ones are discarded.
    is_last: bool,
}

/// Route of a frame for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route<N> {
    /// Send to this node, then call [`passed`](ClientHome::passed) once the frame is queued.
    To(N),
    /// Wait until the pause ends.
    Paused,
    /// The connection is closed.
    Nowhere,
}

/// Result of a resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResumeOutcome {
    /// The home is unchanged.
    Stayed,
    /// The home is now this link, at another node.
    Moved,
    /// The connection was not paused; its home is unchanged.
    NotPaused,
}

/// Effect of a link's end on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HomeLoss {
    /// The link is not the connection's home.
    Elsewhere,
    /// The connection ends with the link.
    Over,
    /// The connection may already be at another node, which will announce it.
    Moving,
}

impl<L: Copy + PartialEq, N: Clone + PartialEq> ClientHome<L, N> {
    /// Creates a home at a proxy, or at a service, which may always move it.
    #[must_use]
    pub fn new(link: L, node: N, is_at_proxy: bool) -> Self {
        Self { link, node, is_at_proxy, passing: 0, pause: None, pauses: 0, is_over: false }
    }

    /// Link that brings the client's messages.
    #[must_use]
    pub fn link(&self) -> L {
        self.link
    }

    /// Node that receives frames for the client.
    #[must_use]
    pub fn node(&self) -> &N {
        &self.node
    }

    /// Whether another proxy may take the connection over.
    #[must_use]
    pub fn is_at_proxy(&self) -> bool {
        self.is_at_proxy
    }

    /// Whether frames for the client are held.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.pause.is_some()
    }

    /// Number of the current pause by a proxy, if any. Some node has to end it.
    #[must_use]
    pub fn present_pause(&self) -> Option<u32> {
        self.pause.as_ref().filter(|_| self.is_at_proxy).map(|_| self.pauses)
    }

    /// Routes a frame to the client alone.
    pub fn pass(&mut self) -> Route<N> {
        match &self.pause {
            None => {
                self.passing += 1;
                Route::To(self.node.clone())
            }
            Some(pause) if pause.is_last => Route::Nowhere,
            Some(_) => Route::Paused,
        }
    }

    /// Records that a routed frame is queued. Returns the acknowledgement of a pause that waited for it.
    pub fn passed(&mut self) -> Option<Bytes> {
        self.passing = self.passing.saturating_sub(1);
        if self.passing > 0 {
            return None;
        }
        self.pause.as_mut()?.acknowledgement.take()
    }

    /// Returns a control frame to send immediately, or holds it while the client is paused.
    pub fn control(&mut self, frame: Bytes) -> Option<Bytes> {
        match &mut self.pause {
            None => return Some(frame),
            Some(pause) if pause.is_last => {}
            Some(pause) => pause.frames.push(frame),
        }
        None
    }

    /// Pauses the client on request of its node. Returns the acknowledgement if no frame is in flight.
    pub fn pause(&mut self, node: &N, acknowledgement: Bytes) -> Option<Bytes> {
        // Only the current node may pause.
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

    /// Resumes a paused client over this link, or any client of a service that may have lost the other link. Returns
    /// the frames to send first.
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

    /// Holds the last frames of a client that is moving. Returns `false` if it isn't, so that they can be sent.
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

    /// Gives up a connection that no node has resumed since this pause began: its new owner is gone, and the old one
    /// has released it. Returns `false` if a node has resumed it.
    pub fn give_up_pause(&mut self, pause: u32) -> bool {
        let is_left = self.present_pause() == Some(pause);
        self.is_over |= is_left;
        is_left
    }

    /// Gives up a connection that no other node has resumed. Returns `false` if this link is not its home.
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
    fn held_frames_leave_over_the_new_link_in_order() {
        let mut home = home();
        assert_eq!(home.control(frame("a")), Some(frame("a")));
        assert_eq!(home.pause(&"old", ACKNOWLEDGEMENT), Some(ACKNOWLEDGEMENT));
        assert_eq!((home.control(frame("b")), home.pass()), (None, Route::Paused));
        assert_eq!(home.resume(2, &"new"), (ResumeOutcome::Moved, vec![frame("b")]));
        assert_eq!((home.control(frame("c")), home.pass(), home.link()), (Some(frame("c")), Route::To("new"), 2));
    }

    #[test]
    fn a_pause_is_acknowledged_once_frames_in_flight_are_queued() {
        let mut home = home();
        assert_eq!([home.pass(), home.pass()], [Route::To("old"); 2]);
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
    fn an_unended_pause_is_given_up() {
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
        assert_eq!((home.control(frame("b")), home.pass()), (None, Route::Nowhere));
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
