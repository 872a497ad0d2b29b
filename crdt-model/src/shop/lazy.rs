//! Shared documents that are read back only when somebody needs them: a start with hundreds of
//! shards would otherwise wait for each.

use std::cell::{Cell, OnceCell};

use crate::document::{DocumentId, SharedDocument};

/// A shared document, live or still in its saved form.
#[derive(Debug)]
pub(super) struct LazyDocument {
    id: DocumentId,
    saved: Option<Vec<u8>>,
    live: OnceCell<SharedDocument>,
    damaged: Cell<bool>,
}

impl LazyDocument {
    /// A document that is live already.
    pub(super) fn live(document: SharedDocument) -> Self {
        let id = document.id();
        let cell = OnceCell::from(document);
        Self { id, saved: None, live: cell, damaged: Cell::new(false) }
    }

    /// A document in its saved form.
    pub(super) fn saved(id: DocumentId, bytes: Vec<u8>) -> Self {
        Self { id, saved: Some(bytes), live: OnceCell::new(), damaged: Cell::new(false) }
    }

    /// The document, read back if need be.
    pub(super) fn shared(&self) -> &SharedDocument {
        self.live.get_or_init(|| match &self.saved {
            None => SharedDocument::new(self.id),
            Some(bytes) => SharedDocument::load(self.id, bytes).unwrap_or_else(|error| {
                tracing::error!(%error, "a saved document can't be read back and is rebuilt");
                self.damaged.set(true);
                SharedDocument::new(self.id)
            }),
        })
    }

    /// The document, to be changed.
    pub(super) fn shared_mut(&mut self) -> &mut SharedDocument {
        self.shared();
        self.saved = None;
        match self.live.get_mut() {
            Some(document) => document,
            None => unreachable!("the line above has filled it"),
        }
    }

    /// Whether the saved form could not be read back.
    pub(super) fn is_damaged(&self) -> bool {
        self.damaged.get()
    }

    /// The saved form.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.saved.clone().unwrap_or_else(|| self.shared().save())
    }
}
