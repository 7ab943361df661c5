//! Formatter of log lines: time, level, node, target, message and fields.
//!
//! The JSON format of `tracing-subscriber` has other, fixed keys (`timestamp`, upper-case `level`, no node) than the
//! documentation guarantees (`time`, lower-case `level`, `node`).

use std::fmt;
use std::sync::OnceLock;

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::shown_text::{is_steering, one_line};

/// Target of the command's own log lines, covered by `--log trunkline_proxy=debug` like the node's.
pub(crate) const LOG_TARGET: &str = "trunkline_proxy::cli";

const MESSAGE: &str = "message";

/// Keys of every line. Event fields with these names are omitted, because keys must be unique.
const LINE_KEYS: [&str; 4] = ["time", "level", "node", "target"];

/// Name of the node; a single value, because a process has one log.
static NODE: OnceLock<String> = OnceLock::new();

pub(crate) fn name_node(name: &str) {
    NODE.get_or_init(|| name.into());
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Human,
    Json,
}

impl LogFormat {
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::Json => "json",
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct LineFormatter(pub(super) LogFormat);

impl<S, N> FormatEvent<S, N> for LineFormatter
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut fields = EventFields::default();
        event.record(&mut fields);
        let (level, target) = (*event.metadata().level(), event.metadata().target());
        match self.0 {
            LogFormat::Human => human(&mut writer, &time, level, target, &fields),
            LogFormat::Json => json(&mut writer, &time, level, target, &fields),
        }
    }
}

fn human(writer: &mut Writer<'_>, time: &str, level: Level, target: &str, fields: &EventFields) -> fmt::Result {
    let (dim, colour, plain) = match writer.has_ansi_escapes() {
        true => ("\x1b[2m", colour(level), "\x1b[0m"),
        false => ("", "", ""),
    };
    write!(writer, "{dim}{time}{plain} {colour}{level:>5}{plain} ")?;
    if let Some(node) = NODE.get() {
        write!(writer, "{node} ")?;
    }
    write!(writer, "{dim}{target}:{plain}")?;
    if let Some(message) = &fields.message {
        write!(writer, " {}", one_line(message))?;
    }
    for (name, value) in &fields.others {
        match value {
            // Escaping keeps external texts on one line.
            Value::String(text) if text.contains(needs_quotes) => write!(writer, " {dim}{name}={plain}{text:?}")?,
            Value::String(text) => write!(writer, " {dim}{name}={plain}{text}")?,
            other => write!(writer, " {dim}{name}={plain}{other}")?,
        }
    }
    writeln!(writer)
}

fn needs_quotes(char: char) -> bool {
    is_steering(char) || char.is_whitespace() || matches!(char, '"' | '=')
}

fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

fn json(writer: &mut Writer<'_>, time: &str, level: Level, target: &str, fields: &EventFields) -> fmt::Result {
    let node = NODE.get().map_or(Value::Null, |node| Value::from(node.as_str()));
    let [time_name, level_name, node_name, target_name] = LINE_KEYS;
    write!(writer, "{{{time_name:?}:{}", Value::from(time))?;
    write!(writer, ",{level_name:?}:{}", Value::from(level.as_str().to_ascii_lowercase()))?;
    write!(writer, ",{node_name:?}:{node},{target_name:?}:{}", Value::from(target))?;
    if let Some(message) = &fields.message {
        write!(writer, ",{MESSAGE:?}:{}", Value::from(message.as_str()))?;
    }
    for (name, value) in &fields.others {
        write!(writer, ",{}:{value}", Value::from(*name))?;
    }
    writeln!(writer, "}}")
}

pub(super) fn plain_line(format: LogFormat, time: &str, level: Level, target: &str, text: &str) -> String {
    let fields = EventFields { message: Some(text.into()), others: Vec::new() };
    let mut line = String::new();
    let mut writer = Writer::new(&mut line);
    // Writing to a string can't fail.
    let _ = match format {
        LogFormat::Human => human(&mut writer, time, level, target, &fields),
        LogFormat::Json => json(&mut writer, time, level, target, &fields),
    };
    line.truncate(line.trim_end().len());
    line
}

#[derive(Debug, Default)]
struct EventFields {
    message: Option<String>,
    others: Vec<(&'static str, Value)>,
}

impl EventFields {
    fn add(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            (MESSAGE, Value::String(text)) => self.message = Some(text),
            (own, _) if LINE_KEYS.contains(&own) => {}
            (name, value) => self.others.push((name, value)),
        }
    }
}

impl Visit for EventFields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: LogFormat, fields: &EventFields) -> String {
        let mut out = String::new();
        let mut writer = Writer::new(&mut out);
        let written = match format {
            LogFormat::Human => human(&mut writer, "now", Level::INFO, "room", fields),
            LogFormat::Json => json(&mut writer, "now", Level::INFO, "room", fields),
        };
        written.unwrap();
        out
    }

    fn fields() -> EventFields {
        let others = vec![("hub", "chat".into()), ("detail", "a \"b\"\n".into()), ("count", 3.into())];
        EventFields { message: Some("it is\nover".into()), others }
    }

    #[test]
    fn a_json_line_is_one_line_for_any_text() {
        let line = written(LogFormat::Json, &fields());
        assert_eq!(line.lines().count(), 1, "{line}");
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&read["message"], &read["hub"]), (&Value::from("it is\nover"), &Value::from("chat")));
        assert_eq!((&read["count"], &read["level"]), (&Value::from(3), &Value::from("info")));
    }

    #[test]
    fn no_text_steers_a_terminal() {
        let others = vec![("user", "\u{202e}nimda".into()), ("method", "\u{9b}2J".into())];
        let line = written(LogFormat::Human, &EventFields { message: Some("gone\u{1b}[2J\nfake".into()), others });
        assert!(!line.trim_end().contains(is_steering), "{line:?}");
    }

    #[test]
    fn ambiguous_texts_are_quoted_for_people() {
        let line = written(LogFormat::Human, &fields());
        assert!(line.ends_with("hub=chat detail=\"a \\\"b\\\"\\n\" count=3\n"), "{line}");
    }
}
