//! Reading another system's sales: the online-retail format (UCI, doi 10.24432/C5BW33).
//!
//! A file is streamed, never held: what comes out is whole invoices and the lines that were
//! refused, each with its reason. Nothing here knows a journal; the caller makes the facts.
mod catalogue;
mod csv_record;
mod decimal;
mod line;
mod moment;
mod pennies;
mod reader;

mod rejects;
mod source;
mod text;

pub use catalogue::{Catalogue, CatalogueItem, TooManyItems};
pub use line::{Field, RejectReason};
pub use reader::{HeaderError, Invoice, InvoiceKind, Item, ReadError, Reader, Reject, RetailLine, Tally};
pub use rejects::{RejectsError, RejectsFile};
pub use source::{OpenError, Progress, Source, open};

#[cfg(test)]
mod tests;
