//! Checks for intermediaries that change headers or answer themselves, and CORS for pages of an origin.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_ORIGIN, AGE, CACHE_CONTROL,
    SERVER, SET_COOKIE, VIA,
};
use http::{HeaderValue, StatusCode};

use super::finding::{Finding, excerpt};
use super::probe_client::{AnswerSeen, ProbeClient, ProbeError};

const HEADERS: &str = "headers";
const CORS: &str = "cors";
const HOST_CHECK: &str = "host";

/// Headers that the official client needs for requests from a page.
const NEEDED: [&str; 2] = ["authorization", "x-requested-with"];

pub(super) fn judge_headers(answer: &AnswerSeen) -> Finding {
    let between = between(answer);
    let is_cached = answer.headers.contains_key(AGE)
        || answer.header("x-cache").is_some_and(|cache| cache.to_ascii_uppercase().contains("HIT"));
    if is_cached {
        return Finding::failed(
            HEADERS,
            format!("a cache answered the negotiation: two clients got the same id{between}"),
            "let the cache forward the paths of hubs, and obey `Cache-Control: no-store`",
        );
    }
    let is_kept_out = answer.header(CACHE_CONTROL.as_str()).is_some_and(|control| control.contains("no-store"));
    match is_kept_out {
        true => Finding::ok(HEADERS, format!("no header is missing{between}")),
        false => Finding::warning(
            HEADERS,
            format!("the negotiate response lacks `Cache-Control: no-store`, which nodes send{between}"),
            "let the load balancer forward the header, so that no cache stores an id",
        ),
    }
}

/// Describes intermediaries that left headers in the answer.
fn between(answer: &AnswerSeen) -> String {
    let signed = [SERVER, VIA].into_iter().filter_map(|name| {
        let value = answer.header(name.as_str())?;
        Some(format!("{name} {}", excerpt(value.as_bytes())))
    });
    let cookies =
        answer.headers.get_all(SET_COOKIE).iter().filter_map(|cookie| cookie.to_str().ok()?.split('=').next());
    let cookies = cookies.map(|name| format!("the cookie {}", excerpt(name.as_bytes())));
    let all: Vec<_> = signed.chain(cookies).collect();
    if all.is_empty() { String::new() } else { format!("; in between: {}", all.join(", ")) }
}

/// Negotiates like a page from the URL's own address, which fails behind a balancer that changes `Host`.
pub(super) async fn check_host(client: &ProbeClient) -> Option<Finding> {
    let own = HeaderValue::from_str(&client.url.address.to_string()).ok()?;
    let answer = client.of_page(Some(own.clone())).negotiate().await.ok()?;
    Some(judge_host(&own, &answer))
}

fn judge_host(own: &HeaderValue, answer: &AnswerSeen) -> Finding {
    let shown = excerpt(own.as_bytes());
    if answer.status != StatusCode::FORBIDDEN {
        return Finding::ok(HOST_CHECK, format!("pages of {shown} itself are allowed"));
    }
    Finding::failed(
        HOST_CHECK,
        format!("pages of {shown} itself are refused: {}", excerpt(&answer.body)),
        "let the load balancer forward Host (nginx: `proxy_set_header Host $http_host`), or send X-Forwarded-Host, \
         with --trust-headers for,proto,host at the nodes; or add the origin to --allow-origin",
    )
}

/// Sends requests like a page of the client's origin and judges the answers. `None` without an origin.
pub(super) async fn check_cors(client: &ProbeClient) -> Option<Finding> {
    let origin = client.origin.as_ref()?;
    let unanswered = |method: &str, error: ProbeError| {
        let seen = format!("{method} of a page got no response: {error}");
        Finding::failed(CORS, seen, format!("let the load balancer forward {method}"))
    };
    let preflight = match client.preflight().await {
        Ok(preflight) => preflight,
        Err(error) => return Some(unanswered("OPTIONS", error)),
    };
    Some(match client.negotiate().await {
        Ok(negotiated) => judge_cors(origin, &preflight, &negotiated),
        Err(error) => unanswered("POST", error),
    })
}

fn judge_cors(origin: &HeaderValue, preflight: &AnswerSeen, negotiated: &AnswerSeen) -> Finding {
    let shown = excerpt(origin.as_bytes());
    if !preflight.status.is_success() {
        let seen = format!("OPTIONS for {shown} got {}", preflight.status);
        return Finding::failed(
            CORS,
            seen,
            "let the load balancer forward OPTIONS to the nodes, and add the origin to --allow-origin",
        );
    }
    for (name, answer) in [("OPTIONS", preflight), ("negotiate", negotiated)] {
        let allowed: Vec<_> = answer.headers.get_all(ACCESS_CONTROL_ALLOW_ORIGIN).iter().collect();
        let advice = match allowed.as_slice() {
            [one] if *one == origin => continue,
            [] => "add the origin to --allow-origin (or to the app's own CORS, if the path is not a hub's)",
            [_] => "add the origin to --allow-origin; cookies need the origin itself, `*` is not enough",
            _ => "let only the nodes send CORS headers, not the load balancer: browsers refuse two",
        };
        let values: Vec<_> = allowed.iter().map(|value| excerpt(value.as_bytes())).collect();
        let values = if values.is_empty() { "nothing".to_owned() } else { values.join(" and ") };
        let seen = format!("the response to {name} allows {values}, not only {shown}");
        return Finding::failed(CORS, seen, advice);
    }
    if negotiated.header(ACCESS_CONTROL_ALLOW_CREDENTIALS.as_str()) != Some("true") {
        let seen = format!("{shown} is allowed, but without cookies");
        return Finding::warning(CORS, seen, "let the load balancer forward Access-Control-Allow-Credentials");
    }
    let headers = preflight.header(ACCESS_CONTROL_ALLOW_HEADERS.as_str()).unwrap_or_default().to_ascii_lowercase();
    let missing: Vec<_> = NEEDED.into_iter().filter(|name| !headers.contains(name) && headers.trim() != "*").collect();
    match missing.is_empty() {
        true => Finding::ok(CORS, format!("pages of {shown} are allowed")),
        false => Finding::failed(
            CORS,
            format!("pages of {shown} may not send {}", missing.join(", ")),
            "let the nodes answer OPTIONS, not the load balancer",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use http::{HeaderMap, HeaderName};

    use super::super::finding::Verdict;
    use super::*;

    fn answer(pairs: &[(&'static str, &'static str)]) -> AnswerSeen {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        AnswerSeen { status: StatusCode::OK, headers, body: Bytes::new(), took: Duration::ZERO }
    }

    #[test]
    fn a_page_of_the_url_itself_that_is_refused_names_the_header_host() {
        let own = HeaderValue::from_static("https://chat.example:443");
        let refused = AnswerSeen { status: StatusCode::FORBIDDEN, ..answer(&[]) };
        let finding = judge_host(&own, &refused);
        assert!(finding.verdict == Verdict::Failed && finding.advice.unwrap().contains("Host $http_host"));
        assert_eq!(judge_host(&own, &answer(&[])).verdict, Verdict::Ok);
    }

    #[test]
    fn a_cache_that_answers_fails_and_a_cut_header_is_a_warning() {
        let kept_out = ("cache-control", "no-store");
        assert_eq!(judge_headers(&answer(&[kept_out])).seen, "no header is missing");
        let seen = judge_headers(&answer(&[kept_out, ("server", "nginx"), ("set-cookie", "TRUNKLINE=a; Path=/")])).seen;
        assert_eq!(seen, "no header is missing; in between: server \"nginx\", the cookie \"TRUNKLINE\"");
        assert_eq!(judge_headers(&answer(&[])).verdict, Verdict::Warning);
        assert_eq!(judge_headers(&answer(&[kept_out, ("age", "3")])).verdict, Verdict::Failed);
        assert_eq!(judge_headers(&answer(&[kept_out, ("x-cache", "Hit from x")])).verdict, Verdict::Failed);
    }

    #[test]
    fn an_origin_has_to_be_allowed_once_and_by_its_name() {
        let origin = HeaderValue::from_static("https://app.example");
        let by = ("access-control-allow-origin", "https://app.example");
        let credentials = ("access-control-allow-credentials", "true");
        let headers = ("access-control-allow-headers", "Authorization, X-Requested-With");
        let good = answer(&[by, credentials, headers]);
        let judged = |preflight: &AnswerSeen, negotiated: &AnswerSeen| judge_cors(&origin, preflight, negotiated);
        assert_eq!(judged(&good, &good).verdict, Verdict::Ok);
        assert!(judged(&good, &answer(&[])).advice.unwrap().contains("--allow-origin"));
        assert!(judged(&good, &answer(&[by, by])).advice.unwrap().contains("refuse two"));
        assert!(judged(&answer(&[("access-control-allow-origin", "*")]), &good).advice.unwrap().contains("`*`"));
        assert!(judged(&answer(&[by]), &good).seen.contains("may not send authorization, x-requested-with"));
        assert_eq!(judged(&good, &answer(&[by])).verdict, Verdict::Warning);
        let refused = AnswerSeen { status: StatusCode::METHOD_NOT_ALLOWED, ..answer(&[]) };
        assert_eq!(judged(&refused, &good).verdict, Verdict::Failed);
    }
}
