//! The file of refused lines: CSV with the columns line, reason, raw.

use std::io::Write;

use thiserror::Error;

use super::reader::Reject;

#[derive(Debug, Error)]
#[error("cannot write the file of refused lines; check the disk and the path: {0}")]
pub struct RejectsError(#[from] csv::Error);

/// Writes refused lines as they come.
#[derive(Debug)]
pub struct RejectsFile<W: Write> {
    rows: csv::Writer<W>,
}

impl<W: Write> RejectsFile<W> {
    /// Starts the file with its header row.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn new(output: W) -> Result<Self, RejectsError> {
        let mut rows = csv::Writer::from_writer(output);
        rows.write_record(["line", "reason", "raw"])?;
        Ok(Self { rows })
    }

    /// # Errors
    /// The output cannot be written.
    pub fn write(&mut self, reject: &Reject) -> Result<(), RejectsError> {
        self.rows.write_record([reject.line_number.to_string(), reject.reason.to_string(), reject.raw.clone()])?;
        Ok(())
    }

    /// Hands everything to the output and gives it back.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn finish(self) -> Result<W, RejectsError> {
        self.rows.into_inner().map_err(|error| RejectsError(csv::Error::from(error.into_error())))
    }
}
