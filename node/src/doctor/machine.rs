//! The machine itself: its clock and its disk.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Check, Verdict};

/// 1 January 2026: before this program was written.
const EARLIEST: Duration = Duration::from_secs(1_767_225_600);
/// A file that is further in the future shows that the clock was set back.
const AHEAD_MAX: Duration = Duration::from_secs(600);
/// Below this much free space something will fail within days…
const FREE_BYTES_LOW: u64 = 1024 * 1024 * 1024;
/// …and below this, within hours.
const FREE_BYTES_VERY_LOW: u64 = 200 * 1024 * 1024;

pub(super) fn examine(data: &Path) -> Vec<Check> {
    let newest = data.join("shop.redb").metadata().and_then(|metadata| metadata.modified()).ok();
    vec![clock(SystemTime::now(), newest), disk(data)]
}

fn clock(now: SystemTime, newest_file: Option<SystemTime>) -> Check {
    const NAME: &str = "clock";
    let advice = "set the date and time, and let the system keep them by NTP: entries count all the same, but days and \
                  Z reports follow this clock";
    if now.duration_since(UNIX_EPOCH).unwrap_or_default() < EARLIEST {
        return Check::new(NAME, Verdict::Fail, "the clock is years behind").advise(advice);
    }
    let ahead = newest_file.and_then(|newest| newest.duration_since(now).ok()).unwrap_or_default();
    if ahead > AHEAD_MAX {
        let minutes = ahead.as_secs() / 60;
        let found = format!("the records were last written {minutes} minutes from now: the clock was set back");
        return Check::new(NAME, Verdict::Warn, found).advise(advice);
    }
    Check::new(NAME, Verdict::Ok, "nothing speaks against it")
}

#[cfg(unix)]
fn disk(data: &Path) -> Check {
    let there = data.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    match rustix::fs::statvfs(there) {
        Ok(disk) => free(disk.f_bavail.saturating_mul(disk.f_frsize)),
        Err(error) => Check::new(DISK, Verdict::Unknown, format!("{}: {error}", there.display()))
            .advise("check that the data folder's disk is there, and that this user may use it"),
    }
}

#[cfg(not(unix))]
fn disk(_: &Path) -> Check {
    Check::new(DISK, Verdict::Unknown, "this platform is not looked at yet")
}

fn free(bytes: u64) -> Check {
    let found = format!("{} MB are free", bytes / (1024 * 1024));
    let advice = "make room: a till that can't write stops, and says so";
    match bytes {
        ..FREE_BYTES_VERY_LOW => Check::new(DISK, Verdict::Fail, found).advise(advice),
        FREE_BYTES_VERY_LOW..FREE_BYTES_LOW => Check::new(DISK, Verdict::Warn, found).advise(advice),
        FREE_BYTES_LOW.. => Check::new(DISK, Verdict::Ok, found),
    }
}

const DISK: &str = "disk";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_behind_or_was_set_back_is_noticed() {
        let now = UNIX_EPOCH + EARLIEST + Duration::from_secs(100_000);
        assert_eq!(clock(now, None).verdict, Verdict::Ok);
        assert_eq!(clock(now, Some(now)).verdict, Verdict::Ok);
        assert_eq!(clock(now, Some(now + AHEAD_MAX * 2)).verdict, Verdict::Warn);
        assert_eq!(clock(UNIX_EPOCH, None).verdict, Verdict::Fail);
    }

    #[test]
    fn a_disk_that_fills_up_is_noticed() {
        assert_eq!(free(FREE_BYTES_LOW).verdict, Verdict::Ok);
        assert_eq!(free(FREE_BYTES_LOW - 1).verdict, Verdict::Warn);
        assert_eq!(free(0).verdict, Verdict::Fail);
        assert!(free(0).advice.is_some());
        let here = disk(&std::env::temp_dir().join("nothing/of/this/is/there"));
        assert_ne!(here.verdict, Verdict::Unknown, "{here:?}");
    }
}
