//! Answers kept for repeated requests with an `Idempotency-Key`, which are not executed again.
//!
//! ```text
//!  first request ─► under way ─► answered: kept for a minute ─► removed
//!                       └─► failed without effect: removed
//! ```

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::BodyExt;
use tokio::time::Instant;

use super::rest_error::{ExecutedInPart, RestError};
use crate::auth::Signer;
use crate::bounded::{Permit, Permits};
use crate::limits::SignerShare;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

const KEPT_FOR: Duration = Duration::from_secs(60);

/// Maximum length of a key.
const KEY_MAX_BYTES: usize = 255;

/// Maximum size of a kept body. Only results of client methods can be larger.
const BODY_MAX_BYTES: usize = 8 * 1024;

/// Key of a request, unique per signer of tokens.
type CallerKey = (Signer, String);

/// Answers of a node; clones share them.
#[derive(Debug, Clone)]
pub(super) struct KeptAnswers(Arc<KeptState>);

#[derive(Debug)]
struct KeptState {
    permits: Permits<Signer>,
    table: Mutex<KeptTable>,
}

#[derive(Debug, Default)]
struct KeptTable {
    answers: HashMap<CallerKey, KeptAnswer>,
    /// Keys of answered requests by the end of their time.
    ends: VecDeque<(Instant, CallerKey)>,
}

#[derive(Debug)]
struct KeptAnswer {
    request: u64,
    /// `None` while the request is under way.
    answer: Option<AnswerCopy>,
    _permit: Permit<Signer>,
}

#[derive(Debug, Clone)]
struct AnswerCopy {
    status: StatusCode,
    headers: HeaderMap,
    /// `None` if it was too large.
    body: Option<Bytes>,
}

/// Place for the answer of a request under way. Without an answer the key is free again.
#[derive(Debug)]
pub(super) struct PendingAnswer {
    kept: KeptAnswers,
    key: Option<CallerKey>,
}

/// Outcome of a request with a key.
#[derive(Debug)]
pub(super) enum Keyed {
    New(PendingAnswer),
    Repeated(Response),
}

/// Reads the key of a request. Fails if it is malformed.
pub(super) fn key_of(head: &HeaderMap) -> Result<Option<String>, RestError> {
    let mut values = head.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    let is_key = (1..=KEY_MAX_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    match is_key && values.next().is_none() {
        true => Ok(Some(text.to_owned())),
        false => {
            let problem = format!("must be one header of 1 to {KEY_MAX_BYTES} visible ASCII characters");
            Err(RestError::bad_value("Idempotency-Key", &problem))
        }
    }
}

impl KeptAnswers {
    pub(super) fn new(max: usize) -> Self {
        Self(Arc::new(KeptState { permits: Permits::new(max, max), table: Mutex::default() }))
    }

    /// Begins a request with a key, or repeats its answer. `request` is a hash of the request. Fails if the key was
    /// used for another request, its request is under way, or the table is full.
    pub(super) fn begin(
        &self,
        (signer, share): (&Signer, &SignerShare),
        key: String,
        request: u64,
    ) -> Result<Keyed, RestError> {
        let key = (signer.clone(), key);
        let mut table = self.table();
        table.remove_old(Instant::now());
        if let Some(known) = table.answers.get(&key) {
            return match &known.answer {
                _ if known.request != request => Err(RestError::other_request()),
                None => Err(RestError::under_way()),
                Some(answer) => answer.repeat().map(Keyed::Repeated),
            };
        }
        let permit = share.take(&self.0.permits).map_err(|full| RestError::too_many_keys(&full))?;
        table.answers.insert(key.clone(), KeptAnswer { request, answer: None, _permit: permit });
        Ok(Keyed::New(PendingAnswer { kept: self.clone(), key: Some(key) }))
    }

    fn table(&self) -> MutexGuard<'_, KeptTable> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeptTable {
    fn remove_old(&mut self, now: Instant) {
        while let Some((_, key)) = self.ends.pop_front_if(|(end, _)| *end <= now) {
            self.answers.remove(&key);
        }
    }
}

impl AnswerCopy {
    fn repeat(&self) -> Result<Response, RestError> {
        let body = self.body.clone().ok_or_else(|| RestError::large_answer(BODY_MAX_BYTES))?;
        let mut answer = Response::new(Body::from(body));
        (*answer.status_mut(), *answer.headers_mut()) = (self.status, self.headers.clone());
        answer.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        Ok(answer)
    }
}

impl PendingAnswer {
    /// Keeps the answer, if the request had an effect or may have had one.
    pub(super) async fn keep(mut self, answer: Response) -> Response {
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let is_done = head.status.is_success()
            || matches!(head.status, StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT)
            || head.extensions.get::<ExecutedInPart>().is_some();
        if let Some(key) = self.key.take_if(|_| is_done) {
            let kept = (body.len() <= BODY_MAX_BYTES).then(|| body.clone());
            let copy = AnswerCopy { status: head.status, headers: head.headers.clone(), body: kept };
            let mut table = self.kept.table();
            if let Some(known) = table.answers.get_mut(&key) {
                known.answer = Some(copy);
            }
            table.ends.push_back((Instant::now() + KEPT_FOR, key));
        }
        Response::from_parts(head, Body::from(body))
    }
}

impl Drop for PendingAnswer {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.kept.table().answers.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use tokio::time::advance;

    use super::*;

    fn begin(kept: &KeptAnswers, key: &str, request: u64) -> Result<Keyed, RestError> {
        kept.begin((&Signer::Fleet, &SignerShare::new(Signer::Fleet, false)), key.into(), request)
    }

    fn pending(kept: &KeptAnswers, key: &str) -> PendingAnswer {
        match begin(kept, key, 1) {
            Ok(Keyed::New(pending)) => pending,
            other => panic!("{other:?}"),
        }
    }

    fn refused(kept: &KeptAnswers, key: &str, request: u64) -> (u16, String) {
        let error = begin(kept, key, request).unwrap_err();
        (error.status().as_u16(), error.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn a_repeat_gets_the_first_answer_for_a_minute() {
        let kept = KeptAnswers::new(10);
        let first = pending(&kept, "a");
        assert_eq!(refused(&kept, "a", 1).0, 409, "it is under way");
        drop(first.keep((StatusCode::ACCEPTED, [("x-a", "b")], "text").into_response()).await);
        advance(Duration::from_secs(59)).await;
        let Ok(Keyed::Repeated(answer)) = begin(&kept, "a", 1) else { panic!("it is kept") };
        assert_eq!((answer.status().as_u16(), answer.headers()["x-a"].to_str().unwrap()), (202, "b"));
        assert_eq!(answer.headers()["idempotency-replayed"], "true");
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "text");
        assert_eq!(refused(&kept, "a", 2).0, 422, "another request");
        advance(Duration::from_secs(1)).await;
        drop(pending(&kept, "a"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_effect_leaves_its_key_free() {
        let kept = KeptAnswers::new(1);
        for status in [400, 404, 503] {
            let status = StatusCode::from_u16(status).unwrap();
            drop(pending(&kept, "a").keep(status.into_response()).await);
        }
        drop(pending(&kept, "a"));
        let kept_in_part = KeptAnswers::new(1);
        let error = RestError::new(StatusCode::NOT_FOUND, "a", "the second command failed").in_part();
        drop(pending(&kept_in_part, "a").keep(error.into_response()).await);
        let Ok(Keyed::Repeated(answer)) = begin(&kept_in_part, "a", 1) else {
            panic!("the first command was executed")
        };
        assert_eq!(answer.status(), 404);
        drop(pending(&kept, "a").keep(StatusCode::GATEWAY_TIMEOUT.into_response()).await);
        assert!(matches!(begin(&kept, "a", 1), Ok(Keyed::Repeated(_))), "the client may have been called");
    }

    #[tokio::test(start_paused = true)]
    async fn keys_and_answers_are_limited_and_errors_name_the_limit() {
        let kept = KeptAnswers::new(1);
        let large = "x".repeat(BODY_MAX_BYTES + 1);
        assert_eq!(pending(&kept, "a").keep(large.into_response()).await.status(), 200);
        let (status, text) = refused(&kept, "a", 1);
        assert!(status == 409 && text.contains("8192 bytes"), "{text}");
        let (status, text) = refused(&kept, "b", 1);
        assert!(status == 503 && text.contains("--rest-idempotency-keys-max"), "{text}");
        advance(KEPT_FOR).await;
        drop(pending(&kept, "b"));
    }

    #[test]
    fn a_key_is_one_short_text() {
        let key = |values: &[&str]| {
            let pair = |value: &&str| (IDEMPOTENCY_KEY, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            key_of(&values.iter().map(pair).fold(HeaderMap::new(), |mut head, (name, value)| {
                head.append(name, value);
                head
            }))
        };
        assert_eq!((key(&[]).unwrap(), key(&["a-b"]).unwrap()), (None, Some("a-b".into())));
        for wrong in [&["a", "b"][..], &[""], &["ä"], &["a b"], &["a\tb"], &[&"x".repeat(256)]] {
            assert!(key(wrong).unwrap_err().to_string().contains("1 to 255"), "{wrong:?}");
        }
    }
}
