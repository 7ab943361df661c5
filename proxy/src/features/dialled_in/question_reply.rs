//! Reply handle of a question with a large answer, which counts as in progress until it is dropped.

use std::sync::Arc;

use trunkline_protocol::service::ServiceMessage;

use crate::engine::upstream::{AppServerId, HubIndex, LinkHandle, LinkId, ReplyTo};
use crate::ground::auth::Signer;
use crate::ground::bounded::Permit;
use crate::ground::limits::{LinkAnswers, QuestionRefusal};

#[derive(Debug)]
pub(super) struct QuestionReply {
    link: Arc<LinkHandle>,
    _permit: Option<Permit<Signer>>,
}

impl QuestionReply {
    /// Begins a question of an app server. Fails if the link or its key has too many.
    pub(super) fn begin(link: &Arc<LinkHandle>) -> Result<Arc<dyn ReplyTo>, QuestionRefusal> {
        let permit = link.answers().map(LinkAnswers::begin).transpose()?;
        Ok(Arc::new(Self { link: link.clone(), _permit: permit }))
    }
}

impl Drop for QuestionReply {
    fn drop(&mut self) {
        self.link.answers().into_iter().for_each(LinkAnswers::end);
    }
}

impl ReplyTo for QuestionReply {
    fn hub(&self) -> HubIndex {
        self.link.hub()
    }

    fn app(&self) -> AppServerId {
        self.link.app()
    }

    fn dial_in_link(&self) -> Option<LinkId> {
        self.link.dial_in_link()
    }

    fn signer(&self) -> Option<&Signer> {
        self.link.signer()
    }

    fn answer(&self, message: &ServiceMessage) {
        self.link.answer(message);
    }
}
