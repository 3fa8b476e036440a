//! The chunks of which subscribers have received only a part, in a channel with `Lag::Skip`. All subscribers share one
//! copy of a chunk, so the memory for a chunk does not grow with the number of slow subscribers.

use super::server::lock;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};

#[derive(Default)]
pub struct BegunChunks {
    /// The chunks, by the offset at which each chunk ends. The bytes are in a `Vec` inside the `Arc`, so dropping the
    /// last `Arc` frees the bytes. A remaining `Weak` keeps only the few bytes of the `Arc`'s own allocation.
    by_end: Mutex<BTreeMap<u64, Weak<Vec<u8>>>>,
}

impl BegunChunks {
    /// Returns the copy of the chunk that ends at offset `end`. The first call for a chunk makes the copy. The copy is
    /// freed when the last subscriber drops its reference.
    pub fn share(&self, end: u64, chunk: &[u8]) -> Arc<Vec<u8>> {
        let mut by_end = lock(&self.by_end);
        if let Some(shared) = by_end.get(&end).and_then(Weak::upgrade) {
            return shared;
        }
        by_end.retain(|_, shared| shared.strong_count() > 0);
        let shared = Arc::new(chunk.to_vec());
        by_end.insert(end, Arc::downgrade(&shared));
        shared
    }
}
