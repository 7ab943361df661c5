//! Access keys, shared by a fleet, and the subkeys derived from them.
//!
//! Each purpose has its own subkeys (HKDF-SHA-256 of the key, with the purpose as info), so a value sealed for one
//! purpose can't be opened for another. The raw key signs only JWTs, which are also created with other tools.
//!
//! ```text
//!  sealed value: salt (12 bytes) │ nonce (12) │ text │ tag (16)     key of AES-256-GCM: HKDF(access key, salt, purpose)
//! ```
//!
//! Salt and nonce are random. GCM fails if two values share key and nonce, which needs 192 equal bits: the probability
//! is 2^-65 after 2^64 values of one access key. About 2^48 values have different salts, so no derived key comes near
//! the 2^32 random nonces that it allows.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::id::random_bytes;
use crate::limits::{ACCESS_KEY_MIN_BYTES, MARK_MAX_CHARS, TOKEN_MAX_CHARS};
use crate::public_text::public_text;

/// Environment variable with comma-separated access keys.
pub const ACCESS_KEY_VARIABLE: &str = "TRUNKLINE_ACCESS_KEY";

/// Environment variable with names of files containing one access key each, as supervisors pass secrets.
pub const ACCESS_KEY_FILE_VARIABLE: &str = "TRUNKLINE_ACCESS_KEY_FILE";

/// As long as the nonce: the first 16 bytes of a sealed value, which may be a table key, are random.
const SALT_BYTES: usize = 12;

/// Byte order mark U+FEFF, with which Windows marks Unicode files.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Keys with less estimated entropy look typed. 16 random bytes in hexadecimal have about 115 bits.
const TYPED_BELOW_BITS: f64 = 80.0;

/// Error in an access key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccessKeyError {
    /// The key is short enough to be guessed.
    #[error(
        "access key has {length} bytes, but needs at least {ACCESS_KEY_MIN_BYTES}: `trunkline token key` makes one"
    )]
    TooShort {
        /// Length of the given key in bytes.
        length: usize,
    },
    /// The text contains more than a key, such as a comment or several lines.
    #[error(
        "access key contains a line break, a comment or an invisible character: give one key in a file, without \
         comments"
    )]
    NotOneKey,
    /// The text is published, or belongs elsewhere.
    #[error("access key is {0}")]
    Public(&'static str),
    /// No key was given.
    #[error("no access key was given: `trunkline token key` makes one")]
    None,
}

/// Error opening a sealed text. Peers receive no further details.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("sealed by another key, for another purpose, or damaged")]
pub struct OpenError;

/// Purpose of a sealed value. Values can't be opened for another purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Connection tokens of clients.
    ConnectionToken,
    /// Marks of requests forwarded between nodes.
    ForwardMark,
    /// Data key of the fleet's store.
    StoreKey,
}

impl Purpose {
    fn max_chars(self) -> usize {
        match self {
            Purpose::ConnectionToken => TOKEN_MAX_CHARS,
            Purpose::ForwardMark | Purpose::StoreKey => MARK_MAX_CHARS,
        }
    }

    fn info(self) -> &'static [u8] {
        match self {
            Purpose::ConnectionToken => b"trunkline 1 connection token",
            Purpose::ForwardMark => b"trunkline 1 forward mark",
            Purpose::StoreKey => b"trunkline 1 store key",
        }
    }
}

/// Kind of a channel's peer. A key holder authenticates as one kind, so traffic for one kind can't be redirected to
/// another: a forwarded client request never reaches an admin port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerKind {
    /// App server dialled by a proxy.
    AppServer,
    /// Admin port of a node, dialled by another node for node links, queries and commands.
    NodeAdmin,
    /// Client port of a node, to which another node forwards client requests.
    NodeClients,
    /// Node at which an app server dials in, with the key of the fleet or of its app.
    DialIn,
}

const KEY_TAG_BYTES: usize = 12;

/// Public tag of a key for channels to one kind of peer. A hello is sent with the tag of its key, so that the peer
/// tries only that key. The tag is fixed and derived one way; it allows the same offline guesses of the key as a hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyTag([u8; KEY_TAG_BYTES]);

impl KeyTag {
    /// Parses a tag from a header.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; KEY_TAG_BYTES];
        (URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) == Ok(KEY_TAG_BYTES)).then_some(Self(bytes))
    }
}

impl fmt::Display for KeyTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

/// Secret of the handshake of a channel, and the tag of its key.
#[derive(Clone)]
pub struct ChannelSecret {
    /// Tag sent with the hello.
    pub tag: KeyTag,
    /// Secret that both ends prove.
    pub secret: [u8; 32],
}

impl ChannelSecret {
    fn new(key: &AccessKey, peer_kind: PeerKind) -> Self {
        let secret = subkey(key, peer_kind.name());
        let mut tag = [0; KEY_TAG_BYTES];
        expand(&secret, b"trunkline 1 tag of a channel key", &mut tag);
        Self { tag: KeyTag(tag), secret }
    }
}

impl fmt::Debug for ChannelSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChannelSecret({})", self.tag)
    }
}

impl PeerKind {
    const ALL: [PeerKind; 4] = [PeerKind::AppServer, PeerKind::NodeAdmin, PeerKind::NodeClients, PeerKind::DialIn];

    /// Name of the kind, which both ends bind into the handshake.
    #[must_use]
    pub fn name(self) -> &'static [u8] {
        match self {
            PeerKind::AppServer => b"trunkline 2 channel to an app server",
            PeerKind::NodeAdmin => b"trunkline 2 channel to the admin port of a node",
            PeerKind::NodeClients => b"trunkline 2 channel to the client port of a node",
            PeerKind::DialIn => b"trunkline 2 channel to dial-in",
        }
    }
}

/// Access key: a secret text of at least 16 bytes, used literally (not base64-decoded), as in Azure.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessKey(Box<str>);

impl AccessKey {
    /// Parses a key. Surrounding white space and a leading byte order mark are removed. Fails if it is shorter than 16
    /// bytes, contains more than a key, or is a [public text](public_text).
    pub fn new(text: &str) -> Result<Self, AccessKeyError> {
        let text = without_mark(text).trim();
        if let Some(found) = public_text(text) {
            return Err(AccessKeyError::Public(found));
        }
        if !is_one_key(text) {
            return Err(AccessKeyError::NotOneKey);
        }
        if text.len() < ACCESS_KEY_MIN_BYTES {
            return Err(AccessKeyError::TooShort { length: text.len() });
        }
        Ok(Self(text.into()))
    }

    /// Generates a key of 32 random bytes, 43 URL-safe characters.
    #[must_use]
    pub fn random() -> Self {
        Self(URL_SAFE_NO_PAD.encode(random_bytes::<32>()).into())
    }

    /// Whether the key looks typed rather than generated: low entropy, or made of words. A heuristic for warnings only.
    #[must_use]
    pub fn looks_typed(&self) -> bool {
        entropy_bits(&self.0) < TYPED_BELOW_BITS || is_wordy(&self.0)
    }

    /// The secret itself, for storing it or signing JWTs.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessKey(secret)")
    }
}

/// Removes the byte order mark that Windows editors and shells write.
#[must_use]
pub fn without_mark(text: &str) -> &str {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
}

/// Whether a text is a single key. Typed keys may contain spaces, but no other white space or comments.
fn is_one_key(text: &str) -> bool {
    let is_foreign = |c: char| c == BYTE_ORDER_MARK || c.is_control() || (c.is_whitespace() && c != ' ');
    !text.contains(is_foreign) && !text.starts_with("# ") && !text.contains(" #")
}

/// Access keys of a fleet: the first one seals, all of them open. Two keys allow a rotation without interruption.
/// Clones share their keys, so [replacing](Self::replace) affects all of them.
#[derive(Clone)]
pub struct AccessKeys(Arc<RwLock<Arc<KeyRing>>>);

/// Keys at one time, with their derived subkeys.
struct KeyRing {
    keys: Vec<AccessKey>,
    channels: Vec<(PeerKind, ChannelSecret)>,
}

impl AccessKeys {
    /// Derives the subkeys of each key. Fails if the list is empty.
    pub fn new(keys: Vec<AccessKey>) -> Result<Self, AccessKeyError> {
        Ok(Self(Arc::new(RwLock::new(Arc::new(KeyRing::new(keys)?)))))
    }

    /// Replaces the keys here and in all clones. Open channels are unaffected. Fails if the list is empty; the old keys
    /// then stay.
    pub fn replace(&self, keys: Vec<AccessKey>) -> Result<(), AccessKeyError> {
        let ring = Arc::new(KeyRing::new(keys)?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = ring;
        Ok(())
    }

    /// The keys in order, for verifying JWTs.
    pub fn iter(&self) -> impl Iterator<Item = AccessKey> + use<> {
        self.ring().keys.clone().into_iter()
    }

    /// Handshake secrets for channels to this kind of peer, in the order of the keys.
    pub fn channel_secrets(&self, peer_kind: PeerKind) -> impl Iterator<Item = ChannelSecret> + use<> {
        let channels = self.ring().channels.clone();
        channels.into_iter().filter_map(move |(kind, secret)| (kind == peer_kind).then_some(secret))
    }

    /// Secret of the handshake with this tag. Nothing is computed.
    #[must_use]
    pub fn tagged_secret(&self, peer_kind: PeerKind, tag: KeyTag) -> Option<ChannelSecret> {
        let ring = self.ring();
        let found = ring.channels.iter().find(|(kind, secret)| (*kind, secret.tag) == (peer_kind, tag));
        found.map(|(_, secret)| secret.clone())
    }

    fn ring(&self) -> Arc<KeyRing> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Seals `plain` with the first key. Returns URL-safe text that starts with random bytes.
    #[must_use]
    pub fn seal(&self, purpose: Purpose, plain: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(seal_with(self.ring().first(), purpose, (random_bytes(), random_bytes()), plain))
    }

    /// Opens the output of [`seal`](Self::seal) with any of the keys. Fails if no key opens it, or it exceeds the
    /// maximum size of a token.
    pub fn open(&self, purpose: Purpose, sealed: &str) -> Result<Vec<u8>, OpenError> {
        if sealed.len() > purpose.max_chars() {
            return Err(OpenError);
        }
        let bytes = URL_SAFE_NO_PAD.decode(sealed).map_err(|_| OpenError)?;
        self.ring().keys.iter().find_map(|key| open_with(key, purpose, &bytes)).ok_or(OpenError)
    }
}

impl KeyRing {
    fn new(keys: Vec<AccessKey>) -> Result<Self, AccessKeyError> {
        if keys.is_empty() {
            return Err(AccessKeyError::None);
        }
        let channels = keys.iter().flat_map(|key| PeerKind::ALL.map(|kind| (kind, ChannelSecret::new(key, kind))));
        Ok(Self { channels: channels.collect(), keys })
    }

    fn first(&self) -> &AccessKey {
        let [first, ..] = self.keys.as_slice() else { unreachable!("`new` refuses an empty list") };
        first
    }
}

impl fmt::Debug for AccessKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccessKeys({} secrets)", self.ring().keys.len())
    }
}

/// Estimated entropy from the text's character frequencies, an upper bound of the effort to guess it.
fn entropy_bits(text: &str) -> f64 {
    let mut counts = [0u32; 256];
    text.bytes().for_each(|byte| {
        if let Some(count) = counts.get_mut(usize::from(byte)) {
            *count += 1;
        }
    });
    let total: f64 = counts.iter().map(|&count| f64::from(count)).sum();
    counts.iter().filter(|&&count| count > 0).map(|&count| f64::from(count) * (total / f64::from(count)).log2()).sum()
}

/// Whether letters and digits form runs as in words and years; in random text they alternate.
fn is_wordy(text: &str) -> bool {
    let class = |byte: u8| (byte.is_ascii_lowercase(), byte.is_ascii_uppercase(), byte.is_ascii_digit());
    let classes: Vec<_> = text.bytes().filter(u8::is_ascii_alphanumeric).map(class).collect();
    let changes = classes.windows(2).filter(|pair| pair.first() != pair.last()).count();
    changes * 5 < classes.len()
}

#[expect(clippy::expect_used, reason = "a few KiB are below the cipher's 64 GiB")]
fn seal_with(
    key: &AccessKey,
    purpose: Purpose,
    (salt, nonce): ([u8; SALT_BYTES], [u8; NONCE_LEN]),
    plain: &[u8],
) -> Vec<u8> {
    let mut text = plain.to_vec();
    let sealing = cipher(key, purpose, &salt).seal_in_place_append_tag(
        Nonce::assume_unique_for_key(nonce),
        Aad::empty(),
        &mut text,
    );
    sealing.expect("short texts can be sealed");
    [salt.as_slice(), &nonce, &text].concat()
}

fn open_with(key: &AccessKey, purpose: Purpose, sealed: &[u8]) -> Option<Vec<u8>> {
    let (salt, rest) = sealed.split_first_chunk()?;
    let (nonce, text) = rest.split_first_chunk()?;
    let mut text = text.to_vec();
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let length = cipher(key, purpose, salt).open_in_place(nonce, Aad::empty(), &mut text).ok()?.len();
    text.truncate(length);
    Some(text)
}

#[expect(clippy::expect_used, reason = "a key of 32 bytes can be derived")]
fn cipher(key: &AccessKey, purpose: Purpose, salt: &[u8; SALT_BYTES]) -> LessSafeKey {
    let extracted = Salt::new(HKDF_SHA256, salt).extract(key.0.as_bytes());
    let info = [purpose.info()];
    LessSafeKey::new(UnboundKey::from(extracted.expand(&info, &AES_256_GCM).expect("the cipher has a key")))
}

fn subkey(key: &AccessKey, info: &[u8]) -> [u8; 32] {
    let mut subkey = [0; 32];
    expand(key.0.as_bytes(), info, &mut subkey);
    subkey
}

/// Number of derived bytes.
struct Derived(usize);

impl KeyType for Derived {
    fn len(&self) -> usize {
        self.0
    }
}

#[expect(clippy::expect_used, reason = "keys and tags are below the 8160 bytes that HKDF-SHA-256 can give")]
fn expand(secret: &[u8], info: &[u8], output: &mut [u8]) {
    let (extracted, info) = (Salt::new(HKDF_SHA256, &[]).extract(secret), [info]);
    let derived = extracted.expand(&info, Derived(output.len()));
    derived.and_then(|derived| derived.fill(output)).expect("few bytes can be derived");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(texts: &[&str]) -> AccessKeys {
        AccessKeys::new(texts.iter().map(|text| AccessKey::new(text).unwrap()).collect()).unwrap()
    }

    #[test]
    fn a_short_key_is_refused_with_the_command_that_makes_one() {
        let error = AccessKey::new("  secret\n").unwrap_err();
        assert_eq!(error, AccessKeyError::TooShort { length: 6 });
        assert!(error.to_string().contains("trunkline token key"));
    }

    #[test]
    fn a_key_of_a_file_with_a_byte_order_mark_is_the_key() {
        let plain = AccessKey::new("a-key-that-is-long-enough").unwrap();
        for text in ["\u{feff}a-key-that-is-long-enough", "\u{feff}\r\n a-key-that-is-long-enough\r\n"] {
            assert_eq!(AccessKey::new(text).unwrap(), plain, "{text:?}");
        }
        assert!(AccessKey::new("a typed key, with blanks and # 1").is_err());
        assert_eq!(AccessKey::new("a typed key, with#blanks").unwrap().expose(), "a typed key, with#blanks");
    }

    #[test]
    fn a_key_with_a_comment_or_several_lines_is_refused_with_advice() {
        const KEY: &str = "a-key-that-is-long-enough";
        for text in [
            format!("# ours\n{KEY}"),
            format!("{KEY}\n{KEY}"),
            format!("{KEY} # ours"),
            format!("{KEY}\t{KEY}"),
            format!("{KEY}\u{feff}{KEY}"),
            format!("{KEY}\u{2028}{KEY}"),
            format!("{KEY}\u{a0}{KEY}"),
            format!("{KEY}\0"),
        ] {
            let problem = AccessKey::new(&text).unwrap_err();
            assert_eq!(problem, AccessKeyError::NotOneKey, "{text:?}");
            assert!(problem.to_string().ends_with("give one key in a file, without comments"), "{problem}");
        }
    }

    #[test]
    fn a_sealed_value_opens_again_and_is_url_safe() {
        let keys = keys(&["a key of the fleet, long enough"]);
        let sealed = keys.seal(Purpose::ConnectionToken, b"hello");
        assert!(sealed.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_'));
        assert_eq!(keys.open(Purpose::ConnectionToken, &sealed).unwrap(), b"hello");
    }

    #[test]
    fn derived_bytes_match_the_test_vector_of_rfc_5869() {
        let mut derived = [0; 42];
        expand(&[0x0b; 22], &[], &mut derived);
        let hex: String = derived.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8");
    }

    /// "hello" for a connection token with the bytes 0 to 23 as salt and nonce, by the Python package `cryptography`.
    const SEALED: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXEDyoosthqDTQJHoNu1tuJ4kek3Fr";

    #[test]
    fn a_sealed_value_is_as_other_tools_make_it() {
        let text = "a key of the fleet, long enough";
        assert_eq!(keys(&[text]).open(Purpose::ConnectionToken, SEALED).unwrap(), b"hello");
        let expected = URL_SAFE_NO_PAD.decode(SEALED).unwrap();
        let (salt, rest) = expected.split_first_chunk().unwrap();
        let (key, nonce) = (AccessKey::new(text).unwrap(), rest.split_first_chunk().unwrap().0);
        assert_eq!(seal_with(&key, Purpose::ConnectionToken, (*salt, *nonce), b"hello"), expected);
    }

    #[test]
    fn each_value_has_a_salt_and_a_nonce_of_its_own() {
        let keys = keys(&["a key of the fleet, long enough"]);
        let sealed = || URL_SAFE_NO_PAD.decode(keys.seal(Purpose::ForwardMark, b"hello")).unwrap();
        let [one, other] = [sealed(), sealed()];
        assert_eq!(one.len(), SALT_BYTES + NONCE_LEN + 5 + 16);
        assert!(one[..SALT_BYTES] != other[..SALT_BYTES] && one[SALT_BYTES..24] != other[SALT_BYTES..24]);
    }

    #[test]
    fn a_text_without_room_for_salt_nonce_and_tag_is_refused() {
        let keys = keys(&["a key of the fleet, long enough"]);
        for length in 0..SALT_BYTES + NONCE_LEN + 16 {
            let short = URL_SAFE_NO_PAD.encode(vec![7; length]);
            assert_eq!(keys.open(Purpose::ConnectionToken, &short), Err(OpenError), "{length}");
        }
    }

    #[test]
    fn a_sealed_value_opens_for_no_other_purpose() {
        let keys = keys(&["a key of the fleet, long enough"]);
        let sealed = keys.seal(Purpose::ConnectionToken, b"hello");
        assert_eq!(keys.open(Purpose::ForwardMark, &sealed), Err(OpenError));
    }

    #[test]
    fn during_a_rotation_both_keys_open_and_the_first_seals() {
        let (old, new) = ("the old key of the fleet", "the new key of the fleet");
        let sealed_before = keys(&[old]).seal(Purpose::ConnectionToken, b"x");
        let rotating = keys(&[new, old]);
        assert!(rotating.open(Purpose::ConnectionToken, &sealed_before).is_ok());
        assert!(keys(&[new]).open(Purpose::ConnectionToken, &rotating.seal(Purpose::ConnectionToken, b"x")).is_ok());
        assert!(keys(&[old]).open(Purpose::ConnectionToken, &rotating.seal(Purpose::ConnectionToken, b"x")).is_err());
    }

    #[test]
    fn keys_are_replaced_wherever_they_are_used() {
        let (old, new) = ("the old key of the fleet", "the new key of the fleet");
        let in_force = keys(&[old]);
        let elsewhere = in_force.clone();
        let sealed = elsewhere.seal(Purpose::ConnectionToken, b"x");
        assert_eq!(in_force.replace(Vec::new()), Err(AccessKeyError::None));
        assert!(elsewhere.open(Purpose::ConnectionToken, &sealed).is_ok(), "the old ones stay");
        in_force.replace(vec![AccessKey::new(new).unwrap()]).unwrap();
        assert!(elsewhere.open(Purpose::ConnectionToken, &sealed).is_err());
        assert_eq!(elsewhere.iter().map(|key| key.expose().to_owned()).collect::<Vec<_>>(), [new]);
        let secret =
            |keys: &AccessKeys| keys.channel_secrets(PeerKind::NodeAdmin).map(|one| one.secret).collect::<Vec<_>>();
        assert_eq!(secret(&elsewhere), secret(&keys(&[new])));
    }

    #[test]
    fn a_tag_identifies_a_key_for_one_kind_of_peer_and_reveals_no_secret() {
        let keys = keys(&["the old key of the fleet", "the new key of the fleet"]);
        let mut tags = std::collections::HashSet::new();
        for kind in PeerKind::ALL {
            for ChannelSecret { tag, secret } in keys.channel_secrets(kind) {
                assert!(tags.insert(tag));
                assert_eq!(KeyTag::parse(&tag.to_string()), Some(tag));
                assert!(!secret.windows(4).any(|part| tag.0.windows(4).any(|of_tag| of_tag == part)));
                for other in PeerKind::ALL {
                    let found = keys.tagged_secret(other, tag).map(|found| found.secret);
                    assert_eq!(found, (other == kind).then_some(secret), "{kind:?} {other:?}");
                }
            }
        }
        assert_eq!(tags.len(), 8);
        for wrong in ["", "AAAA", "!", &"A".repeat(15), &"A".repeat(17), &"A".repeat(10_000)] {
            assert_eq!(KeyTag::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn any_changed_character_makes_it_unreadable() {
        let keys = keys(&["a key of the fleet, long enough"]);
        let sealed = keys.seal(Purpose::ConnectionToken, b"hello");
        for at in 0..sealed.len() {
            let mut changed = sealed.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert!(keys.open(Purpose::ConnectionToken, std::str::from_utf8(&changed).unwrap()).is_err(), "at {at}");
        }
    }

    #[test]
    fn keys_of_words_look_typed_and_random_ones_do_not() {
        for typed in
            ["a-key-of-the-fleet-long-enough", "correct horse battery staple", "Summer2024Sale!!", "0123456789012345"]
        {
            assert!(AccessKey::new(typed).unwrap().looks_typed(), "{typed}");
        }
        for _ in 0..1000 {
            assert!(!AccessKey::random().looks_typed());
        }
        for made in [
            "9f86d081884c7d659a2feaa0c55ad015",
            "8c9d3b4a-61f2-4e07-b5a8-2d7c1e90f364",
            "q7Xk2mPz9RvT4wLs8NbY1cHd",
            "Zm9vYmFyMTIzNDU2Nzg5MGFiY2RlZmdoaWprbG1ub3A=",
        ] {
            assert!(!AccessKey::new(made).unwrap().looks_typed(), "{made}");
        }
    }

    #[test]
    fn keys_never_show_in_debug_output() {
        let key = AccessKey::random();
        let shown = format!("{key:?} {:?}", AccessKeys::new(vec![key.clone()]).unwrap());
        assert!(!shown.contains(key.expose()));
    }
}
