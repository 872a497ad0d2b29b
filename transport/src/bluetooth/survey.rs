//! What Bluetooth this machine has, without using it.

/// An adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterReport {
    /// Such as `hci0`.
    pub name: String,
    /// Its address, where the platform tells it.
    pub address: Option<String>,
    pub powered: bool,
    /// Whether its address never changes: then it can be followed, whatever it advertises. `None`
    /// where the platform does not say.
    pub fixed_address: Option<bool>,
    /// Whether other devices can be connected to.
    pub central: bool,
    /// Whether other devices can connect to it.
    pub peripheral: bool,
}

/// Why nothing could be found out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SurveyError {
    #[error("this user may not use Bluetooth ({0})")]
    Forbidden(String),
    #[error("there is no Bluetooth service ({0})")]
    NoService(String),
}

/// Looks at the adapters.
///
/// # Errors
/// If there is no Bluetooth service, or it must not be used.
#[cfg(target_os = "linux")]
pub async fn survey() -> Result<Vec<AdapterReport>, SurveyError> {
    let session = bluer::Session::new().await.map_err(unusable)?;
    let mut names = session.adapter_names().await.map_err(unusable)?;
    names.sort();
    let mut reports = Vec::new();
    for name in names {
        let adapter = session.adapter(&name).map_err(unusable)?;
        let kind = adapter.address_type().await.ok();
        reports.push(AdapterReport {
            address: adapter.address().await.ok().map(|address| address.to_string()),
            powered: adapter.is_powered().await.map_err(unusable)?,
            fixed_address: kind.map(|kind| kind == bluer::AddressType::LePublic),
            central: true,
            peripheral: matches!(adapter.supported_advertising_instances().await, Ok(instances) if instances > 0),
            name,
        });
    }
    Ok(reports)
}

/// Looks at the adapters.
///
/// # Errors
/// If there is no Bluetooth service, or it must not be used.
#[cfg(not(target_os = "linux"))]
pub async fn survey() -> Result<Vec<AdapterReport>, SurveyError> {
    match super::Central::open(None).await {
        Ok(central) => Ok(vec![AdapterReport {
            name: central.name().to_owned(),
            address: None,
            powered: true,
            fixed_address: None,
            central: true,
            peripheral: false,
        }]),
        Err(super::CentralError::NoAdapter(_)) => Ok(Vec::new()),
        Err(error) => Err(SurveyError::NoService(error.to_string())),
    }
}

#[cfg(target_os = "linux")]
fn unusable(error: bluer::Error) -> SurveyError {
    let text = error.to_string();
    if text.contains("AccessDenied") || text.contains("not authorized") || text.contains("rejected") {
        SurveyError::Forbidden(text)
    } else {
        SurveyError::NoService(text)
    }
}
