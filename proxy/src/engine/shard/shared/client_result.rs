//! Client results awaited by dialled-in app servers, with the caller of each by invocation id.
//!
//! In a forwarded reply, the client's app server names itself instead of the caller.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytestring::ByteString;
use tokio::time::Instant;
use trunkline_protocol::service::{ClientInvocation, ErrorCompletion, ServiceMessage};

use crate::engine::upstream::{AppServerId, ReplyTo};
use crate::ground::auth::Signer;
use crate::ground::bounded::{Permit, Permits};
use crate::ground::limits::{SignerShare, TableFull};

/// Timeout for the client's reply, as in Azure's service.
const RESULT_TIMEOUT: Duration = Duration::from_secs(600);

/// Maximum number of pending client results. Further invocations fail.
const WAITING_MAX: usize = 65_536;

#[derive(Debug)]
pub(crate) struct ClientResults {
    waiting: Mutex<HashMap<ByteString, WaitingResult>>,
    permits: Permits<Signer>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ResultRefused {
    #[error("another query has this id")]
    InUse,
    #[error("this node has {}", .0.describe("pending client results"))]
    Full(TableFull),
}

/// Pending result of a client at another app server.
#[derive(Debug)]
pub(crate) struct WaitingResult {
    pub(crate) reply_to: Arc<dyn ReplyTo>,
    connection_id: ByteString,
    /// Id of the calling app server.
    pub(crate) caller: ByteString,
    /// App server of the client, if on this node.
    owner: Option<AppServerId>,
    /// Boot id of the client's node, if another one.
    node: Option<Box<str>>,
    until: Instant,
    _permit: Permit<Signer>,
}

impl Default for ClientResults {
    fn default() -> Self {
        Self { waiting: Mutex::default(), permits: Permits::new(WAITING_MAX, WAITING_MAX) }
    }
}

impl ClientResults {
    /// Records an invocation of a client at this app server, counted against this share. Fails if there are too many,
    /// or the id is in use.
    pub(crate) fn begin_wait(
        &self,
        reply_to: &Arc<dyn ReplyTo>,
        request: &ClientInvocation,
        owner: Option<AppServerId>,
        share: &SignerShare,
    ) -> Result<(), ResultRefused> {
        let mut waiting = self.waiting();
        if waiting.contains_key(&request.invocation_id) {
            return Err(ResultRefused::InUse);
        }
        let _permit = share.take(&self.permits).map_err(ResultRefused::Full)?;
        let (connection_id, caller) = (request.connection_id.clone(), request.caller_server_id.clone());
        let (reply_to, until) = (reply_to.clone(), Instant::now() + RESULT_TIMEOUT);
        let question = WaitingResult { reply_to, connection_id, caller, owner, node: None, until, _permit };
        waiting.insert(request.invocation_id.clone(), question);
        Ok(())
    }

    /// Takes the pending invocation for a result from the client's app server or another node.
    #[must_use]
    pub(crate) fn take_waiting(
        &self,
        invocation_id: &str,
        connection_id: &str,
        from: AppServerId,
    ) -> Option<WaitingResult> {
        let mut waiting = self.waiting();
        let question = waiting.get(invocation_id)?;
        let is_from_owner = question.owner.is_none_or(|owner| owner == from) || from == AppServerId::OTHER_NODE;
        if question.connection_id == connection_id && is_from_owner { waiting.remove(invocation_id) } else { None }
    }

    pub(crate) fn is_waiting_for(&self, connection_id: &str) -> bool {
        self.waiting().values().any(|question| question.connection_id == connection_id)
    }

    pub(crate) fn expire(&self) {
        let now = Instant::now();
        self.fail(|question| question.until <= now, "has not answered in time");
    }

    pub(crate) fn connection_ended(&self, connection_id: &str) {
        self.fail(|question| question.connection_id == connection_id, "has ended before it answered");
    }

    pub(crate) fn set_node(&self, invocation_id: &str, boot: &str) {
        if let Some(question) = self.waiting().get_mut(invocation_id) {
            question.node = Some(boot.into());
        }
    }

    pub(crate) fn node_gone(&self, boot: &str) {
        self.fail(|question| question.node.as_deref() == Some(boot), "was at a node that is gone");
    }

    /// Fails one invocation that would stay unanswered.
    pub(crate) fn fail_one(&self, invocation_id: &str, reason: &str) {
        let question = self.waiting().remove(invocation_id);
        if let Some(question) = question {
            question.fail(invocation_id.into(), reason);
        }
    }

    fn fail(&self, is_over: impl Fn(&WaitingResult) -> bool, reason: &str) {
        let mut waiting = self.waiting();
        if waiting.is_empty() {
            return;
        }
        let over: Vec<_> = waiting.extract_if(|_, question| is_over(question)).collect();
        drop(waiting);
        over.into_iter().for_each(|(invocation_id, question)| question.fail(invocation_id, reason));
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<ByteString, WaitingResult>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WaitingResult {
    fn fail(self, invocation_id: ByteString, reason: &str) {
        let Self { reply_to, connection_id, caller, .. } = self;
        reply_to.answer(&error_completion((invocation_id, connection_id, caller), reason));
    }
}

/// Error for an app server that invokes a client which is not here. Text of the official server.
pub(crate) fn no_such_connection(request: ClientInvocation) -> ServiceMessage {
    let ClientInvocation { invocation_id, connection_id, caller_server_id, .. } = request;
    error_completion((invocation_id, connection_id, caller_server_id), "does not exist")
}

pub(crate) fn not_asked(request: ClientInvocation, refused: &ResultRefused) -> ServiceMessage {
    let ClientInvocation { invocation_id, connection_id, caller_server_id, .. } = request;
    error_completion((invocation_id, connection_id, caller_server_id), &format!("is not asked: {refused}"))
}

/// Error about a connection for this invocation of this app server.
fn error_completion(
    (invocation_id, connection_id, caller_server_id): (ByteString, ByteString, ByteString),
    reason: &str,
) -> ServiceMessage {
    let error = format!("Connection '{connection_id}' {reason}.").into();
    ServiceMessage::ErrorCompletion(ErrorCompletion { invocation_id, connection_id, caller_server_id, error })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::upstream::HubIndex;

    #[derive(Debug, Default)]
    struct Answers(Mutex<Vec<ServiceMessage>>);

    impl ReplyTo for Answers {
        fn hub(&self) -> HubIndex {
            0.into()
        }

        fn app(&self) -> AppServerId {
            AppServerId::NONE
        }

        fn answer(&self, message: &ServiceMessage) {
            self.0.lock().unwrap().push(message.clone());
        }
    }

    fn question(id: &'static str, connection: &'static str) -> ClientInvocation {
        let (invocation_id, connection_id) = (id.into(), connection.into());
        ClientInvocation { invocation_id, connection_id, caller_server_id: "one".into(), ..ClientInvocation::default() }
    }

    const OWNER: AppServerId = AppServerId::NONE;

    fn begin(results: &ClientResults, reply_to: &Arc<Answers>, id: &'static str, connection: &'static str) -> bool {
        begin_by(results, reply_to, &question(id, connection), &SignerShare::new(Signer::Fleet, false)).is_ok()
    }

    fn begin_by(
        results: &ClientResults,
        reply_to: &Arc<Answers>,
        question: &ClientInvocation,
        share: &SignerShare,
    ) -> Result<(), ResultRefused> {
        results.begin_wait(&(reply_to.clone() as Arc<dyn ReplyTo>), question, Some(OWNER), share)
    }

    fn errors(reply_to: &Answers) -> Vec<String> {
        let told = std::mem::take(&mut *reply_to.0.lock().unwrap());
        let id = |message| match message {
            ServiceMessage::ErrorCompletion(error) => error.invocation_id.to_string(),
            other => panic!("{other:?}"),
        };
        told.into_iter().map(id).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_result_is_taken_once_and_from_the_client_s_app_server_alone() {
        let (results, reply_to) = (ClientResults::default(), Arc::new(Answers::default()));
        assert!(begin(&results, &reply_to, "1", "ann"));
        assert!(!begin(&results, &reply_to, "1", "ben"), "the first question keeps its id");
        assert!(results.take_waiting("1", "ann", AppServerId::from(7)).is_none());
        assert!(results.take_waiting("1", "ben", OWNER).is_none());
        assert_eq!(results.take_waiting("1", "ann", OWNER).unwrap().caller, "one");
        assert!(results.take_waiting("1", "ann", OWNER).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_is_answered_when_its_client_ends_or_its_time_is_over() {
        let (results, reply_to) = (ClientResults::default(), Arc::new(Answers::default()));
        assert!(begin(&results, &reply_to, "2", "ann") && begin(&results, &reply_to, "3", "ben"));
        results.connection_ended("ann");
        assert_eq!(errors(&reply_to), ["2"]);
        results.expire();
        assert!(errors(&reply_to).is_empty());
        tokio::time::advance(RESULT_TIMEOUT).await;
        results.expire();
        assert_eq!(errors(&reply_to), ["3"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_key_of_an_app_has_a_half_and_its_questions_leave_the_others_room() {
        let (results, reply_to) = (ClientResults::default(), Arc::new(Answers::default()));
        let share = |app: &str| SignerShare::new(Signer::App(app.into()), true);
        let ask = |number: usize, app: &str| {
            let request = ClientInvocation { invocation_id: number.to_string().into(), ..question("", "ann") };
            begin_by(&results, &reply_to, &request, &share(app))
        };
        let taken = (0..WAITING_MAX).filter(|number| ask(*number, "shop").is_ok()).count();
        assert_eq!(taken, WAITING_MAX / 2);
        let request = question("one more", "ann");
        let refused = begin_by(&results, &reply_to, &request, &share("shop")).unwrap_err();
        let ServiceMessage::ErrorCompletion(error) = not_asked(request, &refused) else { panic!("no error") };
        let text = "Connection 'ann' is not asked: this node has 32768 pending client results by \
                    the key of app shop, which is the most for one key.";
        assert_eq!(error.error, text);
        assert_eq!(ask(WAITING_MAX, "news"), Ok(()));
        results.connection_ended("ann");
        assert_eq!(ask(0, "shop"), Ok(()));
    }
}
