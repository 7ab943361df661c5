//! Table of one client's uploads: the items that wait for their methods. Pure logic.
//!
//! Items stay encoded until their method, which has their type, takes them. The messages of a raw connection are the
//! items of one upload. Generic over the handle `C` of a call; only
//! its identity matters. Commands return the wakers of waiting readers, to be woken after unlocking.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytestring::ByteString;
use trunkline_protocol::hub::Payload;
use trunkline_protocol::service::RawKind;

use super::flow_control::FlowControl;
use super::input::detached;

/// Capacity that an upload keeps while its reader waits.
const RESTING_ITEMS: usize = 4;

#[derive(Debug)]
pub(crate) struct UploadTable<C>(HashMap<ByteString, Upload<C>>);

#[derive(Debug)]
struct Upload<C> {
    owner: Arc<C>,
    items: VecDeque<UploadItem>,
    end: Option<UploadEnd>,
    reader: Option<Waker>,
    is_full: bool,
}

/// Item of an upload, still encoded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UploadItem {
    pub(crate) payload: Payload,
    /// Kind of a raw connection's message. Its payload is not encoded.
    pub(crate) raw: Option<RawKind>,
    /// Bytes that count until the item is read.
    pub(crate) bytes: usize,
}

/// End of an upload, after its items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum UploadEnd {
    Complete,
    /// The client aborted the upload with this error.
    Failed(ByteString),
    ConnectionClosed,
    /// The app server is stopping and can no longer wait for the client.
    Leaving,
    /// The inbox is overfull, so the next item may never arrive.
    Overfull,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum UploadEvent {
    Item(UploadItem),
    /// The end, reported once.
    End(UploadEnd),
    /// The upload has ended or no longer belongs to this method.
    Closed,
}

impl<C> UploadTable<C> {
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

    pub(crate) fn has_open(&self) -> bool {
        self.0.values().any(|upload| upload.end.is_none())
    }

    pub(crate) fn open_upload(&mut self, id: ByteString, owner: &Arc<C>) {
        let (owner, items) = (Arc::clone(owner), VecDeque::new());
        let upload = Upload { owner, items, end: None, reader: None, is_full: false };
        let before = self.0.insert(id, upload);
        debug_assert!(before.is_none(), "ids in use are refused");
    }

    /// Adds an item; `Err` if no such upload is open.
    pub(crate) fn push(
        &mut self,
        id: &str,
        mut item: UploadItem,
        items_max: usize,
        flow: &mut FlowControl,
    ) -> Result<Option<Waker>, ()> {
        let upload = self.0.get_mut(id).filter(|upload| upload.end.is_none()).ok_or(())?;
        if item.raw.is_some() && upload.reader.is_none() {
            // Without a waiting reader, the message may stay for long. Items of hubs are detached already.
            item.payload = Payload::new(detached(item.payload.as_bytes().clone()));
        }
        flow.add_bytes(item.bytes);
        upload.items.push_back(item);
        if !upload.is_full && upload.items.len() > items_max {
            upload.is_full = true;
            flow.upload_filled();
        }
        Ok(upload.take_reader(flow))
    }

    /// Ends an upload; `Err` if no such upload is open.
    pub(crate) fn end_upload(&mut self, id: &str, end: UploadEnd, flow: &mut FlowControl) -> Result<Option<Waker>, ()> {
        let upload = self.0.get_mut(id).filter(|upload| upload.end.is_none()).ok_or(())?;
        upload.end = Some(end);
        Ok(upload.take_reader(flow))
    }

    pub(crate) fn end_all(&mut self, end: &UploadEnd, flow: &mut FlowControl) -> Vec<Waker> {
        let open = self.0.values_mut().filter(|upload| upload.end.is_none());
        open.filter_map(|upload| {
            upload.end = Some(end.clone());
            upload.take_reader(flow)
        })
        .collect()
    }

    /// Fails all uploads with a method that waits for an item.
    pub(crate) fn fail_waiting(&mut self, flow: &mut FlowControl) -> Vec<Waker> {
        let waiting = self.0.values_mut().filter(|upload| upload.reader.is_some());
        waiting
            .filter_map(|upload| {
                upload.end = Some(UploadEnd::Overfull);
                upload.take_reader(flow)
            })
            .collect()
    }

    /// Polls for the next event of an upload, on behalf of the method that owns it.
    pub(crate) fn poll(
        &mut self,
        id: &str,
        owner: &Arc<C>,
        items_max: usize,
        flow: &mut FlowControl,
        context: &mut Context<'_>,
    ) -> Poll<UploadEvent> {
        let Some(upload) = self.0.get_mut(id).filter(|upload| Arc::ptr_eq(&upload.owner, owner)) else {
            return Poll::Ready(UploadEvent::Closed);
        };
        if let Some(item) = upload.items.pop_front() {
            flow.remove_bytes(item.bytes);
            if upload.is_full && upload.items.len() <= items_max / 2 {
                upload.is_full = false;
                flow.upload_drained();
            }
            return Poll::Ready(UploadEvent::Item(item));
        }
        if let Some(end) = upload.end.take() {
            self.0.remove(id);
            return Poll::Ready(UploadEvent::End(end));
        }
        match &mut upload.reader {
            Some(waker) => waker.clone_from(context.waker()),
            none => {
                *none = Some(context.waker().clone());
                flow.begin_wait();
                upload.items.shrink_to(RESTING_ITEMS);
            }
        }
        Poll::Pending
    }

    /// Closes an upload on behalf of the method that owns it, and drops its items.
    pub(crate) fn close_upload(&mut self, id: &str, owner: &Arc<C>, flow: &mut FlowControl) -> Option<Waker> {
        if !self.0.get(id).is_some_and(|upload| Arc::ptr_eq(&upload.owner, owner)) {
            return None;
        }
        let mut upload = self.0.remove(id)?;
        flow.remove_bytes(upload.items.iter().map(|item| item.bytes).sum());
        if upload.is_full {
            flow.upload_drained();
        }
        upload.take_reader(flow)
    }
}

impl<C> Upload<C> {
    fn take_reader(&mut self, flow: &mut FlowControl) -> Option<Waker> {
        self.reader.take().inspect(|_| flow.end_wait())
    }
}

impl<C> Default for UploadTable<C> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use trunkline_protocol::hub::HubProtocol;

    use super::*;

    const ITEMS_MAX: usize = 4;

    /// A call; only its identity matters.
    #[derive(Debug, Default)]
    struct Owner(#[expect(dead_code, reason = "two owners need two addresses")] u8);

    struct OneUpload {
        uploads: UploadTable<Owner>,
        flow: FlowControl,
        owner: Arc<Owner>,
    }

    impl OneUpload {
        /// Creates an upload named `u`.
        fn new() -> Self {
            let (mut uploads, owner) = (UploadTable::default(), Arc::<Owner>::default());
            uploads.open_upload("u".into(), &owner);
            Self { uploads, flow: FlowControl::default(), owner }
        }

        fn push(&mut self, item: u32) -> Result<Option<Waker>, ()> {
            let payload = HubProtocol::Json.payload(&item).unwrap();
            self.uploads.push("u", UploadItem { payload, raw: None, bytes: 10 }, ITEMS_MAX, &mut self.flow)
        }

        fn push_raw(&mut self, message: Bytes) {
            let (payload, raw) = (Payload::new(message), Some(RawKind::Text));
            let item = UploadItem { payload, raw, bytes: 10 };
            drop(self.uploads.push("u", item, ITEMS_MAX, &mut self.flow).unwrap());
        }

        fn poll(&mut self) -> Poll<UploadEvent> {
            let mut context = Context::from_waker(Waker::noop());
            self.uploads.poll("u", &self.owner, ITEMS_MAX, &mut self.flow, &mut context)
        }

        fn item(&mut self) -> u32 {
            match self.poll() {
                Poll::Ready(UploadEvent::Item(item)) => HubProtocol::Json.value(&item.payload).unwrap(),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn items_arrive_in_order_and_the_end_after_them() {
        let mut upload = OneUpload::new();
        upload.push(1).unwrap();
        upload.push(2).unwrap();
        upload.uploads.end_upload("u", UploadEnd::Failed("cut".into()), &mut upload.flow).unwrap();
        assert_eq!((upload.item(), upload.item()), (1, 2));
        assert_eq!(upload.poll(), Poll::Ready(UploadEvent::End(UploadEnd::Failed("cut".into()))));
        assert_eq!(upload.poll(), Poll::Ready(UploadEvent::Closed));
        assert!(upload.flow.is_idle());
    }

    #[test]
    fn after_the_end_nothing_more_is_taken() {
        let mut upload = OneUpload::new();
        upload.uploads.end_upload("u", UploadEnd::Complete, &mut upload.flow).unwrap();
        assert!(upload.push(1).is_err());
        assert!(upload.uploads.end_upload("u", UploadEnd::Complete, &mut upload.flow).is_err());
        assert!(upload.uploads.end_upload("nobody's", UploadEnd::Complete, &mut upload.flow).is_err());
    }

    #[test]
    fn an_item_wakes_a_waiting_reader_once() {
        let mut upload = OneUpload::new();
        assert!(upload.poll().is_pending());
        assert!(upload.poll().is_pending());
        assert!(!upload.flow.is_idle(), "one wait, however often it was polled");
        assert!(upload.push(1).unwrap().is_some());
        assert!(upload.push(2).unwrap().is_none());
        assert_eq!((upload.item(), upload.item()), (1, 2));
        assert!(upload.flow.is_idle());
    }

    #[test]
    fn waiting_raw_messages_keep_no_buffer_of_the_link() {
        let link = Bytes::from(vec![b'x'; 64 * 1024]);
        let mut upload = OneUpload::new();
        assert!(upload.poll().is_pending());
        upload.push_raw(link.slice(..15));
        let Poll::Ready(UploadEvent::Item(first)) = upload.poll() else { panic!("it is there") };
        assert_eq!(first.payload.as_bytes().as_ptr(), link.as_ptr(), "what is awaited is a slice");
        drop(first);
        upload.push_raw(link.slice(15..30));
        assert!(link.is_unique());
        upload.push_raw(link.clone());
        assert!(!link.is_unique(), "what is large is a slice");
    }

    #[test]
    fn closing_an_upload_drops_its_items() {
        let mut upload = OneUpload::new();
        for item in 0..10 {
            upload.push(item).unwrap();
        }
        assert!(upload.uploads.close_upload("u", &Arc::default(), &mut upload.flow).is_none());
        assert_eq!(upload.uploads.len(), 1, "only its own method closes it");
        upload.uploads.close_upload("u", &upload.owner, &mut upload.flow);
        assert!(upload.uploads.is_empty());
        assert!(upload.flow.is_idle());
    }

    #[test]
    fn the_upload_of_a_later_call_is_not_read_by_an_earlier_one() {
        let mut upload = OneUpload::new();
        upload.push(1).unwrap();
        upload.owner = Arc::default();
        assert_eq!(upload.poll(), Poll::Ready(UploadEvent::Closed));
    }

    #[test]
    fn only_waiting_readers_are_failed() {
        let mut upload = OneUpload::new();
        assert!(upload.uploads.fail_waiting(&mut upload.flow).is_empty());
        assert!(upload.poll().is_pending());
        assert_eq!(upload.uploads.fail_waiting(&mut upload.flow).len(), 1);
        assert_eq!(upload.poll(), Poll::Ready(UploadEvent::End(UploadEnd::Overfull)));
    }
}
