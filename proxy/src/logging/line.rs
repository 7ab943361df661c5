//! One line of the log: when, how grave, which node, where in the code, what, and the fields.

use std::fmt;

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::{LogFormat, NODE};

/// The field that holds the text of an event.
const MESSAGE: &str = "message";

/// What each line has by itself; a field of that name would come twice.
const OWN: [&str; 4] = ["time", "level", "node", "target"];

#[derive(Debug, Clone, Copy)]
pub(super) struct Lines(pub(super) LogFormat);

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut fields = Fields::default();
        event.record(&mut fields);
        let (level, target) = (*event.metadata().level(), event.metadata().target());
        match self.0 {
            LogFormat::Human => human(&mut writer, &time, level, target, &fields),
            LogFormat::Json => json(&mut writer, &time, level, target, &fields),
        }
    }
}

fn human(writer: &mut Writer<'_>, time: &str, level: Level, target: &str, fields: &Fields) -> fmt::Result {
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
        write!(writer, " {message}")?;
    }
    for (name, value) in &fields.others {
        match value {
            // So that a line stays a line, whatever somebody else has written.
            Value::String(text) if text.contains(is_awkward) => write!(writer, " {dim}{name}={plain}{text:?}")?,
            Value::String(text) => write!(writer, " {dim}{name}={plain}{text}")?,
            other => write!(writer, " {dim}{name}={plain}{other}")?,
        }
    }
    writeln!(writer)
}

fn is_awkward(char: char) -> bool {
    char.is_control() || char.is_whitespace() || matches!(char, '"' | '=')
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

fn json(writer: &mut Writer<'_>, time: &str, level: Level, target: &str, fields: &Fields) -> fmt::Result {
    let node = NODE.get().map_or(Value::Null, |node| Value::from(node.as_str()));
    let [time_name, level_name, node_name, target_name] = OWN;
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

/// The fields of an event, in their order.
#[derive(Debug, Default)]
struct Fields {
    message: Option<String>,
    others: Vec<(&'static str, Value)>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            (MESSAGE, Value::String(text)) => self.message = Some(text),
            (own, _) if OWN.contains(&own) => {}
            (name, value) => self.others.push((name, value)),
        }
    }
}

impl Visit for Fields {
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

    fn written(format: LogFormat, fields: &Fields) -> String {
        let mut out = String::new();
        let mut writer = Writer::new(&mut out);
        let written = match format {
            LogFormat::Human => human(&mut writer, "now", Level::INFO, "room", fields),
            LogFormat::Json => json(&mut writer, "now", Level::INFO, "room", fields),
        };
        written.unwrap();
        out
    }

    fn fields() -> Fields {
        let others = vec![("hub", "chat".into()), ("detail", "a \"b\"\n".into()), ("count", 3.into())];
        Fields { message: Some("it is\nover".into()), others }
    }

    #[test]
    fn a_line_of_json_is_one_line_whatever_is_in_it() {
        let line = written(LogFormat::Json, &fields());
        assert_eq!(line.lines().count(), 1, "{line}");
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&read["message"], &read["hub"]), (&Value::from("it is\nover"), &Value::from("chat")));
        assert_eq!((&read["count"], &read["level"]), (&Value::from(3), &Value::from("info")));
    }

    #[test]
    fn what_others_have_written_is_quoted_for_people_where_it_would_be_mistaken() {
        let line = written(LogFormat::Human, &fields());
        assert!(line.ends_with("hub=chat detail=\"a \\\"b\\\"\\n\" count=3\n"), "{line}");
    }
}
