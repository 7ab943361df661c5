//! File of a recording and its rotated predecessors, with limits for their size and number.
//!
//! Each file can be replayed separately: it begins with the header and the openings of all open connections.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use trunkline_proxy::parts::{OpenLine, RecordingHeader, RecordingLine, json_line};

use super::record_error::RecordError;

#[derive(Debug, Clone, Copy)]
pub(super) struct FileLimits {
    pub(super) max_bytes: u64,
    pub(super) files: u32,
}

#[derive(Debug)]
pub(super) struct RecordingFile {
    path: PathBuf,
    limits: FileLimits,
    header: RecordingHeader,
    out: BufWriter<File>,
    written: u64,
    /// Size of the initial part of every new file.
    preamble: u64,
    open: HashMap<String, Box<OpenLine>>,
}

/// Checks that the recording would not overwrite existing files.
pub(super) fn ensure_free(path: &Path, limits: FileLimits) -> Result<(), RecordError> {
    match (0..limits.files).map(|number| older(path, number)).find(|path| path.exists()) {
        Some(path) => Err(RecordError::Taken { path, problem: "exists: choose another file, or remove it" }),
        None => Ok(()),
    }
}

impl RecordingFile {
    pub(super) fn create(path: &Path, limits: FileLimits, header: RecordingHeader) -> io::Result<Self> {
        let (out, open) = (create(path)?, HashMap::new());
        let mut file = Self { path: path.into(), limits, header, out, written: 0, preamble: 0, open };
        file.begin()?;
        file.flush()?;
        Ok(file)
    }

    pub(super) fn write(&mut self, line: RecordingLine) -> io::Result<()> {
        let text = json_line(&line);
        let is_full = self.written + text.len() as u64 > self.limits.max_bytes;
        if is_full && self.written > self.preamble {
            self.rotate()?;
        }
        self.put(&text)?;
        match line {
            RecordingLine::Open(open) => {
                self.open.insert(open.connection.clone(), Box::new(OpenLine { was_open: true, ..*open }));
            }
            RecordingLine::Close(close) => {
                self.open.remove(&close.connection);
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.flush()?;
        for number in (1..self.limits.files).rev() {
            match fs::rename(older(&self.path, number - 1), older(&self.path, number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.limits.files == 1 {
            fs::remove_file(&self.path)?;
        }
        self.out = create(&self.path)?;
        self.written = 0;
        self.begin()
    }

    fn begin(&mut self) -> io::Result<()> {
        let mut text = json_line(&RecordingLine::Header(self.header.clone()));
        let mut open: Vec<_> = self.open.values().cloned().collect();
        open.sort_by_key(|open| open.at_us);
        open.into_iter().for_each(|open| text += &json_line(&RecordingLine::Open(open)));
        self.put(&text)?;
        self.preamble = self.written;
        Ok(())
    }

    fn put(&mut self, text: &str) -> io::Result<()> {
        self.written += text.len() as u64;
        self.out.write_all(text.as_bytes())
    }
}

fn older(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.into();
    }
    let mut name = OsString::from(path);
    name.push(format!(".{number}"));
    name.into()
}

fn create(path: &Path) -> io::Result<BufWriter<File>> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(BufWriter::new)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use trunkline_proxy::parts::{CloseLine, MessageLine, RECORDING_FORMAT, RECORDING_VERSION};

    /// Folder of one test, removed on drop.
    pub(crate) struct TestFolder(PathBuf);

    impl TestFolder {
        pub(crate) fn new() -> Self {
            let name = format!("trunkline-recording-{}", trunkline_protocol::id::random_id());
            let folder = std::env::temp_dir().join(name);
            fs::create_dir(&folder).unwrap();
            Self(folder)
        }

        pub(crate) fn file(&self) -> PathBuf {
            self.0.join("out.jsonl")
        }
    }

    impl Drop for TestFolder {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    fn header() -> RecordingHeader {
        let (format, node, hub) = (RECORDING_FORMAT.into(), "n1".into(), "chat".into());
        RecordingHeader { format, version: RECORDING_VERSION, node, hub, started_ms: 1, payloads: true }
    }

    fn open(connection: &str) -> RecordingLine {
        RecordingLine::Open(Box::new(OpenLine { connection: connection.into(), ..OpenLine::default() }))
    }

    fn close(connection: &str) -> RecordingLine {
        RecordingLine::Close(CloseLine { connection: connection.into(), ..CloseLine::default() })
    }

    fn message(at_us: u64) -> RecordingLine {
        let text = Some("x".repeat(200));
        RecordingLine::Up(MessageLine { at_us, text, kind: "raw".into(), ..MessageLine::default() })
    }

    fn lines(path: &Path) -> Vec<RecordingLine> {
        fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Writes these lines to this number of files with at most 2000 bytes.
    fn written(folder: &TestFolder, files: u32, all: impl IntoIterator<Item = RecordingLine>) -> PathBuf {
        let path = folder.file();
        let limits = FileLimits { max_bytes: 2_000, files };
        assert!(ensure_free(&path, limits).is_ok());
        let mut file = RecordingFile::create(&path, limits, header()).unwrap();
        all.into_iter().for_each(|line| file.write(line).unwrap());
        file.flush().unwrap();
        assert!(ensure_free(&path, limits).is_err());
        path
    }

    #[test]
    fn full_files_are_numbered_and_the_oldest_goes() {
        let folder = TestFolder::new();
        let path = written(&folder, 2, (0..30).map(message));
        let names: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        for path in [path.clone(), older(&path, 1)] {
            assert!(fs::metadata(path).unwrap().len() <= 2_000);
        }
        let times = |path: &Path| -> Vec<u64> {
            let time = |line: &RecordingLine| match line {
                RecordingLine::Up(message) => Some(message.at_us),
                _ => None,
            };
            lines(path).iter().filter_map(time).collect()
        };
        let all = [times(&older(&path, 1)), times(&path)].concat();
        assert_eq!(all, (30 - all.len() as u64..30).collect::<Vec<_>>(), "the newest are kept, in order");
    }

    #[test]
    fn each_file_begins_with_the_header_and_the_connections_that_are_open() {
        let folder = TestFolder::new();
        let path =
            written(&folder, 1, [open("gone"), open("stays"), close("gone")].into_iter().chain((0..30).map(message)));
        let lines = lines(&path);
        assert_eq!(lines[0], RecordingLine::Header(header()));
        let RecordingLine::Open(open) = &lines[1] else { panic!("{:?}", lines[1]) };
        assert!(open.connection == "stays" && open.was_open);
        assert!(matches!(lines[2], RecordingLine::Up(_)));
    }

    #[test]
    fn openings_that_fill_a_file_do_not_begin_new_ones_for_ever() {
        let many = (0..60).map(|number| open(&format!("{number}")));
        let folder = TestFolder::new();
        let path = written(&folder, 3, many.chain([message(1), message(2)]));
        assert_eq!(lines(&path).len(), 1 + 60 + 1);
    }
}
