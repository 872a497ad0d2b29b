//! Operations that only the app and its server understand.

use minicbor::{Decode, Encode};

use super::{CUSTOM_BODY_BYTES_MAX, FactError, NAME_BYTES_MAX, Source, TEXT_BYTES_MAX, check_name, check_text};

/// An operation of the app's own, kept and carried like any other.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Custom {
    /// The client's own id.
    #[n(0)]
    pub source: Option<Source>,
    /// The app's word for it.
    #[n(1)]
    pub operation_type: String,
    /// The HTTP method for the server: POST, PUT, PATCH or DELETE.
    #[n(2)]
    pub method: String,
    /// The path at the server, from its first slash.
    #[n(3)]
    pub path: String,
    /// The body, JSON text.
    #[n(4)]
    pub body: String,
}

impl Custom {
    pub(super) fn check(&self) -> Result<(), FactError> {
        check_name("type", &self.operation_type, NAME_BYTES_MAX)?;
        if !["POST", "PUT", "PATCH", "DELETE"].contains(&self.method.as_str()) {
            return Err(FactError::Invalid {
                field: "method".to_owned(),
                reason: "must be POST, PUT, PATCH or DELETE",
            });
        }
        if !self.path.starts_with('/') || self.path.starts_with("//") {
            return Err(FactError::Invalid {
                field: "path".to_owned(),
                reason: "must be a path that starts with one slash, without a host",
            });
        }
        check_text("path", &self.path, TEXT_BYTES_MAX)?;
        check_text("body", &self.body, CUSTOM_BODY_BYTES_MAX)
    }
}
