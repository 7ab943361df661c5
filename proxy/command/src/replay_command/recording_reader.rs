//! Reader of a recording: first the header, then line by line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use serde_json::Value;
use trunkline_proxy::parts::{RECORDING_FORMAT, RECORDING_VERSION, RecordingHeader, RecordingLine};

/// Maximum line length: a megabyte message with escapes.
const LINE_MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Error for a file that can't be replayed. The text continues the file name.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadRecordingError {
    #[error("can't be read: {0}")]
    File(#[from] io::Error),
    #[error("is not a recording: the first line is not a valid header")]
    NoRecording,
    #[error("has version {0} of the format, and this trunkline reads version {RECORDING_VERSION} only")]
    Version(u64),
    #[error("has no payloads to send: record with --payloads")]
    NoPayloads,
    #[error("line {0} is longer than {LINE_MAX_BYTES} bytes")]
    TooLong(u64),
    #[error("line {line} is not a valid line of a recording: {problem}")]
    Line { line: u64, problem: String },
}

/// Recording after its header has been read.
#[derive(Debug)]
pub(crate) struct RecordingReader<R> {
    input: R,
    pub(crate) header: RecordingHeader,
    /// Number of the last line read, from 1.
    line: u64,
}

impl RecordingReader<BufReader<File>> {
    pub(super) fn open(path: &Path) -> Result<Self, ReadRecordingError> {
        Self::new(BufReader::new(File::open(path)?))
    }
}

impl<R: BufRead> RecordingReader<R> {
    /// Reads the header and checks that the rest can be played.
    pub(crate) fn new(mut input: R) -> Result<Self, ReadRecordingError> {
        let first = read_line(&mut input, 1)?.ok_or(ReadRecordingError::NoRecording)?;
        let header: Value = serde_json::from_slice(&first).map_err(|_| ReadRecordingError::NoRecording)?;
        if header.get("format").and_then(Value::as_str) != Some(RECORDING_FORMAT) {
            return Err(ReadRecordingError::NoRecording);
        }
        // Checked before the other fields, because another version may have a different header.
        match header.get("version").and_then(Value::as_u64) {
            Some(version) if version == u64::from(RECORDING_VERSION) => {}
            Some(version) => return Err(ReadRecordingError::Version(version)),
            None => return Err(ReadRecordingError::NoRecording),
        }
        let Ok(RecordingLine::Header(header)) = serde_json::from_value(header) else {
            return Err(ReadRecordingError::NoRecording);
        };
        if header.payloads { Ok(Self { input, header, line: 1 }) } else { Err(ReadRecordingError::NoPayloads) }
    }

    /// Reads the next line with its number; `None` at the end. An incomplete last line is ignored.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, RecordingLine)>, ReadRecordingError> {
        self.line += 1;
        let line = self.line;
        let Some(text) = read_line(&mut self.input, line)? else { return Ok(None) };
        let wrong = |problem: String| ReadRecordingError::Line { line, problem };
        match serde_json::from_slice(&text) {
            Ok(RecordingLine::Header(_)) => Err(wrong("a second header".into())),
            Ok(read) => Ok(Some((line, read))),
            Err(_) if !text.ends_with(b"\n") => Ok(None),
            Err(error) => Err(wrong(error.to_string())),
        }
    }
}

fn read_line(input: &mut impl BufRead, number: u64) -> Result<Option<Vec<u8>>, ReadRecordingError> {
    let mut line = Vec::new();
    input.take(LINE_MAX_BYTES + 1).read_until(b'\n', &mut line)?;
    match line.len() as u64 {
        0 => Ok(None),
        length if length > LINE_MAX_BYTES => Err(ReadRecordingError::TooLong(number)),
        _ => Ok(Some(line)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trunkline_proxy::parts::MessageLine;

    const HEADER: &str = r#"{"event":"header","format":"trunkline-recording","version":1,"node":"n","hub":"chat","startedMs":1,"payloads":true}"#;
    const UP: &str = r#"{"event":"up","atUs":1,"connection":"c","kind":"raw","bytes":2,"text":"hi"}"#;

    fn read(text: &str) -> Result<Vec<(u64, RecordingLine)>, String> {
        let mut reader = RecordingReader::new(text.as_bytes()).map_err(|error| error.to_string())?;
        let mut all = Vec::new();
        while let Some(line) = reader.next().map_err(|error| error.to_string())? {
            all.push(line);
        }
        Ok(all)
    }

    #[test]
    fn lines_are_numbered_and_fields_of_later_versions_are_skipped() {
        let later = UP.replace("\"bytes\"", "\"new\":[1],\"bytes\"");
        let lines = read(&format!("{HEADER}\n{UP}\n{later}\n")).unwrap();
        assert_eq!(lines.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(lines[0].1, lines[1].1);
        assert!(matches!(&lines[0].1, RecordingLine::Up(MessageLine { text: Some(text), .. }) if text == "hi"));
    }

    #[test]
    fn a_line_that_was_cut_off_at_the_end_is_left_out_and_any_other_is_named() {
        assert_eq!(read(&format!("{HEADER}\n{UP}\n{}", &UP[..30])).unwrap().len(), 1);
        assert_eq!(read(&format!("{HEADER}\n{UP}")).unwrap().len(), 1, "only its end is missing");
        let problem = read(&format!("{HEADER}\n{}\n{UP}\n", &UP[..30])).unwrap_err();
        assert!(problem.starts_with("line 2 is not a valid line of a recording"), "{problem}");
        assert!(read(&format!("{HEADER}\n{HEADER}\n")).unwrap_err().ends_with("a second header"));
    }

    #[test]
    fn other_files_versions_and_recordings_without_payloads_are_refused_with_the_reason() {
        for (text, told) in [
            ("", "is not a recording"),
            ("hello\n", "is not a recording"),
            ("{\"event\":\"header\"}\n", "is not a recording"),
            (UP, "is not a recording"),
            (&HEADER.replace("\"version\":1", "\"version\":2,\"x\":1"), "has version 2 of the format"),
            (&HEADER.replace("true", "false"), "record with --payloads"),
        ] {
            let problem = read(text).unwrap_err();
            assert!(problem.contains(told), "{text}: {problem}");
        }
    }

    #[test]
    fn lines_have_a_limit() {
        let text = format!("{HEADER}\n{}\n", "x".repeat(17 * 1024 * 1024));
        assert_eq!(read(&text).unwrap_err(), "line 2 is longer than 16777216 bytes");
    }
}
