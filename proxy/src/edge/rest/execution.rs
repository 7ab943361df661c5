//! Execution of one operation: messages and queries to the fleet, and the response.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use bytestring::ByteString;
use futures_util::future::join_all;
use http::StatusCode;
use http::request::Parts;
use serde::Serialize;
use serde_json::json;
use trunkline_protocol::hub::{HubMessage, HubProtocol, Outcome, next_frame};
use trunkline_protocol::json_text::JsonText;
use trunkline_protocol::limits::CLIENT_RESULT_TIMEOUT_MS;
use trunkline_protocol::manifest::EndpointKind;
use trunkline_protocol::service::{
    AckStatus, Check, CheckUserInGroup, Payloads, RecordAct, RecordRequest, RecordedSet, RefreshAuth,
    RefreshConnection, ServiceMessage, UserGroupChange, claims_from_payload,
};
use trunkline_protocol::wire::SET_AT_CLAIM;

use super::addressee::{Addressee, change, close_order, filtered, join_order, leave_order, to_clients, user_change};
use super::client_token::{self, RestCaller};
use super::command_batch::{Command, read_commands, read_filter};
use super::lister::Lister;
use super::message_body::{ClientCall, end_of_stream, is_json, read_item, read_message};
use super::operation::{HubOperation, Operation};
use super::query::RestQuery;
use super::record_order::{SendDelivery, accepted, begin_send, page_answer, record_of, send_id};
use super::refresh_body::{NamedLogIn, read_expire_time, read_log_in};
use super::rest_error::{RestError, with_missing};
use super::send_batch::{BatchMessage, read_batch, result, total};
use crate::engine::shard::Shared;
use crate::features::admission::Admission;
use crate::fleet::{FleetAnswer, FleetDelivery, FleetEntry, InvocationOutcome, NamedHub};
use crate::ground::bounded::TurnSource;
use crate::ground::clock::unix_seconds;
use crate::ground::limits::AppRate;

/// Error code for a missing connection, as the target of a change or of a query.
const NO_TARGET: &str = "Error.Connection.NotExisted";
const NO_CONNECTION: &str = "Warning.Connection.NotExisted";

pub(super) struct Execution {
    shared: Arc<Shared>,
    admission: Arc<Admission>,
    fleet: FleetEntry,
    head: Parts,
    query: RestQuery,
    body: Bytes,
    caller: RestCaller,
}

impl Execution {
    pub(super) fn new(
        (shared, admission): (Arc<Shared>, Arc<Admission>),
        fleet: FleetEntry,
        head: Parts,
        body: Bytes,
        caller: RestCaller,
    ) -> Self {
        let query = RestQuery::from_uri(&head.uri);
        Self { shared, admission, fleet, head, query, body, caller }
    }

    fn lister<'a>(&'a self, hub: &'a NamedHub) -> Lister<'a> {
        let url = format!("{}{}", self.caller.origin, self.head.uri.path());
        Lister { shared: &self.shared, fleet: &self.fleet, hub, query: &self.query, url }
    }

    pub(super) async fn run(self, operation: HubOperation) -> Result<Response, RestError> {
        let is_only_accepted = operation.is_only_accepted;
        let mut answer = self.operate(operation).await?;
        if is_only_accepted {
            *answer.status_mut() = StatusCode::ACCEPTED;
        }
        Ok(answer)
    }

    /// Client that gets a stream item by this operation.
    pub(super) fn streams_to(&self, operation: &HubOperation) -> Option<(NamedHub, String)> {
        let Operation::SendItem { connection, .. } = &operation.operation else { return None };
        Some((self.hub(&operation.hub).1, connection.clone()))
    }

    /// Full name of a hub, with the application in the query, and the hub.
    fn hub(&self, name: &str) -> (String, NamedHub) {
        let name = match self.query.application() {
            Some(application) => format!("{application}_{name}"),
            None => name.to_owned(),
        };
        let hub = match self.caller.signer.is_of_app() {
            true => self.fleet.hub_of_name(&name),
            false => self.fleet.hub_named(&name),
        };
        (name, hub)
    }

    async fn operate(self, HubOperation { hub: name, operation, .. }: HubOperation) -> Result<Response, RestError> {
        self.query.check()?;
        let (name, hub) = self.hub(&name);
        self.check_known(&hub, &name)?;
        operation.group().map_or(Ok(()), |group| self.check_group(group))?;
        match operation {
            Operation::Send(to) => self.send(&hub, to).await,
            Operation::SendBatch => self.send_batch(&hub).await,
            Operation::Close(to) => self.close_clients(&hub, to).await,
            Operation::Exists(who) => self.exists(&hub, who).await,
            Operation::GenerateToken => client_token::answer_token(
                (&self.shared, &self.admission.verifier.policy),
                (&self.query, &self.caller),
                (&hub, &name),
            ),
            Operation::Invoke { connection } => self.invoke(&hub, &connection).await,
            Operation::Execute => self.execute(&hub).await,
            Operation::SendItem { connection, stream } => self.send_item(&hub, &connection, &stream).await,
            Operation::CompleteStream { connection, stream } => {
                let end = end_of_stream(&stream, self.query.reason()?)?;
                self.check_methods(&hub)?;
                Ok(delivered(self.deliver(&hub, Addressee::Connection(connection), end, None).await?))
            }
            Operation::Refresh { connection } => self.refresh(&hub, connection).await,
            Operation::RefreshAuth => self.refresh_auth(&hub).await,
            Operation::Claims => {
                is_json(&self.head.headers)?;
                let named = read_log_in(&self.body)?;
                Ok(claims_answer(&self.claims_of(&hub, self.connection_of(&hub, &named)?).await?))
            }
            Operation::Record(act, set) => self.use_record(&hub, act, set).await,
            Operation::ListMembers { group } => self.lister(&hub).members(&group).await,
            Operation::ListConnections(set) => self.lister(&hub).connections(set).await,
            Operation::ListNames(names) => self.lister(&hub).names(names).await,
            Operation::CountConnections(set) => self.lister(&hub).count_connections(set).await,
            Operation::CountNames(names) => self.lister(&hub).count_names(names).await,
            Operation::Join { group, connection } => {
                let change = change(connection, Some(group));
                self.change(&hub, ServiceMessage::JoinGroupWithAck(change)).await
            }
            Operation::Leave { group, connection } => {
                self.change(&hub, ServiceMessage::LeaveGroupWithAck(change(connection, Some(group)))).await
            }
            Operation::LeaveAll { connection } => {
                self.change(&hub, ServiceMessage::LeaveGroupWithAck(change(connection, None))).await
            }
            Operation::UserJoin { user, group } => {
                let change =
                    UserGroupChange { ttl_s: Some(self.query.membership_s()?), ..user_change(user, Some(group)) };
                self.change_user(&hub, ServiceMessage::UserJoinGroupWithAck(change), StatusCode::OK).await
            }
            Operation::UserLeave { user, group } => {
                let message = ServiceMessage::UserLeaveGroupWithAck(user_change(user, Some(group)));
                self.change_user(&hub, message, StatusCode::NO_CONTENT).await
            }
            Operation::UserLeaveAll { user } => {
                let message = ServiceMessage::UserLeaveGroupWithAck(user_change(user, None));
                self.change_user(&hub, message, StatusCode::NO_CONTENT).await
            }
            Operation::UserIsIn { user, group } => {
                let check = CheckUserInGroup { user_id: user.into(), group: group.into(), ack_id: 0 };
                let question = ServiceMessage::CheckUserInGroupWithAck(check);
                self.ask(&hub, question, "Info.User.NotInGroup").await
            }
        }
    }

    /// Checks that a hub may exist. With dial-in, any name may be a hub; otherwise an unknown name is an error.
    fn check_known(&self, hub: &NamedHub, name: &str) -> Result<(), RestError> {
        let may_be = hub.here().is_some() || self.shared.settings.accepts_dial_in || self.fleet.has_others();
        if may_be {
            return Ok(());
        }
        let hubs = self.shared.hubs.all();
        let known: Vec<_> = hubs.iter().map(|hub| hub.name()).collect();
        let text = format!("there is no hub {name:?}, only: {}", known.join(", "));
        Err(RestError::new(StatusCode::NOT_FOUND, "Error.Hub.NotExisted", text))
    }

    fn check_group(&self, group: &str) -> Result<(), RestError> {
        let max = self.shared.settings.groups.name_max_bytes;
        if group.len() > max {
            let problem =
                format!("has {} bytes, but at most {max} are allowed: see --group-name-max-bytes", group.len());
            return Err(RestError::bad_value("group", problem));
        }
        Ok(())
    }

    fn check_methods(&self, hub: &NamedHub) -> Result<(), RestError> {
        if hub.here().is_some_and(|hub| hub.settings().kind == EndpointKind::Raw) {
            let text = "this is a raw endpoint: its clients use no hub protocol, so they have no methods";
            return Err(RestError::new(StatusCode::BAD_REQUEST, "Error.Hub.Raw", text));
        }
        Ok(())
    }

    /// Parses the body in a turn of the caller's app, because a large body takes milliseconds. Fails above the app's
    /// rate.
    async fn in_turn<T>(&self, hub: &NamedHub, parse: impl FnOnce() -> Result<T, RestError>) -> Result<T, RestError> {
        if let Some(rate) = self.app_rate(hub)
            && let Err(too_fast) = rate.take(self.body.len())
        {
            self.shared.limits.refusals.count("rate", rate.label());
            return Err(RestError::too_fast(too_fast));
        }
        let hub = hub.here().map(|hub| &*hub.identity);
        let line = self.shared.turn_line(&self.caller.signer.signer, hub, TurnSource::Rest);
        line.note_work();
        let _turn = line.begin().await;
        parse()
    }

    fn app_rate(&self, hub: &NamedHub) -> Option<Arc<AppRate>> {
        let hub = hub.here().map(|hub| &*hub.identity);
        self.shared.app_rate(&self.caller.signer.signer, hub)
    }

    async fn send(&self, hub: &NamedHub, to: Addressee) -> Result<Response, RestError> {
        self.check_methods(hub)?;
        let payloads = self.in_turn(hub, || read_message(&self.head.headers, &self.body)).await?;
        let id = send_id(&self.head.headers)?;
        Ok(delivered(self.deliver(hub, to, payloads, id.as_ref()).await?))
    }

    /// Delivers a message, and records it if its group or user is recorded.
    async fn deliver(
        &self,
        hub: &NamedHub,
        to: Addressee,
        payloads: Payloads,
        id: Option<&ByteString>,
    ) -> Result<FleetDelivery, RestError> {
        let send = to_clients(to.clone(), payloads, self.query.excluded().map(Into::into).collect());
        begin_send(&self.fleet, hub, &to, id, send).await.await
    }

    /// Reads or ends a record.
    async fn use_record(&self, hub: &NamedHub, act: RecordAct, set: RecordedSet) -> Result<Response, RestError> {
        if self.fleet.history_of(hub, &set).is_none() {
            let text = "no rule of this node ([[history]]) records this group or user, or its app servers send past it";
            return Err(RestError::new(StatusCode::NOT_FOUND, "Error.Record.NotExisted", text));
        }
        let start = self.query.record_start()?.to_string().into();
        let request = RecordRequest { set, act, start, ..RecordRequest::default() };
        let reply = accepted(self.fleet.request_record(hub, request).await)?;
        if let Some(page) = &reply.page {
            return Ok(page_answer(page));
        }
        let missing: Vec<_> = reply.missing.iter().map(ToString::to_string).collect();
        Ok(with_missing(StatusCode::NO_CONTENT.into_response(), &missing))
    }

    async fn send_item(&self, hub: &NamedHub, connection: &str, stream: &str) -> Result<Response, RestError> {
        self.check_methods(hub)?;
        let is_last = self.query.is_completed()?;
        let item = self.in_turn(hub, || read_item(&self.head.headers, &self.body, stream)).await?;
        let to = || Addressee::Connection(connection.to_owned());
        let sent = self.deliver(hub, to(), item, None).await?;
        // A client that missed the item must not see a successful end of the stream.
        if is_last && sent.missing.is_empty() {
            return Ok(delivered(self.deliver(hub, to(), end_of_stream(stream, None)?, None).await?));
        }
        Ok(delivered(sent))
    }

    /// Executes commands in order, up to the first failure.
    async fn execute(&self, hub: &NamedHub) -> Result<Response, RestError> {
        is_json(&self.head.headers)?;
        let whom = read_filter(self.query.filter())?;
        let commands = self.in_turn(hub, || read_commands(&self.body)).await?;
        // Errors in the request must be found before the first command runs.
        for command in &commands {
            match command {
                Command::SendMessage(call) => {
                    self.check_methods(hub)?;
                    call.payloads(None)?;
                }
                Command::JoinGroup(group) | Command::LeaveGroup(group) => self.check_group(group)?,
                Command::CloseConnection { .. } => {}
            }
        }
        let mut missing = Vec::new();
        for command in commands {
            let answer = match command {
                Command::SendMessage(call) => {
                    let sent = self.deliver(hub, whom.clone(), call.payloads(None)?, None).await?;
                    missing.extend(sent.missing);
                    continue;
                }
                Command::CloseConnection { reason } => {
                    self.fleet.ask_fleet(hub, close_order(&whom, reason, Vec::new())).await
                }
                Command::JoinGroup(group) => self.fleet.ask_fleet(hub, join_order(&whom, group)).await,
                Command::LeaveGroup(group) => self.fleet.ask_fleet(hub, leave_order(&whom, group)).await,
            };
            missing.extend(answer.missing.iter().cloned());
            let end = match whom {
                Addressee::Connection(_) => outcome(answer, NO_TARGET, StatusCode::ACCEPTED),
                // Having no recipients is not an error.
                _ => done(answer, StatusCode::ACCEPTED),
            };
            end?;
        }
        missing.sort();
        missing.dedup();
        Ok(with_missing(StatusCode::ACCEPTED.into_response(), &missing))
    }

    /// Sends the messages of a batch in order, and then waits for all nodes.
    async fn send_batch(&self, hub: &NamedHub) -> Result<Response, RestError> {
        is_json(&self.head.headers)?;
        self.check_methods(hub)?;
        let messages = self.in_turn(hub, || read_batch(&self.body)).await?;
        if let Some(rate) = self.app_rate(hub) {
            let targets: usize = messages.iter().map(|message| message.targets.len()).sum();
            rate.charge(targets.saturating_sub(1), 0);
        }
        for (target, _) in messages.iter().flat_map(|message| &message.targets) {
            if let Addressee::Group(group) = target {
                self.check_group(group)?;
            }
        }
        let id = send_id(&self.head.headers)?;
        let mut begun = Vec::with_capacity(messages.len());
        for (at, message) in messages.into_iter().enumerate() {
            // Several messages may be for one group.
            let id = id.as_ref().map(|id| format!("{id}#{at}").into());
            begun.push(self.begin_message(hub, message, id.as_ref()).await);
        }
        let (mut results, mut status) = (Vec::with_capacity(begun.len()), StatusCode::OK);
        for deliveries in begun {
            let (sent, refused): (Vec<_>, Vec<_>) = join_all(deliveries).await.into_iter().partition(Result::is_ok);
            let mut one = result(&total(sent.into_iter().flatten().collect()));
            let errors: Vec<_> = refused.into_iter().filter_map(Result::err).map(|error| error.to_string()).collect();
            if !errors.is_empty() {
                status = StatusCode::MULTI_STATUS;
                one.insert("errors".into(), json!(errors));
            }
            results.push(one);
        }
        Ok((status, Json(json!({ "results": results }))).into_response())
    }

    async fn begin_message(&self, hub: &NamedHub, message: BatchMessage, id: Option<&ByteString>) -> Vec<SendDelivery> {
        let mut deliveries = Vec::with_capacity(message.targets.len());
        for (target, filter) in message.targets {
            // In each record the message has a place of its own, also for members of an earlier target.
            let is_recorded = record_of(&self.fleet, hub, &target).is_some();
            let excluded = if is_recorded { message.excluded.clone() } else { Vec::new() };
            let send = to_clients(target.clone(), message.payloads.clone(), excluded);
            let send = match filter.filter(|_| !is_recorded) {
                Some(filter) => filtered(&filter, &send),
                None => send,
            };
            deliveries.push(begin_send(&self.fleet, hub, &target, id, send).await);
        }
        deliveries
    }

    async fn close_clients(&self, hub: &NamedHub, whom: Addressee) -> Result<Response, RestError> {
        let excluded = self.query.excluded().map(Into::into).collect();
        let answer = self.fleet.ask_fleet(hub, close_order(&whom, self.query.reason()?, excluded)).await;
        match whom {
            Addressee::Connection(_) => outcome(answer, NO_CONNECTION, StatusCode::OK),
            // Having no recipients is not an error.
            _ => done(answer, StatusCode::NO_CONTENT),
        }
    }

    async fn refresh(&self, hub: &NamedHub, connection: String) -> Result<Response, RestError> {
        is_json(&self.head.headers)?;
        let (connection_id, expires_s) = (connection.into(), read_expire_time(&self.body)?);
        let refresh = RefreshConnection { connection_id, expires_s, ack_id: 0 };
        let answer = self.fleet.ask_fleet(hub, ServiceMessage::RefreshConnectionWithAck(refresh)).await;
        outcome(answer, NO_CONNECTION, StatusCode::NO_CONTENT)
    }

    /// Applies the claims and expiry of a refreshed sign-in to a connection.
    async fn refresh_auth(&self, hub: &NamedHub) -> Result<Response, RestError> {
        is_json(&self.head.headers)?;
        let named = read_log_in(&self.body)?;
        let missing = || RestError::bad_value("body", "has no expireTime, such as \"2027-01-31T12:00:00Z\"");
        let expires_s = named.expires_s.ok_or_else(missing)?;
        let connection = self.connection_of(hub, &named)?;
        let claims = match named.claims {
            Some(mut claims) => {
                claims.retain(|(name, _)| name != SET_AT_CLAIM);
                claims.push((SET_AT_CLAIM.into(), unix_seconds().to_string().into()));
                claims
            }
            None => self.claims_of(hub, connection.clone()).await?,
        };
        let refresh = RefreshAuth { connection, claims, expires_s, ack_id: 0 };
        Ok(claims_answer(&claims_in(self.fleet.ask_fleet(hub, ServiceMessage::RefreshAuth(refresh)).await)?))
    }

    async fn claims_of(&self, hub: &NamedHub, connection: ByteString) -> Result<ClaimList, RestError> {
        let question = ServiceMessage::GetConnectionClaims(Check { subject: connection, ack_id: 0 });
        claims_in(self.fleet.ask_fleet(hub, question).await)
    }

    /// Id of the connection identified by a token in the request.
    fn connection_of(&self, hub: &NamedHub, named: &NamedLogIn) -> Result<ByteString, RestError> {
        let id = hub.here().and_then(|hub| self.shared.connection_of_token(hub, &named.connection_token));
        id.ok_or_else(no_such_connection)
    }

    async fn exists(&self, hub: &NamedHub, who: Addressee) -> Result<Response, RestError> {
        let check = |subject: String| Check { subject: subject.into(), ack_id: 0 };
        let (question, code) = match who {
            Addressee::Connection(id) => (ServiceMessage::CheckConnectionExistenceWithAck(check(id)), NO_CONNECTION),
            Addressee::Group(name) => {
                (ServiceMessage::CheckGroupExistenceWithAck(check(name)), "Warning.Group.NotExisted")
            }
            Addressee::User(id) => (ServiceMessage::CheckUserExistenceWithAck(check(id)), "Warning.User.NotExisted"),
            Addressee::Everyone | Addressee::Matching(_) => return Err(RestError::no_such_path()),
        };
        self.ask(hub, question, code).await
    }

    async fn ask(&self, hub: &NamedHub, question: ServiceMessage, code: &'static str) -> Result<Response, RestError> {
        let is_partial = self.query.is_partial()?;
        let mut answer = self.fleet.ask_fleet(hub, question).await;
        if answer.ack.status == AckStatus::Timeout && is_partial {
            answer.ack.status = AckStatus::NotFound;
        }
        let missing = answer.missing.clone();
        outcome(answer, code, StatusCode::OK).map_err(|error| error.with_missing(&missing))
    }

    async fn change(&self, hub: &NamedHub, change: ServiceMessage) -> Result<Response, RestError> {
        outcome(self.fleet.ask_fleet(hub, change).await, NO_TARGET, StatusCode::OK)
    }

    /// Changes the memberships of a user, who may have no connection at present.
    async fn change_user(
        &self,
        hub: &NamedHub,
        change: ServiceMessage,
        status: StatusCode,
    ) -> Result<Response, RestError> {
        done(self.fleet.ask_fleet(hub, change).await, status)
    }

    async fn invoke(mut self, hub: &NamedHub, connection: &str) -> Result<Response, RestError> {
        is_json(&self.head.headers)?;
        // Freed while waiting for the client.
        let call = ClientCall::from_body(&std::mem::take(&mut self.body))?;
        // Validates arguments first, because later errors could not be reported.
        call.payloads(None)?;
        let payloads = move |id: &str| call.payloads(Some(id)).unwrap_or_default();
        let within = Duration::from_millis(CLIENT_RESULT_TIMEOUT_MS);
        match self.fleet.invoke_client(hub, connection, payloads, within).await {
            InvocationOutcome::Completed { protocol, completion } => {
                let result = result_of(&protocol, &completion)?;
                Ok(Json(InvokeAnswer { protocol: &protocol, result }).into_response())
            }
            InvocationOutcome::NotFound { missing } if !missing.is_empty() => Err(RestError::incomplete(&missing)),
            InvocationOutcome::NotFound { .. } => {
                let text = "there is no such connection";
                Err(RestError::new(StatusCode::NOT_FOUND, NO_TARGET, text))
            }
            InvocationOutcome::Failed(problem) => {
                Err(RestError::new(StatusCode::BAD_GATEWAY, "Error.Invocation.Failed", problem))
            }
            InvocationOutcome::Late => {
                let text = format!("the client gave no result within {} s", within.as_secs());
                Err(RestError::new(StatusCode::GATEWAY_TIMEOUT, "Error.Invocation.Timeout", text))
            }
        }
    }
}

type ClaimList = Vec<(ByteString, ByteString)>;

fn claims_in(FleetAnswer { ack, missing, .. }: FleetAnswer) -> Result<ClaimList, RestError> {
    let problem = ack.message.unwrap_or_default();
    match ack.status {
        AckStatus::Ok => Ok(ack.payload.as_ref().and_then(claims_from_payload).unwrap_or_default()),
        AckStatus::NotFound => Err(no_such_connection()),
        AckStatus::Forbidden => Err(RestError::new(StatusCode::FORBIDDEN, "ConnectionUserMismatch", &*problem)),
        AckStatus::Timeout => Err(RestError::incomplete(&missing)),
        _ => Err(RestError::bad_value("claims", format!("are refused: {problem}"))),
    }
}

fn claims_answer(claims: &ClaimList) -> Response {
    let claims = claims.iter().filter(|(name, _)| name != SET_AT_CLAIM);
    let claims: Vec<_> = claims.map(|(name, value)| json!({ "type": &**name, "value": &**value })).collect();
    Json(json!({ "claims": claims })).into_response()
}

fn no_such_connection() -> RestError {
    let text = "no connection of this hub has that token: it has ended, or has negotiated without negotiateVersion=1";
    RestError::new(StatusCode::NOT_FOUND, "ConnectionNotFound", text)
}

fn delivered(delivery: FleetDelivery) -> Response {
    let mut body = result(&delivery);
    if let [(_, position)] = &*delivery.positions {
        body.insert("position".into(), json!(position));
    }
    with_missing((StatusCode::ACCEPTED, Json(body)).into_response(), &delivery.missing)
}

/// Response to an operation that needs a target; `code` is used if there is none.
fn outcome(answer: FleetAnswer, code: &'static str, status: StatusCode) -> Result<Response, RestError> {
    match answer.ack.status {
        AckStatus::NotFound => {
            let text = "there is no such connection, group or user, or it is not in the group";
            Err(RestError::new(StatusCode::NOT_FOUND, code, text))
        }
        _ => done(answer, status),
    }
}

/// Response to an operation that succeeds without a target, too.
fn done(answer: FleetAnswer, status: StatusCode) -> Result<Response, RestError> {
    match answer.ack.status {
        AckStatus::Ok | AckStatus::NotFound => Ok(with_missing(status.into_response(), &answer.missing)),
        AckStatus::Timeout => Err(RestError::incomplete(&answer.missing)),
        _ if answer.is_store_away => Err(RestError::store_away(&answer.ack.message.unwrap_or_default())),
        _ => {
            let text = answer.ack.message.unwrap_or_default();
            Err(RestError::new(StatusCode::CONFLICT, "Error.Request.Refused", &*text))
        }
    }
}

/// Response to a caller of `:invoke`.
#[derive(Serialize)]
struct InvokeAnswer<'a> {
    protocol: &'a str,
    /// `None` for methods without a result.
    result: Option<JsonText>,
}

fn result_of(protocol: &str, completion: &Bytes) -> Result<Option<JsonText>, RestError> {
    let failed = |problem: &str| RestError::new(StatusCode::BAD_GATEWAY, "Error.Invocation.Failed", problem);
    let unreadable = || failed("the client's completion can't be read");
    let protocol = HubProtocol::from_name(protocol).ok_or_else(unreadable)?;
    let frame = next_frame(protocol, completion, completion.len().saturating_add(1)).ok().flatten();
    let body = completion.slice(frame.ok_or_else(unreadable)?.body);
    match protocol.decode(&body) {
        Ok(Some(HubMessage::Completion(completion))) => match completion.outcome {
            Outcome::Void => Ok(None),
            Outcome::Value(value) => protocol.value(&value).map(Some).map_err(|_| unreadable()),
            Outcome::Error(error) => Err(failed(&error)),
        },
        _ => Err(unreadable()),
    }
}
