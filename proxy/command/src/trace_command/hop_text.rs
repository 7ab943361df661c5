//! Hops of a traced message as text, in order. Pure.

use trunkline_proxy::parts::{HubTimes, TraceMessageLine};

use crate::shown_text::one_line;

#[derive(Debug)]
pub(super) struct TracedHops {
    pub(super) message: TraceMessageLine,
    pub(super) hub: Option<HubTimes>,
    pub(super) answered_us: Option<u64>,
    pub(super) written_us: Option<u64>,
    pub(super) is_lost: bool,
}

impl TracedHops {
    pub(super) fn new(message: TraceMessageLine) -> Self {
        Self { message, hub: None, answered_us: None, written_us: None, is_lost: false }
    }

    /// Durations of the hops in microseconds, in order.
    pub(super) fn durations(&self) -> Vec<(&'static str, u64)> {
        let hub = self.hub.unwrap_or_default();
        let steps = [
            ("link", self.message.link_us),
            ("waited", self.hub.map(|hub| hub.waited_us)),
            ("queued", hub.queued_us),
            ("ran", hub.ran_us),
            ("answered", hub.answered_us),
            ("way", self.way_us()),
            ("total", self.answered_us),
            ("written", self.written_us),
        ];
        steps.into_iter().filter_map(|(name, us)| Some((name, us?))).collect()
    }

    /// Network time between proxy and app server in both directions: the total by the proxy's clock, minus the
    /// durations measured by each end.
    fn way_us(&self) -> Option<u64> {
        let (total, hub) = (self.answered_us?, self.hub.filter(|hub| hub.ran_us.is_some())?);
        let inside = [self.message.link_us, Some(hub.waited_us), hub.queued_us, hub.ran_us, hub.answered_us];
        Some(total.saturating_sub(inside.into_iter().flatten().sum()))
    }

    /// Whether no further hops are expected.
    pub(super) fn is_complete(&self) -> bool {
        let is_hub_over = self.hub.is_some_and(|hub| hub.queued_us.is_none() || hub.ran_us.is_some());
        let is_up_over = if self.message.marked { is_hub_over } else { self.answered_us.is_some() };
        !self.message.open || self.written_us.is_some() || self.is_lost || is_up_over
    }

    pub(super) fn text(&self) -> String {
        let message = &self.message;
        let mut text = format!("{} {} {}", time_of_day(message.at_us), message.node, arrow(message));
        if let Some(user) = &message.user {
            text += &format!(" {user}");
        }
        text += &format!(" {} {}", message.connection, message.hub);
        text += &format!(" {}", message.target.as_deref().unwrap_or(&message.kind));
        if let Some(id) = &message.invocation_id {
            text += &format!(" #{id}");
        }
        text += &match message.target {
            Some(_) => format!(" ({}, {} B)", message.kind, message.bytes),
            None => format!(" ({} B)", message.bytes),
        };
        let hops: Vec<_> =
            self.durations().into_iter().map(|(name, us)| format!("{name} {}", milliseconds(us))).collect();
        if !hops.is_empty() {
            text += &format!("  {}", hops.join(" \u{b7} "));
        }
        text += self.outcome();
        if let Some(payload) = &message.payload {
            text += &format!("  {payload}");
        }
        one_line(&text).into_owned()
    }

    fn outcome(&self) -> &'static str {
        match self.hub {
            _ if self.message.refused => "  refused by rules",
            _ if self.is_lost => "  not written: the client has disconnected",
            Some(hub) if hub.has_failed => "  failed",
            Some(hub) if hub.queued_us.is_some() && hub.ran_us.is_none() => "  still running",
            _ => "",
        }
    }
}

fn arrow(message: &TraceMessageLine) -> &'static str {
    if message.is_up() { "\u{2191}" } else { "\u{2193}" }
}

/// Formats milliseconds with useful precision.
pub(super) fn milliseconds(us: u64) -> String {
    let (whole, rest) = (us / 1_000, us % 1_000);
    if whole >= 100 { format!("{whole} ms") } else { format!("{whole}.{:02} ms", rest / 10) }
}

fn time_of_day(unix_us: u64) -> String {
    let ms = unix_us / 1_000;
    let (hours, minutes, seconds) = (ms / 3_600_000 % 24, ms / 60_000 % 60, ms / 1_000 % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{:03}", ms % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use trunkline_proxy::parts::TraceLine;

    fn message(more: &str) -> TracedHops {
        let line = format!(
            r#"{{"event":"message","node":"n1","number":4,"atUs":3723004005,"connection":"c1","hub":"chat","bytes":52{more}}}"#
        );
        let TraceLine::Message(message) = serde_json::from_str(&line).unwrap() else { panic!("{line}") };
        TracedHops::new(*message)
    }

    #[test]
    fn a_call_is_printed_with_all_its_hops_in_order() {
        let mut call = message(
            r#","way":"up","kind":"invocation","target":"Say","invocationId":"7","user":"ann","linkUs":20,"open":true,"marked":true"#,
        );
        assert!(!call.is_complete());
        let begun = HubTimes { waited_us: 30, queued_us: Some(0), ..HubTimes::default() };
        call.hub = Some(begun);
        assert!(
            !call.is_complete()
                && call.text().ends_with("link 0.02 ms \u{b7} waited 0.03 ms \u{b7} queued 0.00 ms  still running")
        );
        call.hub = Some(HubTimes { ran_us: Some(120_000), answered_us: Some(50), ..begun });
        call.answered_us = Some(120_500);
        assert!(call.is_complete());
        assert_eq!(
            call.text(),
            "01:02:03.004 n1 \u{2191} ann c1 chat Say #7 (invocation, 52 B)  link 0.02 ms \u{b7} waited 0.03 ms \u{b7} \
             queued 0.00 ms \u{b7} ran 120 ms \u{b7} answered 0.05 ms \u{b7} way 0.40 ms \u{b7} total 120 ms"
        );
    }

    #[test]
    fn messages_to_clients_and_refused_ones_show_their_outcome() {
        let mut answer = message(r#","way":"down","kind":"completion","invocationId":"7","linkUs":5,"open":true"#);
        answer.written_us = Some(1_230);
        assert_eq!(
            answer.text(),
            "01:02:03.004 n1 \u{2193} c1 chat completion #7 (52 B)  link 0.00 ms \u{b7} written 1.23 ms"
        );
        (answer.written_us, answer.is_lost) = (None, true);
        assert!(answer.is_complete() && answer.text().ends_with("not written: the client has disconnected"));
        let refused = message(r#","way":"up","kind":"invocation","target":"Ban","refused":true,"payload":"[1]""#);
        assert!(refused.is_complete() && refused.text().ends_with("refused by rules  [1]"));
    }
}
