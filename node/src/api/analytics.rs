//! What sending to the shop's own server came to, by day and by device, and how long this node was
//! without its relay or that server.

use axum::Json;
use axum::extract::State;
use crdt_model::ids::DeviceId;
use crdt_model::record::ErrorClass;
use crdt_model::time::Day;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::body::Query;
use super::problem::{Code, Problem, ProblemDocument, body_id};
use super::state::ApiState;
use crate::queue::analytics::analytics;
use crate::queue::attempts::AttemptResult;
use crate::queue::figures::{Durations, Figures, NetworkFigures};
use crate::queue::stretches::{DayStretches, Lacking, Stretches};
use crate::shop_handle::ReadError;
use crate::shop_loop::now;

/// The most days that one question is about: a quarter of a year.
const DAYS_MAX: i32 = 92;
const DAYS_DEFAULT: i32 = 7;

/// Which days, and whose operations.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// The first of the shop's days, such as 2026-03-01; six before `to` if not given.
    #[param(format = Date)]
    from: Option<String>,
    /// The last of them, at most 91 later; today if not given.
    #[param(format = Date)]
    to: Option<String>,
    /// Only operations that this device recorded.
    #[param(pattern = "^[0-9a-f]{64}$")]
    device: Option<String>,
}

/// What calls of the shop's own server came to.
#[derive(Debug, Serialize, ToSchema)]
struct FiguresView {
    /// Calls.
    calls: u64,
    /// Calls after which the operation was done.
    success: u64,
    failed: u64,
    /// Calls that one more step followed.
    partial: u64,
    /// Calls that a crash cut off.
    cut_off: u64,
    /// `success` for each call, 0 to 1; `null` without calls.
    success_rate: Option<f64>,
    /// Calls until an operation was done, on average.
    attempts_per_success: Option<f64>,
    errors: ErrorsView,
    latency: Option<LatencyView>,
    /// Bytes of the requests' bodies.
    bytes_sent: u64,
    /// Bytes of the answers' bodies.
    bytes_received: u64,
    /// The same by kind of network; at most 8 kinds, and `other`.
    networks: Vec<NetworkView>,
}

/// Calls that did not do, by class.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[schema(rename_all = "SCREAMING_SNAKE_CASE")]
struct ErrorsView {
    network: u64,
    server_error: u64,
    validation: u64,
    auth: u64,
    conflict: u64,
    rate: u64,
}

/// How long calls took. `p50` and `p95` are bounds that so many per cent kept to, of a fixed scale.
#[derive(Debug, Serialize, ToSchema)]
struct LatencyView {
    mean_ms: u64,
    p50_ms: u64,
    p95_ms: u64,
    max_ms: u64,
}

#[derive(Debug, Serialize, ToSchema)]
struct NetworkView {
    /// As the app called it, `unknown` or `other`.
    network_type: String,
    calls: u64,
    /// Calls that brought an answer, whatever it was, for each call.
    answered_rate: Option<f64>,
    latency: Option<LatencyView>,
    /// Bytes of bodies, both ways.
    bytes: u64,
    /// `good`: at least 99 % of calls brought an answer, and 95 % of them within a second. `fair`:
    /// 90 %, and five seconds. Otherwise `poor`.
    quality: &'static str,
}

/// Stretches without something.
#[derive(Debug, Serialize, ToSchema)]
struct StretchesView {
    /// `relay`: no link to one. `upstream`: the carrier leaves the shop's server alone, because it failed.
    without: &'static str,
    /// How many began.
    stretches: u64,
    /// How long they took together.
    offline_ms: u64,
    /// The longest, with what it took on the days before.
    longest_ms: u64,
}

#[derive(Debug, Serialize, ToSchema)]
struct DayView {
    day: String,
    #[serde(flatten)]
    figures: FiguresView,
    /// This node's own.
    offline: Vec<StretchesView>,
}

#[derive(Debug, Serialize, ToSchema)]
struct DeviceView {
    device: String,
    name: Option<String>,
    #[serde(flatten)]
    figures: FiguresView,
}

/// What sending came to.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AnalyticsView {
    from: String,
    to: String,
    total: FiguresView,
    /// By day, the first one first; days without calls or stretches are left out.
    days: Vec<DayView>,
    /// By the device that recorded the operation.
    devices: Vec<DeviceView>,
    /// How long this node was without its relay, or without the shop's own server.
    offline: Vec<StretchesView>,
    /// What it is without now.
    offline_now: Vec<&'static str>,
}

/// What the calls of the shop's own server that this node made came to: success, attempts, latency,
/// bytes and network quality, by day and by device; and how long this node was offline. Costs the
/// days that are asked for.
#[utoipa::path(get, path = "/api/analytics", tag = "analytics", params(Which),
    responses((status = 200, body = AnalyticsView),
        (status = "4XX", body = ProblemDocument, content_type = "application/problem+json")))]
pub(super) async fn figures(
    State(state): State<ApiState>,
    Query(which): Query<Which>,
) -> Result<Json<AnalyticsView>, Problem> {
    let today = state.shop.ask(|shop| shop.today(now())).await?;
    let days = range(&which, today)?;
    let device: Option<DeviceId> = match &which.device {
        Some(device) => {
            Some(body_id("device", device).map_err(|problem| Problem { code: Code::BadParameter, ..problem })?)
        }
        None => None,
    };
    let reader = state.shop.reader().clone();
    let found = tokio::task::spawn_blocking(move || analytics(reader.as_ref(), days, device)).await;
    let found = found.map_err(|error| Problem::new(Code::Unreadable, error.to_string()))?.map_err(ReadError::from)?;
    let stretches = state.desk.stretches_of(days)?;
    let names = state.shop.ask(|shop| {
        let members = shop.members().map(|member| (member.device, member.name.clone()));
        members.collect::<std::collections::BTreeMap<_, _>>()
    });
    let names = names.await?;
    let mut by_day = found.by_day;
    for (day, _) in stretches.keys() {
        by_day.entry(*day).or_default();
    }
    Ok(Json(AnalyticsView {
        from: days.0.to_string(),
        to: days.1.to_string(),
        total: figures_view(&found.total),
        days: by_day.iter().map(|(day, figures)| day_view(*day, figures, &stretches)).collect(),
        devices: found
            .by_device
            .iter()
            .map(|(device, figures)| DeviceView {
                device: device.to_string(),
                name: names.get(device).cloned(),
                figures: figures_view(figures),
            })
            .collect(),
        offline: Lacking::ALL.map(|lacking| stretches_view(lacking, &all_of(&stretches, lacking))).into(),
        offline_now: Lacking::ALL.into_iter().filter(|one| state.desk.is_lacking(*one)).map(Lacking::word).collect(),
    }))
}

fn range(which: &Which, today: Day) -> Result<(Day, Day), Problem> {
    let parse = |name: &'static str, text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => Day::parse(text)
            .map(Some)
            .ok_or_else(|| Problem::at(Code::BadParameter, name, format!("{name} must be a date such as 2026-03-01"))),
    };
    let to = parse("to", &which.to)?.unwrap_or(today);
    let from = parse("from", &which.from)?.unwrap_or(Day(to.0.saturating_sub(DAYS_DEFAULT - 1)));
    let days = to.0.saturating_sub(from.0);
    if !(0..DAYS_MAX).contains(&days) {
        let detail = format!("from to to are 1 to {DAYS_MAX} days: ask for fewer, the earlier one first");
        return Err(Problem::at(Code::InvalidField, "from", detail));
    }
    Ok((from, to))
}

fn day_view(day: Day, figures: &Figures, stretches: &DayStretches) -> DayView {
    let offline = Lacking::ALL.into_iter().filter_map(|lacking| {
        let found = stretches.get(&(day, lacking))?;
        Some(stretches_view(lacking, found))
    });
    DayView { day: day.to_string(), figures: figures_view(figures), offline: offline.collect() }
}

fn all_of(stretches: &DayStretches, lacking: Lacking) -> Stretches {
    let mut all = Stretches::default();
    for ((_, of), one) in stretches {
        if *of == lacking {
            all.merge(one);
        }
    }
    all
}

fn stretches_view(lacking: Lacking, stretches: &Stretches) -> StretchesView {
    StretchesView {
        without: lacking.word(),
        stretches: stretches.count,
        offline_ms: stretches.sum_ms,
        longest_ms: stretches.longest_ms,
    }
}

fn figures_view(figures: &Figures) -> FiguresView {
    let success = figures.of(AttemptResult::Success);
    FiguresView {
        calls: figures.calls(),
        success,
        failed: figures.of(AttemptResult::Failed),
        partial: figures.of(AttemptResult::Partial),
        cut_off: figures.of(AttemptResult::CutOff),
        success_rate: ratio(success, figures.calls()),
        attempts_per_success: ratio(figures.calls_until_done, success),
        errors: ErrorsView {
            network: figures.errors_of(ErrorClass::Network),
            server_error: figures.errors_of(ErrorClass::ServerError),
            validation: figures.errors_of(ErrorClass::Validation),
            auth: figures.errors_of(ErrorClass::Auth),
            conflict: figures.errors_of(ErrorClass::Conflict),
            rate: figures.errors_of(ErrorClass::Rate),
        },
        latency: latency(&figures.durations),
        bytes_sent: figures.bytes_sent,
        bytes_received: figures.bytes_received,
        networks: figures.networks.iter().map(|(word, network)| network_view(word, network)).collect(),
    }
}

fn latency(durations: &Durations) -> Option<LatencyView> {
    Some(LatencyView {
        mean_ms: durations.sum_ms.checked_div(durations.count())?,
        p50_ms: durations.at_most_ms(50)?,
        p95_ms: durations.at_most_ms(95)?,
        max_ms: durations.max_ms,
    })
}

fn network_view(word: &str, network: &NetworkFigures) -> NetworkView {
    NetworkView {
        network_type: word.to_owned(),
        calls: network.calls,
        answered_rate: ratio(network.answered, network.calls),
        latency: latency(&network.durations),
        bytes: network.bytes,
        quality: quality(network),
    }
}

fn quality(network: &NetworkFigures) -> &'static str {
    let within = |ms| network.durations.at_most_ms(95).is_none_or(|p95| p95 <= ms);
    let answered = |per_cent| network.answered.saturating_mul(100) >= network.calls.saturating_mul(per_cent);
    match () {
        () if answered(99) && within(1_000) => "good",
        () if answered(90) && within(5_000) => "fair",
        () => "poor",
    }
}

/// To four digits.
fn ratio(part: u64, whole: u64) -> Option<f64> {
    let scaled = part.saturating_mul(RATIO_SCALE).checked_div(whole)?;
    let scaled = u32::try_from(scaled).unwrap_or(u32::MAX);
    Some(f64::from(scaled) / f64::from(u32::try_from(RATIO_SCALE).unwrap_or(1)))
}

const RATIO_SCALE: u64 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn which(from: Option<&str>, to: Option<&str>) -> Which {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Which { from: owned(from), to: owned(to), device: None }
    }

    #[test]
    fn a_range_is_a_week_by_default_and_a_quarter_at_most() {
        let today = Day::parse("2026-03-10").unwrap();
        let told = |from, to| range(&which(from, to), today).map(|(from, to)| format!("{from} {to}")).ok();
        assert_eq!(told(None, None).unwrap(), "2026-03-04 2026-03-10");
        assert_eq!(told(Some("2026-03-10"), None).unwrap(), "2026-03-10 2026-03-10");
        assert_eq!(told(None, Some("2025-01-07")).unwrap(), "2025-01-01 2025-01-07");
        assert!(told(Some("2025-12-09"), None).is_some() && told(Some("2025-12-08"), None).is_none());
        assert_eq!(told(Some("2026-03-11"), None), None);
        assert_eq!(told(Some("yesterday"), None), None);
        assert_eq!(told(Some("-999999-01-01"), Some("9999-12-31")), None);
    }

    #[test]
    fn a_network_is_as_good_as_its_answers() {
        let network = |calls, answered, ms| {
            let mut durations = Durations::default();
            (0..calls).for_each(|_| durations.add(ms));
            quality(&NetworkFigures { calls, answered, durations, bytes: 0 })
        };
        assert_eq!([network(100, 99, 80), network(100, 98, 80), network(100, 100, 3_000)], ["good", "fair", "fair"]);
        assert_eq!([network(100, 89, 80), network(100, 100, 9_000)], ["poor", "poor"]);
    }

    #[test]
    fn ratios_have_four_digits() {
        assert_eq!([ratio(1, 3), ratio(3, 1), ratio(0, 5), ratio(1, 0)], [Some(0.3333), Some(3.0), Some(0.0), None]);
    }
}
