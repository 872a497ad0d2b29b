//! Z reports: what a till did in a shift, or what tills did on a day.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use crdt_model::books::{Figure, Sheet, Tally, ZReport};
use crdt_model::ids::{DeviceId, RecordId};
use crdt_model::time::Day;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::body::Query;
use super::problem::{Code, Problem, path_id};
use super::state::ApiState;
use super::values::{Sum, recorded_at};
use crate::shop_loop::now;

/// Which report: of a shift, or of a day.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// The business day, such as 2026-03-01; today if neither it nor a shift is given.
    #[param(format = Date)]
    day: Option<String>,
    /// Only this device's part of the day.
    device: Option<String>,
    /// A shift, by its id.
    shift: Option<String>,
}

/// A Z report.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReportView {
    /// For a report of a day.
    #[serde(skip_serializing_if = "Option::is_none")]
    day: Option<String>,
    /// For a report of one till.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    /// For a report of a shift.
    #[serde(skip_serializing_if = "Option::is_none")]
    shift: Option<ShiftView>,
    /// The figures, by currency.
    totals: BTreeMap<String, TallyView>,
    /// For a closed shift: voids and refunds of its sales that the close did not know of.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    addendum: BTreeMap<String, TallyView>,
}

/// A till's drawer from float to count.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ShiftView {
    id: String,
    device: String,
    /// open, frozen (offered to another till) or closed.
    status: &'static str,
    /// The till that has it, or closed it; another than `device` once it was handed over.
    held_by: String,
    /// The handoff by which it is frozen.
    #[serde(skip_serializing_if = "Option::is_none")]
    frozen_by: Option<String>,
    /// The handoffs by which it came there, the first one first.
    handoffs: Vec<String>,
    opened_at: String,
    float_minor: i64,
    currency: String,
    /// The float and the cash taken, less the cash given out.
    cash_expected_minor: Sum,
    #[serde(skip_serializing_if = "Option::is_none")]
    closed_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    counted_minor: Option<i64>,
    /// What was counted less what should be there; negative if money is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    difference_minor: Option<Sum>,
}

/// Counts, and sums in minor units.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TallyView {
    sales: Sum,
    gross_minor: Sum,
    discounts_minor: Sum,
    voids: Sum,
    voids_minor: Sum,
    refunds: Sum,
    refunds_minor: Sum,
    /// Sales less discounts, voids and refunds.
    net_minor: Sum,
    expenses: Sum,
    expenses_minor: Sum,
    records_in_minor: Sum,
    records_out_minor: Sum,
    cash_in_minor: Sum,
    cash_out_minor: Sum,
    /// Whether the money arrived is in the payments.
    mpesa_in_minor: Sum,
    mpesa_out_minor: Sum,
    other_in_minor: Sum,
    other_out_minor: Sum,
    /// Cash taken less cash given out, without any float.
    cash_expected_minor: Sum,
    /// The tax that the net amount includes, by rate in hundredths of a per cent.
    taxes: BTreeMap<String, TaxView>,
}

#[derive(Debug, Serialize, ToSchema)]
struct TaxView {
    amount_minor: Sum,
    tax_minor: Sum,
}

/// A Z report of a shift, or of a day.
#[utoipa::path(get, path = "/api/reports/z", tag = "reports", params(Which), responses((status = 200, body = ReportView)))]
pub(super) async fn z(State(state): State<ApiState>, Query(which): Query<Which>) -> Result<Json<ReportView>, Problem> {
    if let Some(shift) = &which.shift {
        if which.day.is_some() || which.device.is_some() {
            let detail = "shift names a whole report by itself: leave day and device out";
            return Err(Problem::at(Code::InvalidField, "shift", detail));
        }
        let id: RecordId = path_id("shift", shift)?;
        let report = state.shop.ask(move |shop| shop.books().z_report(id)).await?;
        return report.map(of_shift).map(Json).ok_or_else(|| Problem::not_found("shift", shift));
    }
    let day = which.day.as_deref().map(parse_day).transpose()?;
    let device: Option<DeviceId> = which.device.as_deref().map(|device| path_id("device", device)).transpose()?;
    let (day, sheet) = state
        .shop
        .ask(move |shop| {
            let day = day.unwrap_or_else(|| shop.today(now()));
            let sheet = match device {
                Some(device) => shop.books().device_day(day, device),
                None => shop.books().day(day),
            };
            (day, sheet)
        })
        .await?;
    Ok(Json(ReportView {
        day: Some(day.to_string()),
        device: which.device,
        shift: None,
        totals: sheet_view(&sheet),
        addendum: BTreeMap::new(),
    }))
}

fn parse_day(text: &str) -> Result<Day, Problem> {
    Day::parse(text).ok_or_else(|| Problem::at(Code::BadParameter, "day", "day must be a date such as 2026-03-01"))
}

fn of_shift(report: ZReport) -> ReportView {
    ReportView {
        day: None,
        device: Some(report.device.to_string()),
        totals: sheet_view(&report.totals),
        addendum: sheet_view(&report.addendum),
        shift: Some(shift_view(&report)),
    }
}

pub(super) fn shift_view(report: &ZReport) -> ShiftView {
    ShiftView {
        id: report.shift.to_string(),
        device: report.device.to_string(),
        status: match (report.closing, report.frozen_by) {
            (Some(_), _) => "closed",
            (None, Some(_)) => "frozen",
            (None, None) => "open",
        },
        held_by: report.holder.to_string(),
        frozen_by: report.frozen_by.map(|handoff| handoff.to_string()),
        handoffs: report.handoffs.iter().map(ToString::to_string).collect(),
        opened_at: recorded_at(report.opened),
        float_minor: report.opening_float.minor,
        currency: report.opening_float.currency.to_string(),
        cash_expected_minor: Sum(report.cash_expected_minor),
        closed_at: report.closing.map(|closing| recorded_at(closing.time)),
        counted_minor: report.closing.map(|closing| closing.counted.minor),
        difference_minor: report.difference_minor.map(Sum),
    }
}

fn sheet_view(sheet: &Sheet) -> BTreeMap<String, TallyView> {
    sheet.iter().map(|(currency, tally)| (currency.to_string(), tally_view(tally))).collect()
}

fn tally_view(tally: &Tally) -> TallyView {
    let sum = |figure| Sum(tally.of(figure));
    let taxes = tally.taxes().iter().map(|(rate, tax)| {
        (rate.to_string(), TaxView { amount_minor: Sum(tax.amount_minor), tax_minor: Sum(tax.tax_minor) })
    });
    TallyView {
        sales: sum(Figure::Sales),
        gross_minor: sum(Figure::GrossMinor),
        discounts_minor: sum(Figure::DiscountsMinor),
        voids: sum(Figure::Voids),
        voids_minor: sum(Figure::VoidsMinor),
        refunds: sum(Figure::Refunds),
        refunds_minor: sum(Figure::RefundsMinor),
        net_minor: Sum(tally.net_minor()),
        expenses: sum(Figure::Expenses),
        expenses_minor: sum(Figure::ExpensesMinor),
        records_in_minor: sum(Figure::RecordsInMinor),
        records_out_minor: sum(Figure::RecordsOutMinor),
        cash_in_minor: sum(Figure::CashInMinor),
        cash_out_minor: sum(Figure::CashOutMinor),
        mpesa_in_minor: sum(Figure::MpesaInMinor),
        mpesa_out_minor: sum(Figure::MpesaOutMinor),
        other_in_minor: sum(Figure::OtherInMinor),
        other_out_minor: sum(Figure::OtherOutMinor),
        cash_expected_minor: Sum(tally.cash_expected_minor()),
        taxes: taxes.collect(),
    }
}
