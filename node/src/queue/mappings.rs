//! What the server calls the records that clients named themselves. A mapping outlives the row of
//! its operation, because later operations may still use the client's own id; it goes when nobody
//! has spoken of it for a long time.

use crdt_model::ids::RecordId;
use crdt_model::time::Hlc;

use super::keys;
use super::projection::{Mapping, read_row};
use crate::shop_handle::ReadError;
use crate::storage::{Keys, ReadLimits, Reader, RowWrite, Rows};

/// How many rows are looked at in one go.
pub(super) const LOOKS: usize = 512;

/// Where a look through all mappings has come to.
#[derive(Debug, Clone, Default)]
pub(super) struct Sweep {
    behind: Option<Vec<u8>>,
    of_temporaries: bool,
    /// It has seen everything.
    pub(super) done: bool,
}

/// Deletes of the next mappings, and of clients' own ids, that are of no use any more: the server
/// spoke of them before the horizon, and their operation's row is gone.
pub(super) fn sweep(reader: &dyn Reader, horizon: Hlc, at: &mut Sweep) -> Result<Vec<RowWrite>, ReadError> {
    let prefix = if at.of_temporaries { keys::temporary_prefix() } else { keys::mapping_prefix() };
    let limits = ReadLimits { entries_max: LOOKS, bytes_max: usize::MAX };
    let page = reader.rows(Rows::Queue, Keys { prefix: &prefix, after: at.behind.as_deref() }, limits)?;
    let mut deletes = Vec::new();
    for row in &page.rows {
        let gone = if at.of_temporaries {
            // A name lives as long as what it names; mappings were looked at before.
            let id = keys::id_of(&row.value);
            id.is_none_or(|id| matches!((read_row(reader, id), mapping(reader, id)), (Ok(None), Ok(None))))
        } else {
            let id = row.key.get(1..).and_then(keys::id_of);
            let old = minicbor::decode::<Mapping>(&row.value).is_ok_and(|mapping| mapping.time < horizon);
            old && id.is_none_or(|id| matches!(read_row(reader, id), Ok(None)))
        };
        if gone {
            deletes.push(RowWrite { rows: Rows::Queue, key: row.key.clone(), value: None });
        }
    }
    at.behind = page.rows.last().map(|row| row.key.clone());
    if !page.more {
        at.done = at.of_temporaries;
        *at = Sweep { behind: None, of_temporaries: true, done: at.done };
    }
    Ok(deletes)
}

/// What the server calls a record.
pub(super) fn mapping(reader: &dyn Reader, id: RecordId) -> Result<Option<Mapping>, ReadError> {
    let row = reader.row(Rows::Queue, &keys::mapping(id))?;
    Ok(row.and_then(|value| minicbor::decode(&value).ok()))
}

#[cfg(test)]
mod tests {
    use crdt_model::record::Source;
    use crdt_model::time::Timestamp;

    use super::super::projection::put;
    use super::super::row::OpRow;
    use super::*;
    use crate::storage::{Batch, MemoryDisk, Storage};

    #[test]
    fn a_mapping_goes_once_its_row_is_gone_and_it_is_old_and_its_name_with_it() {
        let mut storage = MemoryDisk::new().open();
        let time = |day: u64| Hlc::from_wall(Timestamp(day * 86_400_000));
        let id = |number: u128| RecordId(uuid::Uuid::from_u128(number));
        let mut rows = Vec::new();
        // 1 is old, 2 is new, 3 is old and has a row; 4 has a row and no mapping yet.
        for (number, day) in [(1, 10), (2, 500), (3, 10)] {
            let mapping = Mapping { synced: true, time: time(day), ..Mapping::default() };
            rows.push(put(keys::mapping(id(number)), minicbor::to_vec(&mapping).unwrap()));
        }
        for number in [3, 4] {
            rows.push(put(keys::operation(id(number)), minicbor::to_vec(OpRow::default()).unwrap()));
        }
        let named = |number: u128| Source { instance: "app".to_owned(), key: format!("tmp-{number}") };
        rows.extend((1..=4).map(|number| put(keys::temporary_of(&named(number)), id(number).0.as_bytes().to_vec())));
        storage.commit(&Batch { rows, ..Batch::default() }).unwrap();
        let reader = storage.reader();
        let mut at = Sweep::default();
        while !at.done {
            let deletes = sweep(reader.as_ref(), time(400), &mut at).unwrap();
            storage.commit(&Batch { rows: deletes, ..Batch::default() }).unwrap();
        }
        for number in 1..=4 {
            let mapped = mapping(reader.as_ref(), id(number)).unwrap().is_some();
            let known = reader.row(Rows::Queue, &keys::temporary_of(&named(number))).unwrap().is_some();
            assert_eq!((mapped, known), (number == 2 || number == 3, number != 1), "{number}");
        }
    }
}
