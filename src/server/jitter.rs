//! A little randomness: clients that were sent away together should not come back together.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::ops::Range;

/// A number of the range, another one each time. Not for secrets.
pub fn pick(range: Range<u64>) -> u64 {
    range.start + RandomState::new().build_hasher().finish() % (range.end - range.start)
}
