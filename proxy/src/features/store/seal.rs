//! Seal of stored values: other clients of the engine can neither read nor forge them.
//!
//! ```text
//!  access keys ─ seal ─► data key ─┬─ AES-256-GCM-SIV, bound to prefix and key ─► values
//!                                  └─ HMAC of the names, of one length ─────────► keys
//! ```
//!
//! The data key is random and made once per store. Any access key opens the data key, the first one seals it, so a
//! rotation of the access keys rewrites one value.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::{hmac, rand};
use bytes::Bytes;
use trunkline_protocol::key::{AccessKeys, Purpose};

use super::stored_record::Record;

/// Version of all stored values, in their first byte.
const VERSION: u8 = 1;

const KEY_BYTES: usize = 32;

/// Maximum size of a stored value. Longest names of a membership: user and group.
pub(super) const VALUE_MAX_BYTES: usize = 256 * 1024;

/// Keys of the stored values of one fleet.
pub(super) struct DataKey {
    prefix: String,
    bytes: [u8; 2 * KEY_BYTES],
    cipher: LessSafeKey,
    names: hmac::Key,
}

impl std::fmt::Debug for DataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DataKey of {}", self.prefix)
    }
}

impl DataKey {
    /// Creates a random key. Fails only without entropy of the system.
    pub(super) fn random(prefix: &str) -> Result<Self, Unspecified> {
        let mut bytes = [0; 2 * KEY_BYTES];
        rand::fill(&mut bytes)?;
        Self::new(prefix, bytes)
    }

    fn new(prefix: &str, bytes: [u8; 2 * KEY_BYTES]) -> Result<Self, Unspecified> {
        let (cipher, names) = bytes.split_at(KEY_BYTES);
        let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, cipher)?);
        let names = hmac::Key::new(hmac::HMAC_SHA256, names);
        Ok(Self { prefix: prefix.to_owned(), bytes, cipher, names })
    }

    /// Seals this key with the first access key.
    pub(super) fn seal_key(&self, keys: &AccessKeys) -> Bytes {
        keys.seal(Purpose::StoreKey, &[&self.bytes[..], self.prefix.as_bytes()].concat()).into()
    }

    /// Opens a data key with any access key. Also returns whether the first one has sealed it.
    pub(super) fn open_key(prefix: &str, sealed: &[u8], keys: &AccessKeys) -> Option<(Self, bool)> {
        let open = |keys: &AccessKeys| keys.open(Purpose::StoreKey, std::str::from_utf8(sealed).ok()?).ok();
        let plain = open(keys)?;
        let (bytes, of) = plain.split_first_chunk()?;
        let first = AccessKeys::new(keys.iter().take(1).collect()).ok()?;
        let key = Self::new(prefix, *bytes).ok().filter(|_| of == prefix.as_bytes())?;
        Some((key, open(&first).is_some()))
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }

    /// Key of a record: its kind, and a hash of the names that identify it.
    pub(super) fn key_of(&self, record: &Record) -> String {
        let (kind, names) = record.identity();
        format!("{kind}.{}", self.hash_of(kind, &names))
    }

    /// Hash of the names that identify something of this kind.
    pub(super) fn hash_of(&self, kind: &str, names: &[Option<&str>]) -> String {
        let mut context = hmac::Context::with_key(&self.names);
        context.update(kind.as_bytes());
        for name in names {
            // An absent name differs from an empty one.
            context.update(&name.map_or(u64::MAX, |name| name.len() as u64).to_be_bytes());
            context.update(name.unwrap_or_default().as_bytes());
        }
        context.sign().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(super) fn seal(&self, key: &str, record: &Record) -> Result<Bytes, Unspecified> {
        self.seal_bytes(key, serde_json::to_vec(record).map_err(|_| Unspecified)?)
    }

    pub(super) fn seal_bytes(&self, key: &str, plain: Vec<u8>) -> Result<Bytes, Unspecified> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce)?;
        let (mut sealed, once) = (plain, Nonce::assume_unique_for_key(nonce));
        self.cipher.seal_in_place_append_tag(once, self.place(key, VERSION), &mut sealed)?;
        Ok([&[VERSION][..], &nonce, &sealed].concat().into())
    }

    /// Opens a value. `None` if another client has written or copied it, or a later version of the node.
    pub(super) fn open(&self, key: &str, value: &[u8]) -> Option<Record> {
        let plain = self.open_bytes(key, value).filter(|_| value.len() <= VALUE_MAX_BYTES)?;
        let record = serde_json::from_slice(&plain).ok()?;
        (self.key_of(&record) == key).then_some(record)
    }

    pub(super) fn open_bytes(&self, key: &str, value: &[u8]) -> Option<Vec<u8>> {
        let (version, rest) = value.split_first().filter(|(version, _)| **version == VERSION)?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let (mut plain, once) = (sealed.to_vec(), Nonce::assume_unique_for_key(*nonce));
        let opened = self.cipher.open_in_place(once, self.place(key, *version), &mut plain).ok()?.len();
        plain.truncate(opened);
        Some(plain)
    }

    /// Place in the store, to which a seal is bound.
    fn place(&self, key: &str, version: u8) -> Aad<Vec<u8>> {
        Aad::from([&[version][..], self.prefix.as_bytes(), b"\0", key.as_bytes()].concat())
    }
}

#[cfg(test)]
mod tests {
    use trunkline_protocol::fleet::SharedRevocation;
    use trunkline_protocol::key::AccessKey;

    use super::*;
    use crate::features::user_group::StoredMembership;

    fn membership(group: &str) -> Record {
        let [hub, user] = ["chat", "ann"].map(Into::into);
        Record::Membership(StoredMembership { hub, user, group: group.into(), until_ms: 5, changed_ms: 3 })
    }

    fn revocation(user: Option<&str>, audience: Option<&str>) -> Record {
        let [user, audience] = [user, audience].map(|name| name.map(Into::into));
        let (app, issued_before_s, kept_until_s, closed_ms) = (None, 1, 2, 0);
        Record::Revocation(SharedRevocation { user, audience, app, issued_before_s, kept_until_s, closed_ms })
    }

    #[test]
    fn a_value_opens_only_at_its_key_in_its_store() {
        let key = DataKey::random("one").unwrap();
        let (red, blue) = (membership("red"), membership("blue"));
        let at = key.key_of(&red);
        let sealed = key.seal(&at, &red).unwrap();
        assert_eq!(key.open(&at, &sealed), Some(red.clone()));
        assert_eq!(key.open(&key.key_of(&blue), &sealed), None, "copied to another key");
        let other = DataKey::new("two", key.bytes).unwrap();
        assert_eq!(other.open(&at, &sealed), None, "copied to another store");
        for at_byte in 0..sealed.len() {
            let mut changed = sealed.to_vec();
            changed[at_byte] ^= 1;
            assert_eq!(key.open(&at, &changed), None, "byte {at_byte}");
            assert!(key.open(&at, &sealed[..at_byte]).is_none());
        }
        assert_ne!(sealed, key.seal(&at, &red).unwrap(), "equal records can't be recognised");
    }

    #[test]
    fn keys_have_one_length_and_depend_on_each_name() {
        let key = DataKey::random("one").unwrap();
        let of = |user, audience| key.key_of(&revocation(user, audience));
        let long = "é".repeat(1024);
        let names = [
            of(None, None),
            of(Some(""), None),
            of(None, Some("")),
            of(Some("ab"), Some("c")),
            of(Some("a"), Some("bc")),
            of(Some(&long), None),
            of(Some(".*>\n\0 "), None),
        ];
        assert!(names.iter().all(|name| name.len() == names[0].len()), "{names:?}");
        assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), names.len());
        assert!(!names.contains(&DataKey::random("one").unwrap().key_of(&revocation(None, None))));
    }

    #[test]
    fn any_access_key_opens_the_data_key_and_the_first_seals_it_again() {
        let ring = |keys: &[&AccessKey]| AccessKeys::new(keys.iter().map(|key| (*key).clone()).collect()).unwrap();
        let (old, new) = (AccessKey::random(), AccessKey::random());
        let key = DataKey::random("one").unwrap();
        let sealed = key.seal_key(&ring(&[&old]));
        let open = |sealed: &Bytes, keys: &[&AccessKey]| {
            DataKey::open_key("one", sealed, &ring(keys)).map(|(opened, is_first)| (opened.is(&key), is_first))
        };
        assert_eq!(open(&sealed, &[&old]), Some((true, true)));
        assert_eq!(open(&sealed, &[&new, &old]), Some((true, false)));
        let again = key.seal_key(&ring(&[&new, &old]));
        assert_eq!(open(&again, &[&new]), Some((true, true)));
        assert_eq!(open(&again, &[&old]), None);
        assert!(DataKey::open_key("two", &sealed, &ring(&[&old])).is_none(), "of another prefix");
        assert!(DataKey::open_key("one", b"rubbish", &ring(&[&old])).is_none());
    }
}
