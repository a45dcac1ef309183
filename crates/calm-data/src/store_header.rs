//! The first 256 bytes of a token cache: what is in the file, for whom, and its checksums.

use sha2::{Digest, Sha256};

/// Length of the header in bytes; a multiple of 4, so that the ids after it are aligned.
pub(crate) const HEADER_BYTES: usize = 256;

const MAGIC: &[u8; 8] = b"CALMTOK\n";

/// Changes with the layout of the file and with the way texts become documents: both make old
/// caches unfit.
pub(crate) const FORMAT_VERSION: u64 = 2;

/// The u64 after the magic bytes.
const NUMBERS: usize = 9;

/// Where the header's own checksum stands; everything before it is covered.
const CHECKSUM_AT: usize = HEADER_BYTES - 32;

/// Layout, little-endian: magic, nine u64 (version first), three 32-byte digests (key, fingerprint,
/// body), zeros, header checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// Tokens of each part, in the order of `Part::ALL`.
    pub tokens: [u64; 3],
    /// Documents, and stretches of them, in each part.
    pub documents: [u64; 3],
    pub bad_lines: u64,
    pub vocab_size: u64,
    /// Digest of corpus, tokenizer, split and version.
    pub key: [u8; 32],
    /// The tokenizer's fingerprint, as bytes.
    pub fingerprint: [u8; 32],
    /// sha256 of all ids as they lie in the file.
    pub body: [u8; 32],
}

impl Header {
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend(MAGIC);
        let counts = self.tokens.into_iter().chain(self.documents);
        for number in [FORMAT_VERSION]
            .into_iter()
            .chain(counts)
            .chain([self.bad_lines, self.vocab_size])
        {
            bytes.extend(number.to_le_bytes());
        }
        for digest in [&self.key, &self.fingerprint, &self.body] {
            bytes.extend(digest);
        }
        bytes.resize(CHECKSUM_AT, 0);
        bytes.extend(Sha256::digest(&bytes));
        let mut header = [0; HEADER_BYTES];
        header.copy_from_slice(&bytes);
        header
    }

    /// Parses and checks the header; the error says what is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let Some(header) = bytes.get(..HEADER_BYTES) else {
            return Err(format!("{} bytes are less than a header", bytes.len()));
        };
        if !header.starts_with(MAGIC) {
            return Err("it is no token cache (wrong magic bytes)".to_string());
        }
        let number = |index: usize| {
            let at = MAGIC.len() + 8 * index;
            header[at..at + 8]
                .iter()
                .rev()
                .fold(0_u64, |value, &b| value << 8 | u64::from(b))
        };
        let digest = |index: usize| {
            let at = MAGIC.len() + 8 * NUMBERS + 32 * index;
            let mut digest = [0; 32];
            digest.copy_from_slice(&header[at..at + 32]);
            digest
        };
        let version = number(0);
        if version != FORMAT_VERSION {
            return Err(format!(
                "format version {version}, this program reads {FORMAT_VERSION}"
            ));
        }
        if Sha256::digest(&header[..CHECKSUM_AT])[..] != header[CHECKSUM_AT..] {
            return Err("the header's checksum does not match".to_string());
        }
        Ok(Self {
            tokens: [1, 2, 3].map(number),
            documents: [4, 5, 6].map(number),
            bad_lines: number(7),
            vocab_size: number(8),
            key: digest(0),
            fingerprint: digest(1),
            body: digest(2),
        })
    }

    /// Length of the whole file, `None` where the counts cannot be those of a file.
    pub fn file_bytes(&self) -> Option<u64> {
        let sum = |sum: u64, &tokens| sum.checked_add(tokens);
        let tokens = self.tokens.iter().try_fold(0, sum)?;
        tokens.checked_mul(4)?.checked_add(HEADER_BYTES as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            tokens: [1, 1 << 40, 2],
            documents: [3, 4, 5],
            bad_lines: 5,
            vocab_size: 6,
            key: [7; 32],
            fingerprint: [8; 32],
            body: [9; 32],
        }
    }

    #[test]
    fn a_header_survives_its_bytes() {
        assert_eq!(Header::from_bytes(&header().to_bytes()).unwrap(), header());
        assert_eq!(header().file_bytes(), Some(256 + 4 * ((1 << 40) + 3)));
        assert_eq!(
            Header {
                tokens: [u64::MAX, 1, 0],
                ..header()
            }
            .file_bytes(),
            None
        );
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let bytes = header().to_bytes();
        for at in 0..HEADER_BYTES {
            let mut bad = bytes;
            bad[at] ^= 0x10;
            assert!(Header::from_bytes(&bad).is_err(), "byte {at}");
        }
        assert!(Header::from_bytes(&bytes[..255]).is_err());
    }
}
