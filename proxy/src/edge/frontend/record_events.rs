//! Event streams of records: `GET HUB/history?group=NAME`, for clients without a SignalR library.
//!
//! ```text
//!  client ─► may it follow? ─► news of the record, then pages from its position on ─► id, data
//!                               └─ after a gap or some quiet seconds: a page again
//! ```
//!
//! `id` of an event is its position, so an `EventSource` that comes back goes on behind its last event.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use http::{HeaderMap, HeaderName, StatusCode};
use serde_json::json;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};
use trunkline_protocol::cause::Cause;
use trunkline_protocol::service::{Position, RecordAct, RecordPage, RecordRequest, RecordStart, RecordedSet};

use super::InFlight;
use super::connect::terms;
use super::endpoint::{Endpoint, STOPPING};
use super::hub_request::{HubRequest, NewClient};
use super::plain_response::{plain, unavailable};
use super::request_limit::{count_connected, take_permit};
use super::request_query::RequestQuery;
use crate::engine::shard::{
    FOLLOW_CLAIM, NewsKind, RecordNews, Recorder, RequestOrigin, RevocationMark, Shared, name_of_set, recorded_json,
};
use crate::engine::upstream::Hub;
use crate::features::admission::Admission;
use crate::ground::auth::User;
use crate::ground::clock::unix_seconds;
use crate::ground::limits::ClientPermit;

/// Header of an `EventSource` that comes back.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Time for the attempts of a first read.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// Interval between attempts to read.
const READ_INTERVAL: Duration = Duration::from_millis(500);

/// Interval between checks of the permission of a stream, and for a lost last message.
const CHECK_INTERVAL: Duration = Duration::from_secs(3);

/// Answers with the events of a record.
pub(crate) async fn answer_events(endpoint: &Endpoint, request: &HubRequest, client: NewClient) -> Response {
    let NewClient { user, grant, .. } = client;
    match open(endpoint, request, user).await {
        // Includes the app's own headers and cookies.
        Ok(answer) => (grant.headers, answer).into_response(),
        Err(refusal) => refusal,
    }
}

async fn open(endpoint: &Endpoint, request: &HubRequest, user: User) -> Result<Response, Response> {
    let HubRequest { hub, parts, context, .. } = request;
    let (set, start) = read_query(&context.query, &parts.headers, &user)?;
    let shared = endpoint.shared.clone();
    let name_max = shared.settings.groups.name_max_bytes;
    if set.name.len() > name_max {
        let text = format!("the name has {} bytes, but at most {name_max} are allowed", set.name.len());
        return Err(plain(StatusCode::BAD_REQUEST, text));
    }
    let Some(recorder) = shared.recorder().cloned().filter(|_| hub.history_of(&set).is_some()) else {
        let text =
            format!("{} is not recorded: the operator's rules ([[history]]) name none like it", name_of_set(&set));
        return Err(plain(StatusCode::NOT_FOUND, text));
    };
    let terms = terms(hub, &user);
    let ends_s = terms.authentication_ends_s.or(user.expires_s);
    let access = StreamAccess {
        is_claimed: set.is_user || user.claims.iter().any(|(name, value)| name == FOLLOW_CLAIM && set.name == *value),
        verified_at: request.verified_at,
        ends_s: ends_s.filter(|_| hub.settings().close_on_token_expiry || terms.closes_on_expiry),
        user: user.id,
    };
    let (permit, (opened, news)) = (take_permit(endpoint, request, 0)?, oneshot::channel());
    count_connected(endpoint, context.source.peer);
    let key = (hub.index(), set.clone());
    endpoint.shard.post(move |state| state.core.open_news(key, opened));
    let until = Instant::now() + OPEN_TIMEOUT;
    let unread = |problem: &str| unavailable(Cause::NodeStarting, format!("the record can't be read: {problem}"));
    let reader = RecordReader { start, is_live: false, is_over: false, events: VecDeque::new() };
    let mut stream = RecordStream {
        admission: endpoint.admission.clone(),
        _in_flight: InFlight::new(shared.clone()),
        _permit: permit,
        news: match timeout_at(until, news).await {
            Ok(Ok(news)) => news,
            Ok(Err(_)) => return Err(unavailable(Cause::Drained, STOPPING)),
            Err(_) => return Err(unread("another node does not answer: try again")),
        },
        checked_at: Instant::now(),
        shared,
        recorder,
        hub: hub.clone(),
        set,
        access,
        reader,
    };
    if !stream.may_read() {
        let text = format!(
            "the access token permits no history of {}: its claim {FOLLOW_CLAIM} does not name the group, and its user \
             is not a member by REST",
            name_of_set(&stream.set)
        );
        return Err(plain(StatusCode::FORBIDDEN, text));
    }
    while let Err(problem) = stream.read().await {
        if Instant::now() >= until {
            return Err(unread(&problem));
        }
        sleep(READ_INTERVAL).await;
    }
    if parts.headers.contains_key(LAST_EVENT_ID) && stream.reader.has_only_ended() {
        // An `EventSource` does not come back again.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let events = unfold(stream, |mut stream| async move { Some((Ok::<_, Infallible>(stream.next().await?), stream)) });
    // Prevents buffering in nginx, and compression by intermediaries, which would delay events.
    let headers = [("x-accel-buffering", "no"), ("cache-control", "no-cache,no-store,no-transform")];
    Ok((headers, Sse::new(events).keep_alive(KeepAlive::new())).into_response())
}

/// Record of a request, and the position where it begins.
fn read_query(query: &RequestQuery, headers: &HeaderMap, user: &User) -> Result<(RecordedSet, RecordStart), Response> {
    let refuse = |text: String| plain(StatusCode::BAD_REQUEST, text);
    let set = match (query.value("group").filter(|group| !group.is_empty()), query.value("user"), &user.id) {
        (Some(group), None, _) => RecordedSet::group(group),
        (None, Some("true"), Some(user)) => RecordedSet::user(user.as_str()),
        (None, Some("true"), None) => {
            return Err(plain(StatusCode::UNAUTHORIZED, "an access token is needed for the messages to its user"));
        }
        _ => return Err(refuse("the query has to name a record: ?group=NAME, or ?user=true for your own".into())),
    };
    let last = query.value("last").map(|last| last.parse().map_err(|_| refuse(format!("last is no number: {last}"))));
    let (after, last) = (query.value("after"), last.transpose()?);
    // Only a first request is without; the query stays the same.
    let header = headers.get(LAST_EVENT_ID).map(|id| id.to_str().unwrap_or("?"));
    // Some libraries that send other headers put it into the query.
    let last_event = header.or_else(|| query.value("lastEventId")).filter(|id| !id.is_empty());
    let start = match last_event {
        Some(id) => RecordStart::from_options(Some(id), None).map_err(|(_, problem)| ("Last-Event-ID", problem)),
        None => RecordStart::from_options(after, last),
    };
    let start = start.map_err(|(name, problem)| refuse(format!("{name} {problem}")))?;
    Ok((set, start))
}

/// Permission of a stream, for as long as a connection with its token would stay open.
struct StreamAccess {
    user: Option<String>,
    /// The token permits it, whether or not its user is a member.
    is_claimed: bool,
    verified_at: Option<RevocationMark>,
    ends_s: Option<u64>,
}

/// Stream of one record to one client.
struct RecordStream {
    shared: Arc<Shared>,
    admission: Arc<Admission>,
    recorder: Arc<dyn Recorder>,
    hub: Arc<Hub>,
    set: RecordedSet,
    access: StreamAccess,
    news: broadcast::Receiver<RecordNews>,
    reader: RecordReader,
    checked_at: Instant,
    _permit: Option<Box<ClientPermit>>,
    _in_flight: InFlight,
}

impl RecordStream {
    /// Waits for the next event. `None` at the end.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if self.checked_at.elapsed() >= CHECK_INTERVAL {
                // Also while events wait: a slow client may have lost its permission.
                if !self.may_read() {
                    return None;
                }
                self.checked_at = Instant::now();
            }
            if let Some(event) = self.reader.events.pop_front() {
                return Some(event);
            }
            if self.reader.is_over {
                return None;
            }
            if !self.reader.is_live {
                if self.read().await.is_err() {
                    sleep(READ_INTERVAL).await;
                }
                continue;
            }
            match timeout_at(Instant::now() + CHECK_INTERVAL, self.news.recv()).await {
                Ok(Ok(news)) => self.reader.take_news(&news),
                Ok(Err(RecvError::Closed)) => return None,
                Ok(Err(RecvError::Lagged(_))) | Err(_) => self.reader.is_live = false,
            }
        }
    }

    async fn read(&mut self) -> Result<(), String> {
        let start = self.reader.start.to_string().into();
        let request = RecordRequest { set: self.set.clone(), act: RecordAct::Read, start, ..RecordRequest::default() };
        let reply = self.recorder.request_record(self.hub.key(), request, RequestOrigin::Here).await;
        let page = reply.page.ok_or_else(|| reply.problem.to_string())?;
        self.reader.take_page(&page);
        Ok(())
    }

    /// Whether the stream may begin or go on.
    fn may_read(&self) -> bool {
        let StreamAccess { user, is_claimed, verified_at, ends_s } = &self.access;
        let is_member = || {
            let user = user.as_deref().unwrap_or_default();
            !self.set.is_user && self.shared.user_groups.contain(self.hub.key(), user, &self.set.name)
        };
        let revocations = &self.admission.revocations;
        let is_revoked = verified_at.is_some_and(|mark| revocations.have_come_since(mark, user.as_deref()));
        (*is_claimed || is_member())
            && !is_revoked
            && ends_s.is_none_or(|ends_s| unix_seconds() < ends_s)
            && !self.shared.refuses_clients()
    }
}

/// Position of a stream in its record, and events to be sent. Pure.
#[derive(Debug)]
struct RecordReader {
    start: RecordStart,
    is_live: bool,
    is_over: bool,
    events: VecDeque<Event>,
}

impl RecordReader {
    fn take_page(&mut self, page: &RecordPage) {
        let position = |number| Position { epoch: page.epoch, number }.to_string();
        if let Some(reset) = &page.reset {
            self.reset(reset, page.oldest.map(position), position(page.after));
        } else if matches!(self.start, RecordStart::Newest | RecordStart::Last(_)) {
            // No event, but an `EventSource` that comes back before the first one sends this position.
            self.events.push_back(Event::default().id(position(page.after)));
        }
        for message in &page.messages {
            let position = position(message.number);
            let data = recorded_json(&position, message);
            self.events.push_back(Event::default().id(position).data(data.get()));
        }
        let last = page.messages.last().map_or(page.after, |message| message.number);
        (self.start, self.is_live) = (RecordStart::After(page.epoch, last), last >= page.newest);
        if page.is_finished && self.is_live {
            self.end();
        }
    }

    fn take_news(&mut self, RecordNews { position, kind }: &RecordNews) {
        match (kind, self.start.is_next(*position)) {
            (NewsKind::Message(data), Some(true)) => {
                self.events.push_back(Event::default().id(position.to_string()).data(data));
                self.start = RecordStart::after(*position);
            }
            (NewsKind::Message(_), None) => {}
            (NewsKind::Message(_), Some(false)) => self.is_live = false,
            (NewsKind::Finished, _) if self.start == RecordStart::after(*position) => self.end(),
            (NewsKind::Finished, _) => self.is_live = false,
            (NewsKind::Deleted, _) => {
                self.reset("deleted", None, Position::default().to_string());
                self.start = RecordStart::after(Position::default());
            }
        }
    }

    /// Sends a reset, with the position that an `EventSource` sends when it comes back.
    fn reset(&mut self, reset: &str, oldest: Option<String>, position: String) {
        let data = json!({ "reset": reset, "oldest": oldest }).to_string();
        self.events.push_back(Event::default().event("reset").id(position).data(data));
    }

    fn end(&mut self) {
        self.events.push_back(Event::default().event("end").data("{}"));
        self.is_over = true;
    }

    /// Whether the end came first.
    fn has_only_ended(&self) -> bool {
        self.is_over && self.events.len() == 1
    }
}
