//! The chunks that subscribers have begun to receive, in a channel whose subscribers may skip. All of them
//! share one copy of a chunk, so memory does not grow with slow subscribers.

use super::server::lock;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};

#[derive(Default)]
pub struct BegunChunks {
    /// The key is the offset of the chunk's end. A `Vec` in the `Arc`, because a `Weak` keeps what is in the `Arc` itself.
    by_end: Mutex<BTreeMap<u64, Weak<Vec<u8>>>>,
}

impl BegunChunks {
    /// Returns the copy of the chunk that ends at an offset. The first call for a chunk makes the copy, and the last subscriber
    /// that drops it frees it.
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
