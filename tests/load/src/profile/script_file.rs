//! Profile file: the steps of each client. Pure: text in, steps out.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScriptFile {
    pub(crate) name: String,
    pub(crate) steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Step {
    /// Ensures a connection: the one from the ramp-up, or a new connection after a close.
    Connect {},
    /// Calls a hub method.
    Invoke(Invoke),
    /// Waits for this long.
    Wait {
        ms: u64,
    },
    /// Waits until the server has called this method this many times, including earlier unconsumed calls.
    Expect {
        method: String,
        #[serde(default = "once")]
        times: u64,
        #[serde(default = "patience_ms")]
        within_ms: u64,
    },
    Close {},
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Invoke {
    pub(crate) method: String,
    #[serde(default)]
    pub(crate) arguments: Vec<Value>,
    #[serde(default)]
    pub(crate) times: Times,
    /// Interval between calls, independent of their outcome.
    #[serde(default)]
    pub(crate) interval_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(crate) enum Times {
    Count(u64),
    Endless(Endless),
}

/// Repeats until the run or the connection ends, in parallel with the next steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Endless {
    #[serde(rename = "forever")]
    Forever,
}

impl Default for Times {
    fn default() -> Self {
        Self::Count(once())
    }
}

/// Values of the placeholders in arguments.
#[derive(Debug, Clone)]
pub(crate) struct Blanks {
    pub(crate) run: String,
    pub(crate) client: u64,
    pub(crate) group: u64,
    /// Number of earlier calls of this client.
    pub(crate) number: u64,
    pub(crate) stamp: String,
}

impl ScriptFile {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let file: Self = toml::from_str(text)?;
        ensure!(!file.steps.is_empty(), "a profile without steps does nothing");
        for step in &file.steps {
            let Step::Invoke(invoke) = step else { continue };
            let repeats = invoke.times != Times::default();
            let method = &invoke.method;
            ensure!(!repeats || invoke.interval_ms.is_some(), "{method} is called again and again: say interval_ms");
            ensure!(invoke.interval_ms != Some(0), "{method}: interval_ms must be at least 1");
        }
        Ok(file)
    }

    pub(crate) fn read(path: &str) -> Result<Self> {
        let known = "echo, shared-echo, broadcast, chat, idle, storm";
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("{path} is no profile ({known}), and can't be read as a profile file"))?;
        Self::parse(&text).with_context(|| format!("profile file {path}"))
    }
}

impl Blanks {
    /// Fills the placeholders of an argument. An argument that is only a numeric placeholder becomes a number.
    pub(crate) fn fill(&self, argument: &Value) -> Value {
        match argument {
            Value::String(text) => self.fill_text(text),
            Value::Array(items) => items.iter().map(|item| self.fill(item)).collect(),
            Value::Object(members) => members.iter().map(|(key, value)| (key.clone(), self.fill(value))).collect(),
            other => other.clone(),
        }
    }

    fn fill_text(&self, text: &str) -> Value {
        match text {
            "{client}" => self.client.into(),
            "{group}" => self.group.into(),
            "{number}" => self.number.into(),
            text => text
                .replace("{run}", &self.run)
                .replace("{client}", &self.client.to_string())
                .replace("{group}", &self.group.to_string())
                .replace("{number}", &self.number.to_string())
                .replace("{stamp}", &self.stamp)
                .into(),
        }
    }
}

fn once() -> u64 {
    1
}

fn patience_ms() -> u64 {
    5_000
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_steps_are_understood() {
        let text = r#"
            name = "all"
            steps = [
              { do = "connect" },
              { do = "invoke", method = "Join", arguments = ["room{group}"] },
              { do = "invoke", method = "Echo", arguments = [1, { a = "{number}" }], times = 3, interval_ms = 10 },
              { do = "invoke", method = "EchoBack", arguments = ["{stamp}"], times = "forever", interval_ms = 10 },
              { do = "wait", ms = 5 },
              { do = "expect", method = "Echoed", times = 2, within_ms = 100 },
              { do = "close" },
            ]
        "#;
        let file = ScriptFile::parse(text).unwrap();
        assert_eq!(file.steps.len(), 7);
        assert!(matches!(&file.steps[3], Step::Invoke(Invoke { times: Times::Endless(_), .. })));
    }

    #[test]
    fn unknown_keys_and_missing_intervals_are_errors() {
        let step = |step: &str| ScriptFile::parse(&format!("name = \"x\"\nsteps = [{step}]"));
        assert!(step("{ do = \"wait\", ms = 1 }").is_ok());
        assert!(step("{ do = \"wait\", ms = 1, second = 1 }").is_err());
        assert!(step("{ do = \"dance\" }").is_err());
        assert!(step("{ do = \"invoke\", method = \"A\", colour = 1 }").is_err());
        let error = step("{ do = \"invoke\", method = \"A\", times = 2 }").unwrap_err();
        assert!(error.to_string().contains("interval_ms"));
        assert!(step("").is_err());
    }

    #[test]
    fn placeholders_are_filled() {
        let blanks = Blanks { run: "r".into(), client: 7, group: 2, number: 9, stamp: "~s~".into() };
        let filled = blanks.fill(&json!(["{client}", { "a": "{run}-{group}-{number}" }, "{stamp}", 1]));
        assert_eq!(filled, json!([7, { "a": "r-2-9" }, "~s~", 1]));
    }

    #[test]
    fn the_example_files_are_understood() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/profiles");
        let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(files.len() >= 3);
        for file in files {
            ScriptFile::read(file.to_str().unwrap()).unwrap();
        }
    }
}
