//! Reading another system's sales: the online-retail format (UCI, doi 10.24432/C5BW33).
//!
//! A file is streamed, never held: what comes out is whole invoices and the lines that were
//! refused, each with its reason. They go to a node as batches, which it records.
mod batch;
mod catalogue;
pub mod convert;
mod csv_record;
mod decimal;
mod line;
mod moment;
mod pennies;
mod reader;
mod recording;
mod rejects;
mod source;
mod text;

pub use batch::{Batch, BatchCustomer, BatchInvoice, BatchLine, BatchProduct};
pub use catalogue::{Catalogue, CatalogueItem, TooManyItems};
pub use line::{Field, RejectReason};
pub use reader::{HeaderError, Invoice, InvoiceKind, Item, ReadError, Reader, Reject, RetailLine, Tally};
pub use recording::{Added, BatchError, record};
pub use rejects::{RejectsError, RejectsFile};
pub use source::{OpenError, Progress, Source, open};

#[cfg(test)]
mod tests;
