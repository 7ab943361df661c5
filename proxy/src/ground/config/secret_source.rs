//! Sources of all keys and secrets that a node reloads at run time: how to read their files, and the errors.

use std::collections::HashMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use trunkline_protocol::key::{AccessKey, without_mark};
use trunkline_protocol::pattern::Pattern;

use crate::ground::auth::{AdminToken, AdminTokenInForce, AppKey, VerifyingKey};
use crate::ground::routing::WebhookHeader;

/// Error of reading a secret file. The text has the cause, but no secret.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SecretFileError(String);

impl SecretFileError {
    /// The problem is worded to follow flag and path.
    fn new(flag: &str, path: &Path, problem: impl Display) -> Self {
        Self(format!("{flag} {}{problem}", path.display()))
    }
}

/// Secret on one line of a file.
pub trait SecretLine: FromStr<Err: Display> + Clone {
    /// Flag that names such a file.
    const FLAG: &'static str;

    /// Parses the lines of a file, one secret per line. Empty lines and lines starting with `#` are skipped.
    ///
    /// # Errors
    /// Returns the number of the first invalid line, with its error.
    fn lines(text: &str) -> Result<Vec<Self>, (usize, Self::Err)> {
        let lines = (1..).zip(text.lines().map(str::trim));
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        lines.map(|(number, line)| line.parse().map_err(|problem| (number, problem))).collect()
    }
}

/// Reads and parses a file. An error text of `parse` continues a sentence that starts with flag and path.
pub(super) fn read_secret<T>(
    flag: &'static str,
    path: &Path,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, SecretFileError> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|cause| SecretFileError::new(flag, path, format!(" can't be read ({cause})")))?;
    parse(without_mark(&text)).map_err(|problem| SecretFileError::new(flag, path, problem))
}

/// Reads the secrets on the lines of a file; `None` if the file has no secret, and no line `# none` that says so.
pub(super) fn read_secrets<T: SecretLine>(path: &Path) -> Result<Option<Vec<T>>, SecretFileError> {
    let parse = |text: &str| {
        let lines = T::lines(text).map_err(|(line, cause)| format!(", line {line}: {cause}"))?;
        let is_none = |line: &str| line.trim_start_matches(['#', ' ']).to_ascii_lowercase().starts_with("none");
        let says_none = text.lines().any(|line| line.starts_with('#') && is_none(line));
        Ok((says_none || !lines.is_empty()).then_some(lines))
    };
    read_secret(T::FLAG, path, parse)
}

/// Error for a file that was emptied, perhaps while it is being rewritten.
pub(super) fn emptied<T: SecretLine>(path: &Path) -> SecretFileError {
    let problem = " is empty, but had keys before (comments are none): to remove all keys write the line `# none` into \
                   the file";
    SecretFileError::new(T::FLAG, path, problem)
}

/// Sources of a node's keys, webhook secrets and admin token.
#[derive(Debug, Clone, Default)]
pub struct SecretSources {
    /// Access keys, one per file.
    pub access: GivenKeys<AccessKey>,
    /// App keys outside the configuration file, one per line.
    pub apps: GivenKeys<AppKey>,
    /// Webhook secrets, one per line.
    pub webhooks: GivenKeys<WebhookSecret>,
    /// Headers of webhook requests, one per line.
    pub webhook_headers: GivenKeys<WebhookHeader>,
    /// Keys of external issuers of access tokens.
    pub tokens: TokenKeySources,
    /// File of the admin token, if there is one.
    pub admin: Option<AdminTokenSource>,
    /// Numbers of keys in the files, as last read.
    pub counts: LineCounts,
}

/// Number of keys that each file had when it was last read. Clones share the numbers.
#[derive(Debug, Clone, Default)]
pub struct LineCounts(Arc<Mutex<HashMap<PathBuf, usize>>>);

/// Keys of one kind, given in flags or in files named by flags.
#[derive(Debug, Clone)]
pub struct GivenKeys<K> {
    /// Keys given in flags directly.
    pub typed: Vec<K>,
    /// Files with keys, reloaded on change.
    pub files: Vec<PathBuf>,
}

/// Key files of external issuers, one key per file, reloaded on change.
#[derive(Debug, Clone, Default)]
pub struct TokenKeySources {
    /// Files with secrets for HS256.
    pub secrets: Vec<PathBuf>,
    /// PEM files with public keys.
    pub public_keys: Vec<PathBuf>,
    /// Files with key sets, which the token verifier reads.
    pub key_sets: Vec<PathBuf>,
}

/// File of the admin token, and the token that a reload replaces.
#[derive(Debug, Clone)]
pub struct AdminTokenSource {
    /// Path of the file.
    pub file: PathBuf,
    /// Current token of the admin port.
    pub in_force: AdminTokenInForce,
}

impl SecretLine for AppKey {
    const FLAG: &'static str = "--app-key-file";
}

impl SecretLine for WebhookSecret {
    const FLAG: &'static str = "--webhook-secret-file";
}

impl SecretLine for WebhookHeader {
    const FLAG: &'static str = "--webhook-header-file";
}

impl SecretSources {
    /// Records the number of keys in each file. Files that can't be read were reported before.
    pub(crate) fn count_lines(&self) {
        drop((self.apps.read_lines_again(&self.counts), self.webhooks.read_lines_again(&self.counts)));
        drop(self.webhook_headers.read_lines_again(&self.counts));
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let keys = self.access.files.iter().chain(&self.apps.files).chain(&self.webhooks.files);
        let keys = keys.chain(&self.webhook_headers.files);
        let TokenKeySources { secrets, public_keys, key_sets } = &self.tokens;
        let of_tokens = secrets.iter().chain(public_keys).chain(key_sets);
        keys.chain(of_tokens).chain(self.admin.as_ref().map(|admin| &admin.file))
    }
}

impl LineCounts {
    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K> Default for GivenKeys<K> {
    fn default() -> Self {
        Self { typed: Vec::new(), files: Vec::new() }
    }
}

impl<K> GivenKeys<K> {
    /// Returns whether no flag gives or names a key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.typed.is_empty() && self.files.is_empty()
    }
}

impl GivenKeys<AccessKey> {
    /// Returns all keys, reading the files.
    ///
    /// # Errors
    /// If a file can't be read or has no valid key.
    pub fn read(&self) -> Result<Vec<AccessKey>, SecretFileError> {
        let parse = |text: &str| AccessKey::new(text).map_err(|cause| format!(": {cause}"));
        let in_files = self.files.iter().map(|path| read_secret("--access-key-file", path, parse));
        self.typed.iter().cloned().map(Ok).chain(in_files).collect()
    }
}

impl<K: SecretLine> GivenKeys<K> {
    /// Returns all keys, reading the lines of the files.
    ///
    /// # Errors
    /// If a file can't be read or has an invalid line.
    pub fn read_lines(&self) -> Result<Vec<K>, SecretFileError> {
        self.read_lines_again(&LineCounts::default())
    }

    /// Reads all keys like [`read_lines`](Self::read_lines), and records the number of keys in each file. Also fails if
    /// a file that had keys before is empty: it was truncated by accident.
    pub(crate) fn read_lines_again(&self, counts: &LineCounts) -> Result<Vec<K>, SecretFileError> {
        let mut keys = self.typed.clone();
        for path in &self.files {
            let (read, mut counts) = (read_secrets(path)?, counts.lock());
            if read.is_none() && counts.get(path).is_some_and(|count| *count > 0) {
                return Err(emptied::<K>(path));
            }
            counts.insert(path.clone(), read.as_ref().map_or(0, Vec::len));
            keys.extend(read.into_iter().flatten());
        }
        Ok(keys)
    }
}

impl TokenKeySources {
    /// Returns all keys, reading the files.
    ///
    /// # Errors
    /// If a file can't be read or has no valid key.
    pub fn read(&self) -> Result<Vec<VerifyingKey>, SecretFileError> {
        let secret = |text: &str| VerifyingKey::from_secret(text).map_err(|cause| format!(" {cause}"));
        let public = |text: &str| VerifyingKey::from_pem(text).map_err(|cause| format!(" {cause}"));
        let secrets = self.secrets.iter().map(|path| read_secret("--jwt-secret-file", path, secret));
        secrets.chain(self.public_keys.iter().map(|path| read_secret("--jwt-public-key", path, public))).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.secrets.is_empty() && self.public_keys.is_empty()
    }

    /// Returns a line per file with the kind of its key, for people.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let (secrets, public) = (self.secrets.iter().map(|file| ("--jwt-secret-file", file)), self.public_keys.iter());
        let files = secrets.chain(public.map(|file| ("--jwt-public-key", file)));
        files
            .zip(self.read().unwrap_or_default())
            .map(|((flag, file), key)| format!("{flag} {}: {key}", file.display()))
    }
}

impl AdminTokenSource {
    /// Reads the token from a file.
    ///
    /// # Errors
    /// If the file can't be read or has no valid token.
    pub fn read(file: &Path) -> Result<AdminToken, SecretFileError> {
        read_secret("--admin-token-file", file, |text| AdminToken::new(text).map_err(|problem| format!(" {problem}")))
    }
}

/// Webhook secret of some hubs, which signs instead of the access key. All secrets of a hub sign each request, so
/// secrets can be rotated without a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookSecret {
    hubs: Pattern,
    secret: AccessKey,
}

impl WebhookSecret {
    /// Returns the secret if it applies to this hub. The hub name must be in lower case.
    pub(crate) fn of(&self, hub: &str) -> Option<&AccessKey> {
        self.hubs.matches(hub).then_some(&self.secret)
    }

    /// Hubs as in the setting.
    pub(crate) fn hubs(&self) -> &str {
        &self.hubs.text
    }

    /// Whether a hub of this pattern may have this secret.
    pub(crate) fn may_sign_for(&self, hubs: &Pattern) -> bool {
        self.hubs.may_share(hubs)
    }
}

impl FromStr for WebhookSecret {
    type Err = String;

    /// Parses `HUB=SECRET`. No error text contains the secret.
    fn from_str(text: &str) -> Result<Self, String> {
        let pair = text.split_once('=');
        let pair =
            pair.and_then(|(hubs, secret)| Some((Pattern::new(&hubs.trim().to_ascii_lowercase()).ok()?, secret)));
        let (hubs, secret) =
            pair.ok_or("is not `HUB=SECRET`, such as `chat=…`, or `*=…` for all hubs with webhooks")?;
        let secret = AccessKey::new(secret).map_err(|problem| format!("its secret can't be used: {problem}"))?;
        Ok(Self { hubs, secret })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_a_byte_order_mark_holds_what_it_would_hold_without() {
        let file = std::env::temp_dir().join(format!("trunkline-marked-secret-{}", std::process::id()));
        let files = || vec![file.clone()];
        for mark in ["", "\u{feff}"] {
            let write = |text: &str| std::fs::write(&file, format!("{mark}{text}\r\n")).unwrap();
            write("shop=0123456789abcdef");
            let apps = GivenKeys::<AppKey> { files: files(), ..GivenKeys::default() }.read_lines().unwrap();
            assert_eq!(apps.iter().map(AppKey::name).collect::<Vec<_>>(), ["shop"], "{mark:?}");
            write("chat=0123456789abcdef");
            let webhooks = GivenKeys::<WebhookSecret> { files: files(), ..GivenKeys::default() }.read_lines().unwrap();
            assert!(webhooks.iter().all(|secret| secret.of("chat").is_some()), "{mark:?}");
            write("0123456789abcdef");
            assert!(AdminTokenSource::read(&file).unwrap().is("0123456789abcdef"), "{mark:?}");
            let access = GivenKeys::<AccessKey> { files: files(), ..GivenKeys::default() }.read().unwrap();
            assert_eq!(access.first().map(AccessKey::expose), Some("0123456789abcdef"), "{mark:?}");
            // 15 bytes: a byte order mark that counted would make the secret long enough.
            write("0123456789abcde");
            let tokens = TokenKeySources { secrets: files(), ..TokenKeySources::default() };
            assert!(tokens.read().is_err(), "{mark:?}");
        }
        std::fs::remove_file(&file).unwrap();
    }

    #[test]
    fn a_file_has_a_key_on_each_line() {
        const KEY: &str = "0123456789abcdefgh";
        let text = format!("# Apps.\n\nshop={KEY};shop;orders\r\n  news = {KEY}\n");
        let keys = AppKey::lines(&text).unwrap();
        assert_eq!(
            keys.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["app key shop: hubs shop, orders", "app key news: hubs news, news_*"]
        );
        let (line, problem) = AppKey::lines("\nshop").unwrap_err();
        assert!(line == 2 && problem.starts_with("is not `NAME=KEY`"), "{problem}");
    }

    #[test]
    fn a_secret_is_for_the_hubs_that_it_names() {
        let secrets = WebhookSecret::lines("# Ours.\nChat = 0123456789abcdef==\n\nshop_*=fedcba9876543210\n").unwrap();
        let of = |hub: &str| secrets.iter().filter_map(|one| one.of(hub)).map(AccessKey::expose).collect::<Vec<_>>();
        assert_eq!(of("chat"), ["0123456789abcdef=="]);
        assert_eq!(of("shop_news"), ["fedcba9876543210"]);
        assert!(of("news").is_empty());
    }

    #[test]
    fn an_invalid_text_is_refused_and_not_shown() {
        for (text, line) in [("0123456789abcdef", 1), ("\n=0123456789abcdef", 2), ("a=b\nc=0123456789abcdef", 1)] {
            let (number, problem) = WebhookSecret::lines(text).unwrap_err();
            assert_eq!(number, line, "{text}");
            assert!(!problem.to_string().contains("0123456789abcdef"), "{problem}");
        }
    }
}
