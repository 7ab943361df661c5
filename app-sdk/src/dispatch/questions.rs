//! Results of clients: those that methods here wait for, and those that other app servers asked our clients for.

use std::sync::Arc;

use bytestring::ByteString;
use tokio::time::Instant;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::{Completion, HubMessage, HubProtocol, next_frame};
use trunkline_protocol::limits::LINK_FRAME_MAX_BYTES;
use trunkline_protocol::service::{ClientCompletion, ClientInvocation, ErrorCompletion, ServiceMessage};

use super::HubAtWork;
use crate::connection::{Connection, short};
use crate::downward::{Answer, Taken, TooMany};
use crate::encode;
use crate::error::HubError;
use crate::node::Node;
use crate::text;

impl HubAtWork {
    /// Another app server asks a client of ours; its proxy has passed the question on to the client.
    pub(super) fn take_question(&self, node: &Node, question: ClientInvocation) {
        let ClientInvocation { invocation_id, connection_id, caller_server_id, .. } = question;
        let refuse = |error: ByteString| {
            let (invocation_id, connection_id) = (invocation_id.clone(), connection_id.clone());
            let caller_server_id = caller_server_id.clone();
            self.down.refuse_question(node, ErrorCompletion { invocation_id, connection_id, caller_server_id, error });
        };
        let Some(connection) = self.down.roster.get(&connection_id) else {
            return refuse(text::disconnected(&connection_id).into());
        };
        let expected = self.down.questions.expect_for(
            invocation_id.clone(),
            connection_id.clone(),
            caller_server_id.clone(),
            self.down.limits.client_results_max,
            Instant::now(),
        );
        match expected {
            Err(TooMany) => refuse("too many client results are waited for".into()),
            // Looked at again now that the answer is expected: its end either fails the question or is seen here.
            Ok(()) if !self.down.roster.holds(&connection) => self.give_up_questions(&connection),
            Ok(()) => {}
        }
    }

    /// A client of another app server has answered one of our methods.
    pub(super) fn take_foreign_answer(&self, answer: ClientCompletion) {
        let ClientCompletion { invocation_id, connection_id, protocol, payload, .. } = answer;
        let completion = HubProtocol::from_name(&protocol).and_then(|protocol| {
            let frame = next_frame(protocol, &payload, LINK_FRAME_MAX_BYTES).ok()??;
            match protocol.decode(&payload.slice(frame.body)) {
                Ok(Some(HubMessage::Completion(completion))) => Some((protocol, completion)),
                _ => None,
            }
        });
        let Some((protocol, completion)) = completion else {
            tracing::warn!(hub = %self.down.hub, id = %invocation_id, "a client's result can't be read");
            return self.down.questions.refuse(
                &invocation_id,
                &connection_id,
                Answer::Refused("its answer can't be read".into()),
            );
        };
        // Which question it is for is said outside, by its app server.
        let completion = Completion { invocation_id, ..completion };
        let taken = self.down.questions.answer(&connection_id, protocol, &completion);
        tracing::debug!(hub = %self.down.hub, id = %completion.invocation_id, ?taken, "client result from afar");
    }

    /// Nobody will answer one of our methods, or this proxy doesn't know who should.
    pub(super) fn take_refusal(&self, node: &Arc<Node>, refusal: ErrorCompletion) {
        let ErrorCompletion { invocation_id, connection_id, error, .. } = refusal;
        let questions = &self.down.questions;
        if *error == *text::does_not_exist(&connection_id) {
            questions.deny(&invocation_id, node);
        } else if *error == *text::disconnected(&connection_id) {
            questions.refuse(&invocation_id, &connection_id, Answer::Disconnected);
        } else {
            questions.refuse(&invocation_id, &connection_id, Answer::Refused(error));
        }
    }

    /// The client has completed something that is no upload: an answer, to whoever asked.
    pub(super) async fn take_answer(&self, connection: &Arc<Connection>, completion: Completion) {
        let protocol = connection.protocol();
        match self.down.questions.answer(connection.id(), protocol, &completion) {
            Taken::Here => {}
            Taken::For { server } => self.pass_on(connection, server, completion).await,
            Taken::Unknown => {
                tracing::debug!(hub = %self.down.hub, id = %completion.invocation_id, "completion for nobody is dropped");
            }
            Taken::WrongClient => {
                tracing::warn!(hub = %self.down.hub, connection = short(connection.id()), "client answers for another");
                self.fail(
                    connection,
                    Cause::HubProtocol,
                    &HubError::invalid_data("The result was asked of another connection."),
                );
            }
        }
    }

    /// The connection is over: nothing that it was asked will be answered.
    pub(super) fn give_up_questions(&self, connection: &Connection) {
        for orphan in self.down.questions.fail_of_connection(&connection.shared_id()) {
            let refusal = ErrorCompletion {
                invocation_id: orphan.id,
                connection_id: connection.shared_id(),
                caller_server_id: orphan.server,
                error: text::disconnected(connection.id()).into(),
            };
            self.down.refuse_question(connection.node(), refusal);
        }
    }

    async fn pass_on(&self, connection: &Connection, server: ByteString, completion: Completion) {
        let Completion { invocation_id, outcome, .. } = completion;
        let protocol = connection.protocol();
        let answer = ClientCompletion {
            invocation_id: invocation_id.clone(),
            connection_id: connection.shared_id(),
            caller_server_id: server,
            protocol: ByteString::from_static(protocol.name()),
            payload: encode::completion(protocol, invocation_id, outcome),
        };
        self.down.answer_question(connection.node(), &ServiceMessage::ClientCompletion(answer)).await;
    }
}
