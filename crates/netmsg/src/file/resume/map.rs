//! The map file: which transfer a partial file belongs to, and which of its bytes are stored.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | `filemap2` |
//! | 32 | identity of the peer |
//! | 32 | SHA-256 of the whole file |
//! | 8 | size of the whole file |
//! | 2, then as many | length of the name, name in UTF-8 |
//! | 4, then 16 for each | number of stored ranges; begin and end of each, ascending |
//! | 32 | SHA-256 of all bytes before |
//!
//! Numbers are big-endian.

use super::super::name::{FilePath, MAX_PATH};
use super::ranges::{MAX_RANGES, Ranges};
use net_traits::CertHash;
use sha2::{Digest, Sha256};

/// What identifies a transfer. One that differs in any field begins anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transfer {
    pub(crate) peer: CertHash,
    pub(crate) name: FilePath,
    pub(crate) size: u64,
    pub(crate) hash: [u8; 32],
}

/// Returns the content of the map file.
pub(crate) fn encode(transfer: &Transfer, ranges: &Ranges) -> Vec<u8> {
    let name = transfer.name.as_str().as_bytes();
    let mut map = MAGIC.to_vec();
    map.extend(transfer.peer.as_bytes());
    map.extend(transfer.hash);
    map.extend(transfer.size.to_be_bytes());
    map.extend((name.len() as u16).to_be_bytes());
    map.extend(name);
    let stored = ranges.stored();
    map.extend((stored.len() as u32).to_be_bytes());
    for range in stored {
        map.extend(range.start.to_be_bytes());
        map.extend(range.end.to_be_bytes());
    }
    let checksum = Sha256::digest(&map);
    map.extend(checksum);
    map
}

/// Reads the content of a map file.
///
/// # Errors
///
/// [`MapError`] for everything that [`encode`] does not write.
pub(crate) fn decode(map: &[u8]) -> Result<(Transfer, Ranges), MapError> {
    let (map, checksum) = map.split_last_chunk::<32>().ok_or(MapError::Truncated)?;
    if Sha256::digest(map)[..] != checksum[..] {
        return Err(MapError::Checksum);
    }
    let mut rest = map;
    if take(&mut rest)? != *MAGIC {
        return Err(MapError::Version);
    }
    let peer = CertHash::from_bytes(take(&mut rest)?);
    let hash = take(&mut rest)?;
    let size = u64::from_be_bytes(take(&mut rest)?);
    let length = u16::from_be_bytes(take(&mut rest)?).into();
    let (name, mut rest) = rest.split_at_checked(length).ok_or(MapError::Truncated)?;
    let name = FilePath::parse(name).map_err(|_| MapError::Content)?;
    let mut ranges = Ranges::new(size);
    for _ in 0..u32::from_be_bytes(take(&mut rest)?) {
        let (start, end) = (take(&mut rest)?, take(&mut rest)?);
        let range = u64::from_be_bytes(start)..u64::from_be_bytes(end);
        ranges.insert(range).map_err(|_| MapError::Content)?;
    }
    match rest {
        [] => Ok((Transfer { peer, name, size, hash }, ranges)),
        _ => Err(MapError::Content),
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], MapError> {
    let (taken, left) = rest.split_first_chunk().ok_or(MapError::Truncated)?;
    *rest = left;
    Ok(*taken)
}

/// Why a file is not a map.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MapError {
    #[error("it is too short")]
    Truncated,
    #[error("its checksum does not match")]
    Checksum,
    #[error("it has another format or version")]
    Version,
    #[error("its name or its ranges are invalid")]
    Content,
}

/// The first bytes of a map file, with its version.
const MAGIC: &[u8; 8] = b"filemap2";

/// The largest map file, in bytes: all fields, the longest name and the most ranges.
pub(crate) const MAX_BYTES: usize = 8 + 32 + 32 + 8 + 2 + MAX_PATH + 4 + 16 * MAX_RANGES + 32;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn transfer(name: &str, content: &[u8]) -> Transfer {
        Transfer {
            peer: CertHash::from_bytes([7; 32]),
            name: FilePath::parse(name.as_bytes()).unwrap(),
            size: content.len() as u64,
            hash: Sha256::digest(content).into(),
        }
    }

    fn sealed(mut map: Vec<u8>) -> Vec<u8> {
        let checksum = Sha256::digest(&map);
        map.extend(checksum);
        map
    }

    #[test]
    fn the_largest_map_has_the_stated_size() {
        let longest = vec!["n".repeat(204); 5].join("/");
        assert_eq!(longest.len(), MAX_PATH);
        let transfer = Transfer { size: u64::MAX, ..transfer(&longest, b"") };
        let mut ranges = Ranges::new(u64::MAX);
        for index in 0..MAX_RANGES as u64 {
            ranges.insert(2 * index..2 * index + 1).unwrap();
        }
        let map = encode(&transfer, &ranges);
        assert_eq!(map.len(), MAX_BYTES);
        assert_eq!(decode(&map), Ok((transfer, ranges)));
    }

    #[test]
    fn a_map_with_a_valid_checksum_is_still_checked() {
        let transfer = transfer("a", &[0; 100]);
        let mut ranges = Ranges::new(100);
        ranges.insert(10..20).unwrap();
        let map = encode(&transfer, &ranges);
        let fields = &map[..map.len() - 32];
        let mut version = fields.to_vec();
        version[7] = b'1';
        assert_eq!(decode(&sealed(version)), Err(MapError::Version));
        let (mut outside, end) = (fields.to_vec(), fields.len());
        outside[end - 8..].copy_from_slice(&101_u64.to_be_bytes());
        assert_eq!(decode(&sealed(outside)), Err(MapError::Content));
        let mut path = fields.to_vec();
        path[82] = b'/'; // an empty part
        assert_eq!(decode(&sealed(path)), Err(MapError::Content));
        assert_eq!(decode(&sealed([fields, b"more"].concat())), Err(MapError::Content));
        assert_eq!(decode(&sealed(fields[..end - 1].to_vec())), Err(MapError::Truncated));
    }

    proptest! {
        #[test]
        fn maps_are_read_as_written_and_damage_is_found(
            cuts in proptest::collection::btree_set(0..10_000_u64, 0..40),
            damaged in any::<proptest::sample::Index>(),
            bit in 0..8_u8,
            length in any::<proptest::sample::Index>(),
        ) {
            let transfer = transfer("name", &[0; 10_000]);
            let mut ranges = Ranges::new(10_000);
            for pair in Vec::from_iter(cuts).chunks_exact(2) {
                ranges.insert(pair[0]..pair[1]).unwrap();
            }
            let mut map = encode(&transfer, &ranges);
            prop_assert_eq!(decode(&map), Ok((transfer, ranges)));
            prop_assert!(decode(&map[..length.index(map.len())]).is_err());
            let damaged = damaged.index(map.len());
            map[damaged] ^= 1 << bit;
            prop_assert_eq!(decode(&map), Err(MapError::Checksum));
        }

        #[test]
        fn arbitrary_bytes_cause_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(decode(&bytes).is_err());
            let _ = decode(&sealed([&MAGIC[..], &bytes].concat()));
        }
    }
}
