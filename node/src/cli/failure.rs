//! What a command ends with when it is refused or fails: a code for programs, a sentence for
//! people, and the exit code.

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use serde_json::json;

/// Why a command did not do what it was told.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct Failure {
    code: String,
    message: String,
    field: Option<String>,
    exit: u8,
}

impl Failure {
    /// It was refused or failed, under a code that programs know.
    pub(super) fn new(code: &str, message: impl Display) -> Self {
        Self { code: code.to_owned(), message: message.to_string(), field: None, exit: FAILED }
    }

    /// It was called in a way that can't work.
    pub(super) fn usage(message: impl Display) -> Self {
        Self { code: "usage".to_owned(), message: message.to_string(), field: None, exit: USAGE }
    }

    pub(super) fn at(self, field: Option<String>) -> Self {
        Self { field, ..self }
    }

    /// Any error as a failure.
    pub(super) fn of(error: anyhow::Error) -> Self {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::BrokenPipe
        {
            return Self { code: "broken_pipe".to_owned(), message: String::new(), field: None, exit: DONE };
        }
        error.downcast::<Self>().unwrap_or_else(|error| Self::new("failed", whole_message(&error)))
    }

    /// Tells stderr, and gives the exit code.
    pub(super) fn report(&self, as_json: bool) -> ExitCode {
        if self.exit != DONE {
            let text = if as_json {
                json!({"error": {"code": self.code, "message": self.message, "field": self.field}}).to_string()
            } else {
                format!("error: {}", self.message)
            };
            // Nobody is left to tell if stderr is closed.
            drop(writeln!(std::io::stderr(), "{text}"));
        }
        ExitCode::from(self.exit)
    }
}

/// The message, with causes that it does not name itself.
fn whole_message(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

const DONE: u8 = 0;
const FAILED: u8 = 1;
const USAGE: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once() {
        let inner = std::io::Error::other("the disk is full");
        let told = anyhow::Error::new(inner).context("nothing was written");
        assert_eq!(Failure::of(told).message, "nothing was written: the disk is full");
        let told = anyhow::Error::msg("the disk is full").context("nothing was written (the disk is full)");
        assert_eq!(Failure::of(told).message, "nothing was written (the disk is full)");
    }

    #[test]
    fn a_reader_that_has_seen_enough_is_no_failure() {
        let broken = anyhow::Error::new(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert_eq!(Failure::of(broken).exit, DONE);
    }
}
