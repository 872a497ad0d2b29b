//! What the small forms know beforehand: a made-up day of a shop that never was, from which the
//! predictor learns once a process. Another dictionary is another kind of message.
//!
//! `TILLMESH_WRITE_DICTIONARY=1 cargo test -p tillmesh-crdt-model --test dictionary` makes the
//! file again.

use std::sync::OnceLock;

use super::compact::teach;
use super::predictor::Predictor;
use crate::entry::Entry;
use crate::journal::Tail;

/// A CBOR array of entries in their stored form.
const DAY: &[u8] = include_bytes!("dictionary-1.bin");

/// The predictor after it has seen the day.
pub(super) fn taught() -> &'static Predictor {
    static TAUGHT: OnceLock<Predictor> = OnceLock::new();
    TAUGHT.get_or_init(|| {
        // The file is part of the program; a test reads it.
        let entries: Vec<Entry> = minicbor::decode(DAY).unwrap_or_default();
        teach(Predictor::untaught(), &entries, &Tail::default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_day_can_be_read() {
        let entries: Vec<Entry> = minicbor::decode(DAY).unwrap();
        assert!(entries.len() > 100);
        assert!(entries.iter().all(|entry| entry.body().is_ok()));
    }
}
