//! Operations that only the app and its server understand.

use minicbor::{Decode, Encode};

use super::{
    CUSTOM_BODY_BYTES_MAX, FactError, NAME_BYTES_MAX, Source, Strategy, TEXT_BYTES_MAX, VERSION_BYTES_MAX, check_name,
    check_text,
};

/// An operation of the app's own, kept and carried like any other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
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
    /// The version that the client last saw, as JSON: what a merge starts from.
    #[n(5)]
    pub base: Option<String>,
    /// The server's tag of that version.
    #[n(6)]
    pub base_tag: Option<String>,
    /// The client's own word for how soon: 0 first, 9 last.
    #[n(7)]
    pub priority: Option<u8>,
    /// The network that the client was on.
    #[n(8)]
    pub network_type: Option<String>,
    /// Who wins where the server has something else; the business's choice if not given.
    #[n(9)]
    pub strategy: Option<Strategy>,
}

/// The last priority.
const PRIORITY_MAX: u8 = 9;

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
        check_text("body", &self.body, CUSTOM_BODY_BYTES_MAX)?;
        check_text("base", self.base.as_deref().unwrap_or_default(), VERSION_BYTES_MAX)?;
        check_text("base_tag", self.base_tag.as_deref().unwrap_or_default(), NAME_BYTES_MAX * 2)?;
        check_text("network_type", self.network_type.as_deref().unwrap_or_default(), NAME_BYTES_MAX)?;
        if self.priority.is_some_and(|priority| priority > PRIORITY_MAX) {
            return Err(FactError::Invalid { field: "priority".to_owned(), reason: "must be 0 to 9" });
        }
        Ok(())
    }
}
