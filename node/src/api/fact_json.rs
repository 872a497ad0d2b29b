//! Facts in JSON, as documents show them. A payer's phone number is in no fact.

use crdt_model::record::{
    ErrorClass, Fact, Ledger, Line, PaymentFact, Strategy, Tender, TenderKind, UpstreamConflict, UpstreamFact,
};
use crdt_model::time::Timestamp;
use serde_json::{Value, json};

use super::payments::{evidence_word, reason_word, settlement_json};
use super::values::rfc3339;

/// The fact's fields.
pub(super) fn fact_json(fact: &Fact) -> Value {
    match fact {
        Fact::Sale(sale) => json!({
            "currency": sale.currency.code(),
            "lines": lines(&sale.lines),
            "tenders": tenders(&sale.tenders),
            "customer_id": sale.customer.map(|id| id.to_string()),
            "note": sale.note,
            "ticket_id": sale.ticket.map(|id| id.to_string()),
            "operation_id": sale.source.as_ref().map(|source| &source.key),
            "occurred_at": occurred(sale.occurred),
        }),
        Fact::Void(void) => json!({
            "sale_id": void.sale.to_string(),
            "currency": void.currency.code(),
            "lines": lines(&void.lines),
            "tenders": tenders(&void.tenders),
            "reason": void.reason,
        }),
        Fact::Refund(refund) => json!({
            "sale_id": refund.sale.map(|id| id.to_string()),
            "currency": refund.currency.code(),
            "lines": lines(&refund.lines),
            "tenders": tenders(&refund.tenders),
            "reason": refund.reason,
            "customer_id": refund.customer.map(|id| id.to_string()),
            "operation_id": refund.source.as_ref().map(|source| &source.key),
            "occurred_at": occurred(refund.occurred),
        }),
        Fact::Expense(expense) => json!({
            "category": expense.category,
            "amount_minor": expense.amount.minor,
            "currency": expense.amount.currency.code(),
            "description": expense.description,
            "paid_with": way(expense.paid_with),
            "operation_id": expense.source.as_ref().map(|source| &source.key),
            "occurred_at": occurred(expense.occurred),
        }),
        Fact::FinancialRecord(record) => json!({
            "record_type": record.record_type,
            "amount_minor": record.amount.minor,
            "currency": record.amount.currency.code(),
            "description": record.description,
            "operation_id": record.source.as_ref().map(|source| &source.key),
            "occurred_at": occurred(record.occurred),
        }),
        Fact::Custom(custom) => json!({
            "type": custom.operation_type,
            "method": custom.method,
            "path": custom.path,
            "body": custom.body,
            "operation_id": custom.source.as_ref().map(|source| &source.key),
        }),
        Fact::StockMovement(_) | Fact::StockCount(_) | Fact::ShiftOpened(_) | Fact::ShiftClosed(_) => till_json(fact),
        Fact::Intent(_)
        | Fact::Receipt(_)
        | Fact::Decline(_)
        | Fact::IntentAddressed(_)
        | Fact::IntentConfirmed(_)
        | Fact::Enrolment(_)
        | Fact::Resolution(_) => relay_json(fact),
        Fact::HandoffOffered(_)
        | Fact::HandoffAccepted(_)
        | Fact::HandoffTransferred(_)
        | Fact::HandoffWithdrawn(_)
        | Fact::HandoffDecided(_) => handoff_json(fact),
        Fact::Payment(fact) => payment_json(fact),
        Fact::Upstream(fact) => upstream_json(fact),
    }
}

fn upstream_json(fact: &UpstreamFact) -> Value {
    match fact {
        UpstreamFact::Outcome(outcome) => json!({
            "operation": outcome.operation.to_string(),
            "outcome": outcome.ordinal,
            "status": outcome.state.word(),
            "attempts": outcome.attempts,
            "server_id": outcome.server_id,
            "http_status": outcome.http_status,
            "error_class": outcome.class.map(ErrorClass::word),
            "error_code": outcome.code,
            "error": outcome.detail,
            "conflict_type": outcome.conflict.map(UpstreamConflict::word),
            "strategy": outcome.strategy.map(Strategy::word),
            "server": outcome.server.as_deref().map(given_json),
            "server_tag": outcome.server_tag,
            "disputed": outcome.disputed,
            "maybe_twice": outcome.maybe_twice,
        }),
        UpstreamFact::Wish(wish) => json!({ "operation": wish.operation.to_string(), "retry_after": wish.after }),
        UpstreamFact::Carried => json!({ "carrier": "till" }),
        UpstreamFact::Anchor(anchor) => json!({ "attempts_through": anchor.through }),
    }
}

/// JSON that somebody else wrote; as a text if it is none.
pub(super) fn given_json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

fn till_json(fact: &Fact) -> Value {
    if let Fact::StockMovement(movement) = fact {
        return json!({
            "sku": movement.sku,
            "quantity_milli": movement.quantity_milli,
            "reason": movement.reason,
            "operation_id": movement.source.as_ref().map(|source| &source.key),
            "occurred_at": occurred(movement.occurred),
        });
    }
    if let Fact::StockCount(count) = fact {
        return json!({
            "sku": count.sku,
            "counted_milli": count.counted_milli,
            "expected_milli": count.expected_milli,
            "operation_id": count.source.as_ref().map(|source| &source.key),
        });
    }
    if let Fact::ShiftOpened(opened) = fact {
        return json!({
            "float_minor": opened.opening_float.minor,
            "currency": opened.opening_float.currency.code(),
            "operation_id": opened.source.as_ref().map(|source| &source.key),
        });
    }
    let Fact::ShiftClosed(closed) = fact else { return Value::Null };
    json!({
        "shift_id": closed.shift.to_string(),
        "counted_minor": closed.counted.minor,
        "expected_minor": closed.expected_minor,
        "currency": closed.counted.currency.code(),
        "note": closed.note,
    })
}

fn relay_json(fact: &Fact) -> Value {
    if let Fact::Intent(intent) = fact {
        return json!({
            "sale_id": intent.sale.map(|(sale, _)| sale.to_string()),
            "tender": intent.sale.map(|(_, tender)| tender),
            "amount_minor": intent.amount.minor,
            "currency": intent.amount.currency.code(),
            "provider": intent.provider,
            "relay": intent.ledger.map(|ledger| ledger.relay.to_string()),
            "epoch": intent.ledger.map(|ledger| ledger.epoch),
        });
    }
    if let Fact::Receipt(receipt) = fact {
        return json!({
            "payment_id": receipt.intent.to_string(),
            "provider": receipt.provider,
            "number": receipt.number,
            "amount_minor": receipt.amount.minor,
            "currency": receipt.amount.currency.code(),
            "paid_at": rfc3339(receipt.paid_at),
            "evidence": evidence_word(receipt.evidence),
            "attempt": receipt.attempt,
            "test": receipt.test,
        });
    }
    if let Fact::Decline(decline) = fact {
        return json!({
            "payment_id": decline.intent.to_string(),
            "attempt": decline.attempt,
            "code": decline.code,
            "reason": decline.reason,
        });
    }
    if let Fact::IntentAddressed(addressed) = fact {
        return json!({
            "payment_id": addressed.intent.to_string(),
            "relay": addressed.ledger.relay.to_string(),
            "epoch": addressed.ledger.epoch,
        });
    }
    if let Fact::IntentConfirmed(confirmed) = fact {
        return json!({ "payment_id": confirmed.intent.to_string() });
    }
    if let Fact::Enrolment(certificate) = fact {
        return json!({
            "device": certificate.device.to_string(),
            "name": certificate.name,
            "role": super::peers::role_word(certificate.role),
            "enrolled_at": rfc3339(certificate.issued),
        });
    }
    let Fact::Resolution(resolution) = fact else { return Value::Null };
    json!({
        "conflict_id": resolution.conflict.to_string(),
        "choice": resolution.choice,
        "note": resolution.note,
    })
}

fn handoff_json(fact: &Fact) -> Value {
    if let Fact::HandoffOffered(offered) = fact {
        return json!({
            "shift_id": offered.shift.to_string(),
            "to": offered.to.to_string(),
            "counted_minor": offered.counted.minor,
            "expected_minor": offered.expected_minor,
            "currency": offered.counted.currency.code(),
            "tickets": offered.tickets.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "note": offered.note,
            "operation_id": offered.source.as_ref().map(|source| &source.key),
        });
    }
    if let Fact::HandoffAccepted(accepted) = fact {
        let (handoff, counted) = (accepted.handoff.to_string(), accepted.counted);
        return json!({
            "handoff_id": handoff, "counted_minor": counted.minor, "currency": counted.currency.code(),
        });
    }
    if let Fact::HandoffTransferred(transferred) = fact {
        return json!({ "handoff_id": transferred.handoff.to_string() });
    }
    if let Fact::HandoffWithdrawn(withdrawn) = fact {
        return json!({ "handoff_id": withdrawn.handoff.to_string(), "reason": withdrawn.reason });
    }
    let Fact::HandoffDecided(decided) = fact else { return Value::Null };
    json!({
        "handoff_id": decided.handoff.to_string(), "to": decided.to.to_string(), "note": decided.note,
        "owner": decided.owner.to_string(),
    })
}

fn payment_json(fact: &PaymentFact) -> Value {
    match fact {
        PaymentFact::Suspense(fact) => json!({
            "note": "suspense",
            "provider": fact.provider,
            "number": fact.number,
            "amount_minor": fact.amount.minor,
            "currency": fact.amount.currency.code(),
            "paid_at": rfc3339(fact.paid_at),
            "evidence": evidence_word(fact.evidence),
            "reason": fact.reason.map(reason_word),
            "payment_id": fact.intent.map(|id| id.to_string()),
            "account": fact.account,
            "test": fact.test,
        }),
        PaymentFact::Revoked(fact) => json!({
            "note": "receipt_revoked",
            "payment_id": fact.intent.to_string(),
            "receipt_id": fact.receipt.to_string(),
            "reason": fact.reason,
        }),
        PaymentFact::Review(fact) => json!({
            "note": "review",
            "payment_id": fact.intent.to_string(),
            "attempt": fact.attempt,
            "reason": reason_word(fact.reason),
        }),
        PaymentFact::Retry(fact) => json!({
            "note": "retry",
            "payment_id": fact.intent.to_string(),
            "after_attempt": fact.after_attempt,
        }),
        PaymentFact::GiveUp(fact) => json!({
            "note": "give_up",
            "payment_id": fact.intent.to_string(),
            "instead": super::payments::instead_word(fact.instead),
        }),
        PaymentFact::GiveUpAnswer(fact) => json!({
            "note": "give_up_answer",
            "payment_id": fact.intent.to_string(),
            "request_id": fact.request.to_string(),
            "granted": fact.granted,
        }),
        PaymentFact::CodeClaim(fact) => json!({
            "note": "code",
            "payment_id": fact.intent.to_string(),
            "provider": fact.provider,
            "code": fact.code,
        }),
        PaymentFact::Proposal(fact) => json!({
            "note": "proposal",
            "subject": fact.subject.to_string(),
            "settlement": settlement_json(fact.settlement),
            "reason": fact.note,
        }),
        PaymentFact::Check(fact) => json!({
            "note": "check",
            "proposal": fact.proposal.to_string(),
            "agreed": fact.agreed,
            "reason": fact.note,
        }),
        PaymentFact::Progress(fact) => json!({
            "note": "progress",
            "payment_id": fact.intent.to_string(),
            "attempt": fact.attempt,
            "stage": super::payments::stage_word(fact.stage),
        }),
        PaymentFact::Moved(fact) => json!({
            "note": "ledger_moved",
            "from": ledger_json(fact.from),
            "to": ledger_json(fact.to),
            "payment_id": fact.intent.map(|id| id.to_string()),
            "old_is_gone": fact.old_is_gone,
            "owner": fact.owner.to_string(),
        }),
        PaymentFact::Released(fact) => json!({
            "note": "released",
            "payment_id": fact.intent.to_string(),
            "moved": fact.moved.to_string(),
            "attempts": fact.attempts,
            "reconciled": fact.reconciled,
        }),
        PaymentFact::CashTaken(fact) => json!({
            "note": "cash_taken",
            "payment_id": fact.intent.to_string(),
            "amount_minor": fact.amount.minor,
            "currency": fact.amount.currency.code(),
        }),
        PaymentFact::Outcome(fact) => json!({
            "note": "outcome",
            "proposal": fact.proposal.to_string(),
            "state": super::payments::outcome_word(fact.state),
            "detail": fact.detail,
        }),
    }
}

fn ledger_json(ledger: Ledger) -> Value {
    json!({ "device": ledger.relay.to_string(), "epoch": ledger.epoch })
}

fn lines(lines: &[Line]) -> Value {
    let each = lines.iter().map(|line| {
        json!({
            "sku": line.sku,
            "quantity_milli": line.quantity_milli,
            "unit_price_minor": line.unit_price_minor,
            "discount_minor": line.discount_minor,
            "tax_rate_bp": line.tax_rate_bp,
        })
    });
    each.collect()
}

fn tenders(tenders: &[Tender]) -> Value {
    tenders.iter().map(|tender| json!({ "kind": way(tender.kind), "amount_minor": tender.amount_minor })).collect()
}

const fn way(kind: TenderKind) -> &'static str {
    match kind {
        TenderKind::Cash => "cash",
        TenderKind::Mpesa => "mpesa",
        TenderKind::Other => "other",
    }
}

fn occurred(at: Option<Timestamp>) -> Option<String> {
    at.map(rfc3339)
}
