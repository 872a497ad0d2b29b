//! Lists: a page at a time, and the cursor that goes on from it.

use crdt_model::ids::RecordId;
use crdt_model::time::Hlc;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::problem::{Code, Problem};

const LIMIT_DEFAULT: u32 = 50;
const LIMIT_MAX: u32 = 200;

/// Which page of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// How many items, 1 to 200; 50 if not given.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Listed<T> {
    /// The items, the newest first where they have a time.
    pub(super) items: Vec<T>,
    /// The cursor of the next page; `null` at the end.
    pub(super) next: Option<String>,
}

impl Page {
    pub(super) fn limit(&self) -> Result<usize, Problem> {
        let limit = self.limit.unwrap_or(LIMIT_DEFAULT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(Problem::at(Code::BadParameter, "limit", format!("limit is 1 to {LIMIT_MAX}")));
        }
        Ok(usize::try_from(limit).unwrap_or_default())
    }

    pub(super) fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// The time and id of the last record of the page before.
    pub(super) fn before(&self) -> Result<Option<(Hlc, RecordId)>, Problem> {
        let Some(cursor) = &self.cursor else { return Ok(None) };
        let parsed = cursor
            .split_once('_')
            .and_then(|(time, id)| Some((Hlc(u64::from_str_radix(time, 16).ok()?), id.parse::<RecordId>().ok()?)));
        parsed.map(Some).ok_or_else(bad_cursor)
    }
}

/// The cursor behind a record.
pub(super) fn cursor(time: Hlc, id: RecordId) -> String {
    format!("{:x}_{id}", time.0)
}

pub(super) fn bad_cursor() -> Problem {
    Problem::at(Code::BadCursor, "cursor", "cursor must be the next of the page before, unchanged")
}

impl<T> Listed<T> {
    /// A page from one item more than it holds, if there are more.
    pub(super) fn of(mut items: Vec<T>, limit: usize, cursor: impl FnOnce(&T) -> String) -> Self {
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(cursor);
        Self { items, next }
    }

    pub(super) fn map<U>(self, each: impl FnMut(T) -> U) -> Listed<U> {
        Listed { items: self.items.into_iter().map(each).collect(), next: self.next }
    }
}
