//! The streams that one client uploads: what waits in them for their methods. A pure value.
//!
//! Items stay encoded until their method takes them, because only the method knows their type.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytestring::ByteString;
use trunkline_protocol::hub::Payload;

use super::{Flow, Scope};

/// The streams that are being uploaded, by the ids that the client gave them.
#[derive(Debug, Default)]
pub(crate) struct Uploads(HashMap<ByteString, Upload>);

#[derive(Debug)]
struct Upload {
    owner: Arc<Scope>,
    items: VecDeque<Item>,
    end: Option<UploadEnd>,
    waiting: Option<Waker>,
    is_crowded: bool,
}

#[derive(Debug)]
struct Item {
    payload: Payload,
    bytes: usize,
}

/// How an upload ends, after its items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum UploadEnd {
    /// All items are there.
    Complete,
    /// The client says why there are no more.
    Failed(ByteString),
    /// The connection is over.
    ConnectionEnded,
    /// So much waits that the next item may never get through.
    Overfull,
}

/// What a method gets of its upload.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum UploadNews {
    /// The next item.
    Item(Payload),
    /// There are no more, told once.
    End(UploadEnd),
    /// The upload is over, or no longer this method's.
    Nothing,
}

impl Uploads {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn contains(&self, id: &str) -> bool {
        self.0.contains_key(id)
    }

    /// Opens the stream for the method of this call.
    pub(crate) fn open(&mut self, id: ByteString, owner: &Arc<Scope>) {
        let upload =
            Upload { owner: Arc::clone(owner), items: VecDeque::new(), end: None, waiting: None, is_crowded: false };
        let before = self.0.insert(id, upload);
        debug_assert!(before.is_none(), "ids in use are refused");
    }

    /// An item came, which weighs so much; returns who waits for it. `Err`: nobody knows this stream, or it is over.
    pub(crate) fn push(
        &mut self,
        id: &str,
        payload: Payload,
        bytes: usize,
        items_max: usize,
        flow: &mut Flow,
    ) -> Result<Option<Waker>, ()> {
        let upload = self.0.get_mut(id).filter(|upload| upload.end.is_none()).ok_or(())?;
        upload.items.push_back(Item { payload, bytes });
        flow.add_bytes(bytes);
        if !upload.is_crowded && upload.items.len() > items_max {
            upload.is_crowded = true;
            flow.crowd();
        }
        Ok(upload.stop_waiting(flow))
    }

    /// The stream ends; returns who waits for it. `Err`: nobody knows it, or it is over already.
    pub(crate) fn end(&mut self, id: &str, end: UploadEnd, flow: &mut Flow) -> Result<Option<Waker>, ()> {
        let upload = self.0.get_mut(id).filter(|upload| upload.end.is_none()).ok_or(())?;
        upload.end = Some(end);
        Ok(upload.stop_waiting(flow))
    }

    /// Ends all of them; returns who waits.
    pub(crate) fn end_all(&mut self, end: &UploadEnd, flow: &mut Flow) -> Vec<Waker> {
        let open = self.0.values_mut().filter(|upload| upload.end.is_none());
        open.filter_map(|upload| {
            upload.end = Some(end.clone());
            upload.stop_waiting(flow)
        })
        .collect()
    }

    /// Ends those whose methods wait for an item; returns the waiting.
    pub(crate) fn fail_waiting(&mut self, flow: &mut Flow) -> Vec<Waker> {
        let waiting = self.0.values_mut().filter(|upload| upload.waiting.is_some());
        waiting
            .filter_map(|upload| {
                upload.end = Some(UploadEnd::Overfull);
                upload.stop_waiting(flow)
            })
            .collect()
    }

    /// What the method of this call gets next.
    pub(crate) fn poll(
        &mut self,
        id: &str,
        owner: &Arc<Scope>,
        items_max: usize,
        flow: &mut Flow,
        context: &mut Context<'_>,
    ) -> Poll<UploadNews> {
        let Some(upload) = self.0.get_mut(id).filter(|upload| Arc::ptr_eq(&upload.owner, owner)) else {
            return Poll::Ready(UploadNews::Nothing);
        };
        if let Some(Item { payload, bytes }) = upload.items.pop_front() {
            flow.remove_bytes(bytes);
            if upload.is_crowded && upload.items.len() <= items_max / 2 {
                upload.is_crowded = false;
                flow.thin_out();
            }
            return Poll::Ready(UploadNews::Item(payload));
        }
        if let Some(end) = upload.end.take() {
            self.0.remove(id);
            return Poll::Ready(UploadNews::End(end));
        }
        match &mut upload.waiting {
            Some(waker) => waker.clone_from(context.waker()),
            none => {
                *none = Some(context.waker().clone());
                flow.begin_wait();
            }
        }
        Poll::Pending
    }

    /// The method of this call takes no more of the stream; what waits in it is dropped. Returns who waits.
    pub(crate) fn close(&mut self, id: &str, owner: &Arc<Scope>, flow: &mut Flow) -> Option<Waker> {
        if !self.0.get(id).is_some_and(|upload| Arc::ptr_eq(&upload.owner, owner)) {
            return None;
        }
        let mut upload = self.0.remove(id)?;
        flow.remove_bytes(upload.items.iter().map(|item| item.bytes).sum());
        if upload.is_crowded {
            flow.thin_out();
        }
        upload.stop_waiting(flow)
    }
}

impl Upload {
    fn stop_waiting(&mut self, flow: &mut Flow) -> Option<Waker> {
        self.waiting.take().inspect(|_| flow.end_wait())
    }
}

#[cfg(test)]
mod tests {
    use trunkline_protocol::hub::HubProtocol;
    use trunkline_protocol::service::OpenConnection;

    use super::super::opening::tests::opening;
    use super::super::{Connection, LinkId, Takes};
    use super::*;
    use crate::node::Node;

    const ITEMS_MAX: usize = 4;

    struct Stage {
        uploads: Uploads,
        flow: Flow,
        owner: Arc<Scope>,
    }

    fn owner() -> Arc<Scope> {
        let open = OpenConnection { protocol: Some("json".into()), ..OpenConnection::default() };
        let connection =
            Connection::new(opening(open), HubProtocol::Json, LinkId(0), Arc::new(Node::new("node", "boot", true)));
        Scope::call(&Arc::new(connection), Takes::Background, None)
    }

    impl Stage {
        /// An upload named `u`.
        fn new() -> Self {
            let (mut uploads, owner) = (Uploads::default(), owner());
            uploads.open("u".into(), &owner);
            Self { uploads, flow: Flow::default(), owner }
        }

        fn push(&mut self, item: u32) -> Result<Option<Waker>, ()> {
            let payload = HubProtocol::Json.payload(&item).unwrap();
            self.uploads.push("u", payload, 10, ITEMS_MAX, &mut self.flow)
        }

        fn poll(&mut self) -> Poll<UploadNews> {
            let mut context = Context::from_waker(Waker::noop());
            self.uploads.poll("u", &self.owner, ITEMS_MAX, &mut self.flow, &mut context)
        }

        fn item(&mut self) -> u32 {
            match self.poll() {
                Poll::Ready(UploadNews::Item(payload)) => HubProtocol::Json.value(&payload).unwrap(),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn items_come_in_their_order_and_the_end_after_them() {
        let mut stage = Stage::new();
        stage.push(1).unwrap();
        stage.push(2).unwrap();
        stage.uploads.end("u", UploadEnd::Failed("cut".into()), &mut stage.flow).unwrap();
        assert_eq!((stage.item(), stage.item()), (1, 2));
        assert_eq!(stage.poll(), Poll::Ready(UploadNews::End(UploadEnd::Failed("cut".into()))));
        assert_eq!(stage.poll(), Poll::Ready(UploadNews::Nothing));
        assert!(stage.flow.is_at_rest());
    }

    #[test]
    fn after_the_end_nothing_more_is_taken() {
        let mut stage = Stage::new();
        stage.uploads.end("u", UploadEnd::Complete, &mut stage.flow).unwrap();
        assert!(stage.push(1).is_err());
        assert!(stage.uploads.end("u", UploadEnd::Complete, &mut stage.flow).is_err());
        assert!(stage.uploads.end("nobody's", UploadEnd::Complete, &mut stage.flow).is_err());
    }

    #[test]
    fn who_waits_is_woken_by_an_item_and_waits_no_longer() {
        let mut stage = Stage::new();
        assert!(stage.poll().is_pending());
        assert!(stage.poll().is_pending());
        assert!(!stage.flow.is_at_rest(), "one wait, however often it was polled");
        assert!(stage.push(1).unwrap().is_some());
        assert!(stage.push(2).unwrap().is_none());
        assert_eq!((stage.item(), stage.item()), (1, 2));
        assert!(stage.flow.is_at_rest());
    }

    #[test]
    fn what_is_left_in_a_closed_upload_is_dropped() {
        let mut stage = Stage::new();
        for item in 0..10 {
            stage.push(item).unwrap();
        }
        assert!(stage.uploads.close("u", &owner(), &mut stage.flow).is_none());
        assert_eq!(stage.uploads.len(), 1, "only its own method closes it");
        stage.uploads.close("u", &stage.owner, &mut stage.flow);
        assert!(stage.uploads.is_empty());
        assert!(stage.flow.is_at_rest());
    }

    #[test]
    fn the_upload_of_a_later_call_is_not_read_by_an_earlier_one() {
        let mut stage = Stage::new();
        stage.push(1).unwrap();
        stage.owner = owner();
        assert_eq!(stage.poll(), Poll::Ready(UploadNews::Nothing));
    }

    #[test]
    fn only_who_waits_is_failed() {
        let mut stage = Stage::new();
        assert!(stage.uploads.fail_waiting(&mut stage.flow).is_empty());
        assert!(stage.poll().is_pending());
        assert_eq!(stage.uploads.fail_waiting(&mut stage.flow).len(), 1);
        assert_eq!(stage.poll(), Poll::Ready(UploadNews::End(UploadEnd::Overfull)));
    }
}
