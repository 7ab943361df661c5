//! AES-256-GCM for Noise, from the library that TLS uses here. snow's own implementation, which sets up its key for
//! each record, takes 0.42 µs instead of 0.16 for 200 bytes, and 16 µs instead of 1.2 for 16 KiB.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use snow::Error;
use snow::types::Cipher;

const KEY_BYTES: usize = 32;
pub(crate) const TAG_BYTES: usize = 16;

/// Cipher with its key, which is set up once. It has no key until Noise has agreed on one.
#[derive(Default)]
pub(crate) struct AesGcm(Option<LessSafeKey>);

impl AesGcm {
    fn seal(&self, nonce: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> Option<usize> {
        let (sealed, rest) = out.split_at_mut_checked(plaintext.len())?;
        let tag = rest.get_mut(..TAG_BYTES)?;
        let key = self.0.as_ref()?;
        key.seal_out_of_place_scatter(nonce_of(nonce), Aad::from(authtext), plaintext, sealed, &[], tag).ok()?;
        Some(plaintext.len() + TAG_BYTES)
    }

    fn open(&self, nonce: u64, authtext: &[u8], ciphertext: &[u8], out: &mut [u8]) -> Option<usize> {
        let (sealed, tag) = ciphertext.split_last_chunk::<TAG_BYTES>()?;
        let plain = out.get_mut(..sealed.len())?;
        let key = self.0.as_ref()?;
        key.open_separate_gather(nonce_of(nonce), Aad::from(authtext), sealed, tag, plain).ok()?;
        Some(sealed.len())
    }
}

/// Noise's nonce for this cipher: four zero bytes, then the record number in big-endian order.
fn nonce_of(number: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    if let Some(place) = nonce.last_chunk_mut() {
        *place = number.to_be_bytes();
    }
    Nonce::assume_unique_for_key(nonce)
}

impl Cipher for AesGcm {
    fn name(&self) -> &'static str {
        "AESGCM"
    }

    fn set(&mut self, key: &[u8; KEY_BYTES]) {
        self.0 = UnboundKey::new(&AES_256_GCM, key).ok().map(LessSafeKey::new);
    }

    fn encrypt(&self, nonce: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        // Never 0: snow has checked all lengths, and calls no cipher without a key.
        self.seal(nonce, authtext, plaintext, out).unwrap_or_default()
    }

    fn decrypt(&self, nonce: u64, authtext: &[u8], ciphertext: &[u8], out: &mut [u8]) -> Result<usize, Error> {
        self.open(nonce, authtext, ciphertext, out).ok_or(Error::Decrypt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ciphers() -> [AesGcm; 2] {
        [(); 2].map(|()| {
            let mut cipher = AesGcm::default();
            cipher.set(&[7; KEY_BYTES]);
            cipher
        })
    }

    #[test]
    fn a_record_matches_the_test_vector_of_the_specification() {
        // Test case 14 of the GCM specification: key, nonce and text are zeros.
        let mut cipher = AesGcm::default();
        cipher.set(&[0; KEY_BYTES]);
        let mut sealed = [0; 32];
        assert_eq!(cipher.encrypt(0, &[], &[0; 16], &mut sealed), 32);
        let expected = 0xcea7_403d_4d60_6b6e_074e_c5d3_baf3_9d18_u128.to_be_bytes();
        let tag = 0xd0d1_c8a7_9999_6bf0_265b_98b5_d48a_b919_u128.to_be_bytes();
        assert_eq!(sealed, [expected, tag].concat()[..]);
    }

    #[test]
    fn a_changed_or_misplaced_record_is_not_opened() {
        let [near, far] = ciphers();
        let (mut sealed, mut plain) = ([0; 21], [0; 5]);
        assert_eq!(near.encrypt(3, b"head", b"hello", &mut sealed), 21);
        assert_eq!(far.decrypt(3, b"head", &sealed, &mut plain).unwrap(), 5);
        assert_eq!(&plain, b"hello");
        far.decrypt(4, b"head", &sealed, &mut plain).unwrap_err();
        far.decrypt(3, b"tail", &sealed, &mut plain).unwrap_err();
        far.decrypt(3, b"head", &sealed, &mut plain[..4]).unwrap_err();
        far.decrypt(3, b"head", &sealed[..15], &mut plain).unwrap_err();
        for place in 0..sealed.len() {
            sealed[place] ^= 1;
            far.decrypt(3, b"head", &sealed, &mut plain).unwrap_err();
            sealed[place] ^= 1;
        }
    }
}
