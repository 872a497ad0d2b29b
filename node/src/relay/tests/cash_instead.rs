//! A customer who cancels pays in cash: the till that asked has it, in its shift, on every device.

use crdt_model::books::{Figure, IntentState};
use crdt_model::money::{Currency, Money};
use crdt_model::record::{Fact, Role, ShiftOpened, TenderKind};
use crdt_model::shop::Operation;
use transport::LinkIds;

use super::rig::{CANCELS, Device, Rig, identity, link, patiently};
use crate::operations::{NewSale, NewTender, give_up_payment, sale, void};
use crate::storage::MemoryDisk;

fn one(fact: Fact) -> Operation {
    Operation { facts: vec![fact], ..Operation::default() }
}

#[tokio::test]
async fn cash_instead_is_in_the_shift_of_the_till_that_took_it_and_a_void_gives_it_back() {
    let rig = Rig::start().await;
    let mama = Device::start(&MemoryDisk::new(), identity(2, Role::Till, Currency::KES), false);
    link(&LinkIds::default(), &mama, &rig.device);
    let opening_float = Money::new(1_000, Currency::KES);
    let opened = mama.shop.record(one(Fact::ShiftOpened(ShiftOpened { source: None, opening_float }))).await.unwrap();
    let shift = opened.records[0];
    let named = patiently("who pays", async {
        while mama.shop.ask(|shop| shop.settings().paying_ledger).await.unwrap().is_none() {
            tokio::task::yield_now().await;
        }
    });
    named.await;
    let new = NewSale {
        currency: Currency::KES,
        lines: vec![crdt_model::record::Line {
            sku: "BREAD".to_owned(),
            quantity_milli: 1_000,
            unit_price_minor: 6_500,
            discount_minor: 0,
            tax_rate_bp: None,
        }],
        tenders: vec![NewTender { kind: TenderKind::Mpesa, amount_minor: 6_500, phone: Some(CANCELS.to_owned()) }],
        source: None,
        occurred: None,
        customer: None,
        note: None,
        ticket: None,
    };
    let sold = mama.shop.record(sale(&mama.shop, new).await.unwrap().operation).await.unwrap();
    let (sale, intent) = (sold.records[0], sold.records[1]);
    mama.until(intent, IntentState::Declined).await;
    let expected = |device: &Device| {
        let shop = device.shop.clone();
        async move { shop.ask(move |shop| shop.books().z_report(shift).unwrap()).await.unwrap() }
    };
    assert_eq!(expected(&mama).await.cash_expected_minor, 1_000);
    let wish = give_up_payment(&mama.shop, intent, crdt_model::record::Instead::Cash).await.unwrap();
    mama.shop.record(wish.operation).await.unwrap();
    for device in [&mama, &rig.device] {
        let taken = patiently("the cash", async {
            while expected(device).await.cash_expected_minor != 7_500 {
                tokio::task::yield_now().await;
            }
        });
        taken.await;
        let totals = expected(device).await.totals.currency(Currency::KES);
        assert_eq!((totals.of(Figure::CashInMinor), totals.of(Figure::MpesaInMinor)), (6_500, 0));
        assert!(device.shop.ask(move |shop| shop.books().sale_status(sale).completed).await.unwrap());
    }
    let back = void(&mama.shop, sale, "wrong goods".to_owned()).await.unwrap();
    mama.shop.record(back.operation).await.unwrap();
    assert_eq!(expected(&mama).await.cash_expected_minor, 1_000);
    let again = void(&mama.shop, sale, "wrong goods".to_owned()).await.unwrap();
    assert!(mama.shop.record(again.operation).await.unwrap().repeated);
}
