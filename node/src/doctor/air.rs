//! Bluetooth: adapters, roles, permissions, and whether the device can be followed.

use transport::bluetooth::{AdapterReport, SurveyError, survey};

use super::{Check, Verdict};

const ADAPTER: &str = "bluetooth adapter";
const ROLES: &str = "bluetooth roles";
const PERMISSION: &str = "bluetooth permission";
const PRIVACY: &str = "bluetooth address";

pub(super) async fn examine(wanted: bool) -> Vec<Check> {
    if !wanted {
        return vec![Check::new(ADAPTER, Verdict::Unknown, "Bluetooth is switched off in the configuration")];
    }
    if cfg!(target_os = "android") {
        let found = "on Android the app supplies the link";
        return vec![Check::new(ADAPTER, Verdict::Unknown, found)];
    }
    judge(survey().await)
}

fn judge(survey: Result<Vec<AdapterReport>, SurveyError>) -> Vec<Check> {
    let adapters = match survey {
        Ok(adapters) => adapters,
        Err(error @ SurveyError::Forbidden(_)) => {
            let advice = "let this user use Bluetooth: add it to the group bluetooth, or run the node in a desktop \
                          session; then log in again";
            return vec![Check::new(PERMISSION, Verdict::Fail, error.to_string()).advise(advice)];
        }
        Err(error) => {
            let advice = "install and start BlueZ (bluetoothd and D-Bus) if devices are to meet without a network; \
                          otherwise set bluetooth to off";
            return vec![Check::new(ADAPTER, Verdict::Warn, error.to_string()).advise(advice)];
        }
    };
    if adapters.is_empty() {
        let advice = "plug one in if devices are to meet without a network; otherwise set bluetooth to off";
        return vec![Check::new(ADAPTER, Verdict::Warn, "there is no Bluetooth adapter").advise(advice)];
    }
    let mut checks = vec![Check::new(PERMISSION, Verdict::Ok, "the Bluetooth service answers this user")];
    checks.extend(adapters.iter().flat_map(of_adapter));
    checks
}

fn of_adapter(adapter: &AdapterReport) -> Vec<Check> {
    let AdapterReport { name, address, powered, .. } = adapter;
    let named = match address {
        Some(address) => format!("{name} ({address})"),
        None => name.clone(),
    };
    let power = match powered {
        true => Check::new(ADAPTER, Verdict::Ok, format!("{named} is on")),
        false => Check::new(ADAPTER, Verdict::Warn, format!("{named} is off"))
            .advise("switch it on, and check for a switch on the device: rfkill list, rfkill unblock bluetooth"),
    };
    let roles = match (adapter.central, adapter.peripheral) {
        (true, true) => Check::new(ROLES, Verdict::Ok, format!("{named} connects, and can be connected to")),
        (true, false) => Check::new(ROLES, Verdict::Warn, format!("{named} connects, but can't be connected to")).advise(
            "two devices meet only if one of them can be connected to: use a Linux till as the other one, or supply \
             the link from the app",
        ),
        (false, _) => Check::new(ROLES, Verdict::Fail, format!("{named} can't connect to others"))
            .advise("use an adapter with Bluetooth 4.0 or later"),
    };
    let privacy = match adapter.fixed_address {
        Some(true) => Check::new(
            PRIVACY,
            Verdict::Warn,
            format!("{named} has a fixed address, unless its privacy is switched on"),
        )
        .advise(
            "whoever listens can tell that the same device is near, although what it advertises changes every 15 \
             minutes: set Privacy = device in /etc/bluetooth/main.conf if that matters",
        ),
        Some(false) => Check::new(PRIVACY, Verdict::Ok, format!("{named} changes its address")),
        None => Check::new(PRIVACY, Verdict::Unknown, format!("{named}: the system does not say")),
    };
    vec![power, roles, privacy]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter() -> AdapterReport {
        AdapterReport {
            name: "hci0".to_owned(),
            address: Some("00:11:22:33:44:55".to_owned()),
            powered: true,
            fixed_address: Some(false),
            central: true,
            peripheral: true,
        }
    }

    fn verdicts(checks: &[Check]) -> Vec<(&'static str, Verdict)> {
        checks.iter().map(|check| (check.name, check.verdict)).collect()
    }

    #[test]
    fn a_good_adapter_is_fine() {
        assert!(judge(Ok(vec![adapter()])).iter().all(|check| check.verdict == Verdict::Ok && check.advice.is_none()));
    }

    #[test]
    fn everything_that_is_wrong_comes_with_what_to_do() {
        let off = AdapterReport { powered: false, fixed_address: Some(true), peripheral: false, ..adapter() };
        let checks = judge(Ok(vec![off]));
        assert_eq!(
            verdicts(&checks),
            [(PERMISSION, Verdict::Ok), (ADAPTER, Verdict::Warn), (ROLES, Verdict::Warn), (PRIVACY, Verdict::Warn)]
        );
        for troubled in [
            judge(Ok(Vec::new())),
            judge(Err(SurveyError::Forbidden("AccessDenied".to_owned()))),
            judge(Err(SurveyError::NoService("no such file".to_owned()))),
            checks,
        ] {
            assert!(
                troubled.iter().all(|check| check.verdict == Verdict::Ok || check.advice.is_some()),
                "{troubled:?}"
            );
            assert!(troubled.iter().any(|check| check.verdict != Verdict::Ok));
        }
    }
}
