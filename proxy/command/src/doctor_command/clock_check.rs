//! Checks the server's clock and the token's validity period.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use trunkline_protocol::unix_time::unix_seconds;

use super::finding::Finding;
use super::probe_client::AnswerSeen;

const CLOCK: &str = "clock";
const TOKEN: &str = "token";

/// Tolerated clock difference, plus the header's rounding to a second.
const DIFFERENCE_MAX: Duration = Duration::from_secs(5);

/// Validity period of an access token, according to its claims.
#[derive(Debug, Default, Clone, PartialEq, Deserialize)]
#[serde(default)]
struct TokenTimes {
    exp: Option<f64>,
    nbf: Option<f64>,
}

/// Judges the clock of the answering server, and the token by that clock.
pub(super) fn check_clock(answer: &AnswerSeen, token: Option<&str>, now: SystemTime) -> Vec<Finding> {
    let date = answer.header("date").and_then(|date| httpdate::parse_http_date(date).ok());
    let clock = judge_clock(date, now, answer.took);
    let at_s = unix_seconds(date.unwrap_or(now));
    std::iter::once(clock).chain(token.map(|token| judge_token(token, at_s))).collect()
}

fn judge_clock(date: Option<SystemTime>, now: SystemTime, took: Duration) -> Finding {
    let Some(date) = date else {
        return Finding::warning(
            CLOCK,
            "the response has no Date header",
            "let the load balancer forward the Date header of the nodes",
        );
    };
    let difference = now.duration_since(date).unwrap_or_else(|error| error.duration());
    if difference <= DIFFERENCE_MAX + took {
        return Finding::ok(CLOCK, "the server's clock agrees with this machine's");
    }
    let side = if date > now { "ahead of" } else { "behind" };
    Finding::warning(
        CLOCK,
        format!("the server's clock is {} s {side} this machine's", difference.as_secs()),
        "set both clocks by NTP: the server's clock decides about the times of access tokens; --jwt-clock-skew allows \
         for a difference",
    )
}

fn judge_token(token: &str, at_s: u64) -> Finding {
    let Some(TokenTimes { exp, nbf }) = token_times(token) else {
        return Finding::ok(TOKEN, "the token is not a JWT, so its times are unknown");
    };
    // Both numbers are far below the precision limit of a float.
    let seconds = |at: f64| at - Duration::from_secs(at_s).as_secs_f64();
    match (exp.map(seconds), nbf.map(seconds)) {
        (Some(left), _) if left <= 0.0 => Finding::failed(
            TOKEN,
            format!("the token expired {:.0} s ago by the server's clock", -left),
            "use a new token, from your app or from `trunkline token user ID`",
        ),
        (_, Some(wait)) if wait > 0.0 => Finding::failed(
            TOKEN,
            format!("the token becomes valid in {wait:.0} s by the server's clock"),
            "set the clock of the token issuer by NTP; --jwt-clock-skew allows for a difference",
        ),
        (Some(left), _) => Finding::ok(TOKEN, format!("the token is valid for {left:.0} more seconds")),
        (None, _) => Finding::warning(
            TOKEN,
            "the token never expires",
            "give tokens an expiry (`exp`): a stolen token works forever",
        ),
    }
}

/// Reads the validity period of a token without verifying its signature.
fn token_times(token: &str) -> Option<TokenTimes> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&claims).ok()
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    const NOW_S: u64 = 1_800_000_000;

    fn clock(date_s: Option<u64>) -> Finding {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        judge_clock(date_s.map(at), at(NOW_S), Duration::from_millis(100))
    }

    fn token(claims: &str) -> Finding {
        judge_token(&format!("x.{}.y", URL_SAFE_NO_PAD.encode(claims)), NOW_S)
    }

    #[test]
    fn a_clock_difference_is_reported_with_its_direction() {
        assert_eq!(clock(Some(NOW_S - 4)).verdict, Verdict::Ok);
        assert!(clock(Some(NOW_S + 60)).seen.contains("60 s ahead of"));
        assert!(clock(Some(NOW_S - 60)).seen.contains("60 s behind"));
        assert_eq!(clock(None).verdict, Verdict::Warning);
    }

    #[test]
    fn a_token_is_judged_by_the_clock_of_the_server() {
        assert_eq!(token("{\"exp\":1800000060}").seen, "the token is valid for 60 more seconds");
        assert_eq!(token("{\"exp\":1799999940}").seen, "the token expired 60 s ago by the server's clock");
        assert_eq!(
            token("{\"exp\":1900000000,\"nbf\":1800000030.0}").seen,
            "the token becomes valid in 30 s by the server's clock"
        );
        assert_eq!(token("{}").verdict, Verdict::Warning);
        assert_eq!(judge_token("opaque", NOW_S).verdict, Verdict::Ok);
    }
}
