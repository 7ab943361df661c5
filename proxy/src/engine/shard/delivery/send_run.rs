//! Run of sends: consecutive messages of one batch for the same receivers.
//!
//! Their frames are joined once, so the run costs a receiver with an empty outbox as much as one message. Others get
//! the frames individually.
//!
//! ```text
//!  batch:  all: a │ all: b │ all: c │ group: d
//!          └──── one run: abc ────┘
//! ```
//!
//! The compressed twins of the frames are made for the first receiver with compression, and shared by the others.

use std::cell::OnceCell;
use std::iter;

use bytes::Bytes;
use trunkline_protocol::hub::HubProtocol;

use super::framed::{Compression, Framed, WireFrame};
use crate::engine::shard::command::audience::SendOrigin;
use crate::engine::shard::content::{Content, FrameForm};
use crate::engine::transport::websocket::payload_bytes;

/// Maximum joined bytes. Beyond it, the per-frame cost is small compared to the bytes.
const JOINED_MAX_BYTES: usize = 16 * 1024;

/// Messages for the same receivers, usually a single one.
#[derive(Debug)]
pub(crate) struct SendRun {
    first: (Framed, SendOrigin),
    more: Vec<(Framed, SendOrigin)>,
    bytes: usize,
    /// Joined frames, if there is more than one message.
    joined: Option<Framed>,
    twins: OnceCell<Box<Twins>>,
}

/// Frames of a run in each form, compressed where that makes them smaller, and behind several ones all of them joined.
type Twins = [OnceCell<Vec<Bytes>>; FrameForm::ALL.len()];

impl SendRun {
    pub(crate) fn new(first: (Framed, SendOrigin)) -> Self {
        Self { bytes: first.0.bytes(), first, more: Vec::new(), joined: None, twins: OnceCell::new() }
    }

    /// Appends a message if it can be joined.
    pub(crate) fn take_send(&mut self, (message, origin): (&Framed, SendOrigin)) -> bool {
        let bytes = self.bytes + message.bytes();
        if bytes > JOINED_MAX_BYTES || !message.is_like(&self.first.0) {
            return false;
        }
        self.bytes = bytes;
        self.more.push((message.clone(), origin));
        true
    }

    /// Joins the frames of the complete run.
    pub(crate) fn join(&mut self) {
        if !self.is_single() {
            self.joined = Some(Framed::join(self.messages().map(|(message, _)| message)));
        }
    }

    pub(crate) fn len(&self) -> usize {
        1 + self.more.len()
    }

    pub(crate) fn is_single(&self) -> bool {
        self.more.is_empty()
    }

    pub(crate) fn messages(&self) -> impl Iterator<Item = (&Framed, SendOrigin)> + Clone {
        iter::once(&self.first).chain(&self.more).map(|(message, origin)| (message, *origin))
    }

    /// All frames of this form as one; `None` skips its clients.
    #[inline]
    pub(crate) fn frames(&self, form: FrameForm, compression: &mut Compression) -> Option<WireFrame<'_>> {
        let plain = |content| self.whole().get(content).map(WireFrame::from);
        match form {
            FrameForm::Json => plain(Content::Hub(HubProtocol::Json)),
            FrameForm::MessagePack => plain(Content::Hub(HubProtocol::MessagePack)),
            FrameForm::BlazorPack => plain(Content::Hub(HubProtocol::BlazorPack)),
            FrameForm::Raw => plain(Content::Raw),
            FrameForm::JsonDeflated | FrameForm::MessagePackDeflated | FrameForm::BlazorPackDeflated => {
                let plain = self.whole().get(form.content())?;
                Some(WireFrame { plain, wire: self.twins(form, compression)?.last()? })
            }
        }
    }

    pub(super) fn whole(&self) -> &Framed {
        self.joined.as_ref().unwrap_or(&self.first.0)
    }

    /// Twins of the frames, made for the first receiver.
    #[inline(never)]
    fn twins(&self, form: FrameForm, compression: &mut Compression) -> Option<&Vec<Bytes>> {
        let twins = self.twins.get_or_init(Box::default).get(form as usize)?;
        Some(twins.get_or_init(|| {
            let content = form.content();
            let twin_of = |(message, _): (&Framed, _)| {
                let frame = message.get(content)?;
                let twin = message.twin(content).cloned().or_else(|| compression.deflate(frame));
                Some(twin.unwrap_or_else(|| frame.clone()))
            };
            let mut twins: Vec<_> = self.messages().filter_map(twin_of).collect();
            if twins.len() > 1 {
                twins.push(twins.concat().into());
            }
            twins
        }))
    }

    /// Frames of this form with their origins.
    pub(crate) fn each<'a>(
        &'a self,
        form: FrameForm,
        compression: &mut Compression,
    ) -> impl Iterator<Item = (WireFrame<'a>, SendOrigin)> + use<'a> {
        let twins = form.is_compressed().then(|| self.twins(form, compression)).flatten();
        let plain = self.messages().filter_map(move |(message, origin)| Some((message.get(form.content())?, origin)));
        plain.enumerate().map(move |(at, (plain, origin))| {
            let wire = twins.and_then(|twins| twins.get(at)).unwrap_or(plain);
            (WireFrame { plain, wire }, origin)
        })
    }
}

/// Receivers of one run by the form of their frames, counted during the send with one unshared addition each.
#[derive(Debug, Default)]
pub(crate) struct ReceiverTally([u64; FrameForm::ALL.len()]);

impl ReceiverTally {
    pub(crate) fn add_receiver(&mut self, form: FrameForm) {
        if let Some(count) = self.0.get_mut(form as usize) {
            *count += 1;
        }
    }

    pub(crate) fn receivers(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Payload bytes received by all receivers.
    pub(crate) fn bytes(&self, run: &SendRun) -> u64 {
        let of_all = |content| run.messages().filter_map(move |(message, _)| message.get(content));
        let bytes = |form: FrameForm| of_all(form.content()).map(|frame| payload_bytes(frame) as u64).sum::<u64>();
        self.counted().map(|(form, count)| count * bytes(form)).sum()
    }

    /// Bytes of the frames of receivers with compression: plain, and as sent.
    pub(crate) fn compressed_bytes(&self, run: &SendRun, compression: &mut Compression) -> [u64; 2] {
        let compressed = self.counted().filter(|(form, _)| form.is_compressed());
        let bytes = compressed.filter_map(|(form, count)| Some(run.frames(form, compression)?.bytes(count)));
        bytes.fold([0, 0], |sum, bytes| [sum[0] + bytes[0], sum[1] + bytes[1]])
    }

    fn counted(&self) -> impl Iterator<Item = (FrameForm, u64)> {
        FrameForm::ALL.into_iter().zip(self.0).filter(|(_, count)| *count > 0)
    }
}
