//! The test vectors that docs/protocol.md shows are what this version computes, byte for byte,
//! and what the document calls a vector is one: neither can drift from the other.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::fmt::Write;

use crdt_model::document::{DocumentId, FieldEdit, FieldValue, SharedDocument};
use crdt_model::entry::{After, Body, Class, Entry, PageLabel, Personal, Place};
use crdt_model::frontier::{Frontier, FrontierRow};
use crdt_model::ids::{
    BusinessId, DeviceId, EntryHash, JournalId, OwnerKey, RecordId, ShortHash, domain_hash, hash_uuid,
};
use crdt_model::journal::{Journal, JournalGenesis, JournalInfo, Tail, sign_mark};
use crdt_model::money::{Currency, Money};
use crdt_model::page;
use crdt_model::payment::{ReviewReason, Shown, TABLE};
use crdt_model::record::{
    Certificate, DeliveryOutcome, DeliveryState, ErrorClass, Evidence, Fact, Genesis, Intent, IntentConfirmed, Ledger,
    LedgerMoved, Line, PaymentFact, Role, Sale, Source, Suspense, Tender, TenderKind, UpstreamFact,
};
use crdt_model::sync::codec::{Run, decode_block, encode_block};
use crdt_model::sync::compact::{Compact, JournalRef};
use crdt_model::sync::holding::{Holding, HoldingsKnown, holdings_digest};
use crdt_model::sync::message::{Asking, Bye, ByeCode, Hello, Message, PROTOCOL_VERSION};
use crdt_model::time::{Day, Hlc, Timestamp};
use ed25519_dalek::SigningKey;
use transport::PeerKey;
use transport::bluetooth::{Ack, DiscoverySecret, Flow, Fragment, Opening, Piece};

const DOCUMENT: &str = include_str!("../docs/protocol.md");

#[test]
fn the_document_shows_the_bytes_that_this_version_writes() {
    let shown = shown();
    let mut wrong = String::new();
    let mut computed = computed();
    computed.extend(bluetooth());
    for (name, bytes) in &computed {
        if shown.get(*name) != Some(bytes) {
            write!(wrong, "\n```vector {name}\n{}```\n", wrapped(bytes)).unwrap();
        }
    }
    assert!(wrong.is_empty(), "docs/protocol.md should show:\n{wrong}");
    for name in shown.keys() {
        let known = computed.iter().any(|(other, _)| other == name) || READ_ONLY.contains(&name.as_str());
        assert!(known, "docs/protocol.md shows a vector {name} that no test computes");
    }
}

#[test]
fn the_business_id_is_the_hash_of_the_genesis_that_the_document_shows() {
    let genesis = &shown()["genesis"];
    let hash = domain_hash("tillmesh 2026 business genesis", &[genesis]);
    assert_eq!(hash_uuid(hash), shop().business().0);
    let mut changed = genesis.clone();
    *changed.last_mut().unwrap() ^= 1;
    assert_ne!(hash_uuid(domain_hash("tillmesh 2026 business genesis", &[&changed])), shop().business().0);
}

#[test]
fn the_entry_reads_back_and_its_author_vouches_for_it() {
    let bytes = &shown()["entry"];
    let entry = Entry::from_bytes(bytes).unwrap();
    assert_eq!(entry, sale_entry());
    assert_eq!(entry.to_bytes(), *bytes);
    let signature = entry.mark.unwrap().signature;
    let unmarked = Entry { mark: None, ..entry };
    let journal = Journal::new(journal_info());
    assert_eq!(journal.verify_run(&[unmarked], &signature).unwrap(), [sale_hash()]);
}

#[test]
fn both_blocks_read_back_as_the_runs_they_were_made_of() {
    let shown = shown();
    assert_eq!(shown["block"][0], 0, "the small block is not compressed");
    assert_eq!(decode_block(&shown["block"]).unwrap(), [small_run()]);
    let packed = &shown["block-compressed"];
    assert_ne!(packed[0], 0, "this one is compressed");
    assert_eq!(decode_block(packed).unwrap(), [sales_run()]);
    // Other versions of zstd may write other bytes, which read back all the same.
    assert_eq!(decode_block(&encode_block(&[sales_run()])).unwrap(), [sales_run()]);
}

#[test]
fn compact_runs_are_read_after_the_entry_that_they_follow() {
    let shown = shown();
    let read = |name: &str, tail: &Tail| {
        let Message::Compact(run) = Message::from_frame(&shown[name]).unwrap() else { panic!("{name} is another") };
        run.unpack(tail).unwrap()
    };
    let first = small_run().entries;
    assert_eq!(read("live", &Tail::default()), first);
    assert_eq!(read("carried", &Tail::of(&first[0])), sales_run().entries[..1]);
}

#[test]
fn the_holding_is_signed_by_its_device_for_this_business_alone() {
    holding().verify(shop().business()).unwrap();
    assert!(holding().verify(BusinessId(hash_uuid([1; 32]))).is_err());
    assert!(Holding { number: 1, ..holding() }.verify(shop().business()).is_err());
}

#[test]
fn each_frame_reads_back_as_the_message_it_was_made_of() {
    let journal = journal_genesis().id();
    let told = [Message::Holding(Box::new(holding())), holdings_known(), Message::SignPlease];
    let acknowledged = [have(JournalRef::of_end(journal)), have(JournalRef::any(journal))];
    for message in [hello(), frontier_message(), bye(), live(), carried()].into_iter().chain(acknowledged).chain(told) {
        assert_eq!(Message::from_frame(&message.to_frame()).unwrap(), message);
    }
}

#[test]
fn the_limits_are_those_of_the_document() {
    let limits = limits();
    for (name, limit) in &limits {
        let row = format!("| `{name}` | {limit} |");
        assert!(DOCUMENT.contains(&row), "docs/protocol.md should have the row {row}");
    }
    let rows = DOCUMENT.lines().filter(|line| line.starts_with("| `") && line.contains("_")).count();
    let named =
        DOCUMENT.lines().filter(|line| limits.iter().any(|(name, _)| line.starts_with(&format!("| `{name}` |"))));
    assert_eq!(rows, named.count(), "docs/protocol.md lists a limit that no test knows");
}

#[test]
fn the_table_of_what_a_till_shows_is_the_one_that_this_version_has() {
    let document = include_str!("../docs/payments.md");
    for shown in Shown::ALL {
        let row = format!("| `{}` | `{}` | {} |", shown.word(), shown.counts_as().word(), shown.sentence());
        assert!(document.contains(&row), "docs/payments.md should have {row}");
    }
    for (state, shown) in TABLE {
        let name = format!("{state:?}").to_uppercase().replace("LATEPAID", "LATE_PAID");
        let row = document.lines().find(|line| line.contains(&format!("`{}` | `", shown.word())));
        assert!(row.is_some_and(|row| row.contains(&name)), "docs/payments.md should list {name} as {}", shown.word());
    }
}

/// Vectors that are read and never written.
const READ_ONLY: [&str; 2] = ["genesis", "block-compressed"];

fn computed() -> Vec<(&'static str, Vec<u8>)> {
    let business = shop().business();
    let record = RecordId::from_client(business, "till-1", "42");
    let entry = sale_entry();
    let (first, change, heads) = product_document();
    vec![
        ("owner-key", shop().owners[0].0.to_vec()),
        ("device-id", device().0.to_vec()),
        ("business-id", business.0.as_bytes().to_vec()),
        ("hello", hello().to_frame()),
        ("suspense", minicbor::to_vec(suspense()).unwrap()),
        ("ledger_moved", minicbor::to_vec(ledger_moved()).unwrap()),
        ("delivery", minicbor::to_vec(delivery()).unwrap()),
        ("journal-genesis-hash", journal_genesis().hash().0.to_vec()),
        ("journal-id", journal_genesis().id().0.to_vec()),
        ("record-from-client", record.0.as_bytes().to_vec()),
        ("record-from-place", RecordId::from_place(journal_genesis().id(), 1, 0).0.as_bytes().to_vec()),
        ("record-derived", record.derived("intent", 0).0.as_bytes().to_vec()),
        ("part-hash-facts", entry.parts[0].hash().to_vec()),
        ("part-hash-personal", entry.parts[1].hash().to_vec()),
        ("entry-hash", sale_hash().0.to_vec()),
        ("entry", entry.to_bytes()),
        ("block", encode_block(&[small_run()])),
        ("live", live().to_frame()),
        ("carried", carried().to_frame()),
        ("have-yours", have(JournalRef::of_end(journal_genesis().id())).to_frame()),
        ("have", have(JournalRef::any(journal_genesis().id())).to_frame()),
        ("holding", Message::Holding(Box::new(holding())).to_frame()),
        ("holdings-digest", holdings_digest(&[(device(), holding().number)]).0.to_vec()),
        ("holdings-known", holdings_known().to_frame()),
        ("frontier-digest", frontier().digest().0.to_vec()),
        ("frontier", frontier_message().to_frame()),
        ("bye", bye().to_frame()),
        ("page-heads", page_heads()),
        ("document-first", first),
        ("document-change", change),
        ("document-heads", heads),
    ]
}

/// The vectors in the document: blocks that begin with ```` ```vector NAME ````.
fn shown() -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut lines = DOCUMENT.lines();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("```vector ") else { continue };
        let digits: String = lines.by_ref().take_while(|line| !line.starts_with("```")).collect();
        assert!(found.insert(name.to_owned(), unhex(digits.trim())).is_none(), "{name} is shown twice");
    }
    found
}

fn unhex(digits: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("two hexadecimal digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}

fn wrapped(bytes: &[u8]) -> String {
    let line = |line: &[u8]| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
    bytes.chunks(48).map(line).collect()
}

/// What goes over the air before anything is encrypted.
fn bluetooth() -> Vec<(&'static str, Vec<u8>)> {
    let tag = DiscoverySecret([6; 32]).tag(PeerKey(device().0), 2_000_000);
    let opening = Opening { nonce: 0x0403_0201, fragment_bytes_max: 508, credit: 128, tag };
    let ack = Ack { next: 3, credit: None, selective: 0 };
    let piece = Flow { piece: Some(Piece { seq: 7, last: false, payload: b"bread" }), ack: Some(ack), ask: false };
    let alone = Flow { piece: None, ack: Some(Ack { credit: Some(100), selective: 0b110, ..ack }), ask: true };
    vec![
        ("bluetooth-tag", tag.0.to_vec()),
        ("bluetooth-open", Fragment::Open(opening).to_bytes()),
        ("bluetooth-piece", Fragment::Flow(piece).to_bytes()),
        ("bluetooth-acknowledgement", Fragment::Flow(alone).to_bytes()),
    ]
}

#[test]
fn fragments_read_back_as_they_were_written() {
    let shown = shown();
    for (name, bytes) in bluetooth().iter().skip(1) {
        let fragment = Fragment::parse(&shown[*name]).unwrap();
        assert_eq!(fragment.to_bytes(), *bytes, "{name}");
    }
}

fn owner() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

fn device_key() -> SigningKey {
    SigningKey::from_bytes(&[2; 32])
}

fn device() -> DeviceId {
    DeviceId(device_key().verifying_key().to_bytes())
}

fn shop() -> Genesis {
    Genesis {
        name: "Duka".to_owned(),
        currency: Currency::KES,
        founded: Timestamp(1_700_000_000_000),
        owners: vec![OwnerKey(owner().verifying_key().to_bytes())],
        recovery: OwnerKey([3; 32]),
        utc_offset_minutes: 180,
        nonce: [4; 16],
    }
}

fn certificate() -> Certificate {
    let (name, at) = ("till 1".to_owned(), Timestamp(1_700_000_100_000));
    Certificate::sign(shop().business(), device(), name, Role::Till, at, &owner())
}

fn journal_genesis() -> JournalGenesis {
    JournalGenesis { business: shop().business(), device: device(), epoch: 1, nonce: [5; 16] }
}

fn journal_info() -> JournalInfo {
    JournalInfo { genesis: journal_genesis(), fork: None, certificate: certificate() }
}

fn sale(key: &str, kind: TenderKind) -> Sale {
    let line = Line {
        sku: "BREAD".to_owned(),
        quantity_milli: 2000,
        unit_price_minor: 6500,
        discount_minor: 0,
        tax_rate_bp: Some(1600),
    };
    Sale {
        source: Some(Source { instance: "till-1".to_owned(), key: key.to_owned() }),
        occurred: None,
        currency: Currency::KES,
        lines: vec![line],
        tenders: vec![Tender { kind, amount_minor: 13_000 }],
        customer: None,
        note: None,
        ticket: None,
    }
}

fn entry_of(body: Body, class: Class, after_ms: u64) -> Entry {
    Entry {
        class,
        page: PageLabel { ordinal: 0, day: Day(19_675) },
        time: Hlc::from_wall(Timestamp(1_700_000_200_000 + after_ms)),
        user: None,
        after: Vec::new(),
        parts: body.to_parts(|| [6; 16]),
        mark: None,
    }
}

/// A sale that M-PESA pays, and the intent that comes with it.
fn sale_entry() -> Entry {
    let sold = Fact::Sale(sale("42", TenderKind::Mpesa));
    let record = RecordId::from_client(shop().business(), "till-1", "42");
    let intent = Fact::Intent(Intent {
        source: None,
        sale: Some((record, 0)),
        amount: Money::new(13_000, Currency::KES),
        provider: "mpesa".to_owned(),
        ledger: Some(Ledger { relay: DeviceId([7; 32]), epoch: 1 }),
    });
    let personal = vec![Personal { fact: 1, phone: Some("254708374149".to_owned()) }];
    let body = Body { facts: vec![sold, intent], personal, changes: Vec::new() };
    let after = After { place: Place { journal: JournalId([8; 16]), seq: 3 }, hash: ShortHash([9; 16]) };
    let mut entry = entry_of(body, Class::Intent, 0);
    entry.user = Some("cashier-1".to_owned());
    entry.after = vec![after];
    let hash = first_hash(&entry);
    entry.mark = Some(sign_mark(&device_key(), hash));
    entry
}

fn sale_hash() -> EntryHash {
    first_hash(&sale_entry())
}

fn first_hash(entry: &Entry) -> EntryHash {
    entry.hash(shop().business(), journal_genesis().id(), 1, &journal_genesis().hash())
}

fn run_of(entries: Vec<Entry>) -> Run {
    let (mut hash, journal) = (journal_genesis().hash(), journal_genesis().id());
    for (seq, entry) in (1..).zip(&entries) {
        hash = entry.hash(shop().business(), journal, seq, &hash);
    }
    let signature = sign_mark(&device_key(), hash).signature;
    Run { journal, info: None, start: 1, entries, signature }
}

fn delivery() -> Fact {
    Fact::Upstream(UpstreamFact::Outcome(DeliveryOutcome {
        operation: RecordId::from_client(shop().business(), "till-1", "42"),
        ordinal: 1,
        state: DeliveryState::Failed,
        attempts: 1,
        server_id: None,
        http_status: Some(422),
        class: Some(ErrorClass::Validation),
        code: Some("closed_day".to_owned()),
        detail: Some("status 422: the day is closed".to_owned()),
        conflict: None,
        strategy: None,
        server: None,
        server_tag: None,
        disputed: Vec::new(),
        maybe_twice: false,
        decided: None,
    }))
}

fn suspense() -> Fact {
    Fact::Payment(PaymentFact::Suspense(Suspense {
        provider: "mpesa".to_owned(),
        number: "SFF6XYZ123".to_owned(),
        amount: Money::new(6_500, Currency::KES),
        paid_at: Timestamp(1_700_000_300_000),
        evidence: Evidence::Pull,
        reason: Some(ReviewReason::SecondReceipt),
        intent: Some(RecordId(hash_uuid([10; 32]))),
        account: "ABCDEFGH2345".to_owned(),
        test: false,
    }))
}

fn ledger_moved() -> Fact {
    let ledger = |epoch| Ledger { relay: device(), epoch };
    let owner = owner();
    Fact::Payment(PaymentFact::Moved(LedgerMoved::sign(shop().business(), ledger(1), ledger(2), None, false, &owner)))
}

fn small_run() -> Run {
    let confirmed = Fact::IntentConfirmed(IntentConfirmed { intent: RecordId(hash_uuid([10; 32])) });
    run_of(vec![entry_of(Body { facts: vec![confirmed], ..Body::default() }, Class::Intent, 0)])
}

fn sales_run() -> Run {
    let sold = |number: u64| {
        let facts = vec![Fact::Sale(sale(&number.to_string(), TenderKind::Cash))];
        entry_of(Body { facts, ..Body::default() }, Class::Normal, number * 1500)
    };
    run_of((1..=4).map(sold).collect())
}

/// A run of one entry, in the compact form.
fn live() -> Message {
    let journal = JournalRef::of_end(journal_genesis().id());
    Message::Compact(Compact::of(&small_run(), &Tail::default(), journal).unwrap())
}

/// A sale after that entry.
fn carried() -> Message {
    let (first, sold) = (small_run().entries.remove(0), sales_run().entries.remove(0));
    let hash = sold.hash(shop().business(), journal_genesis().id(), 2, &first_hash(&first));
    let signature = sign_mark(&device_key(), hash).signature;
    let run = Run { journal: journal_genesis().id(), info: None, start: 2, entries: vec![sold], signature };
    Message::Compact(Compact::of(&run, &Tail::of(&first), JournalRef::any(run.journal)).unwrap())
}

fn holding() -> Holding {
    Holding::sign(shop().business(), &device_key(), 1_700_000_300_000, frontier())
}

fn holdings_known() -> Message {
    let numbers = vec![(device(), holding().number)];
    Message::HoldingsKnown(HoldingsKnown { digest: holdings_digest(&numbers), numbers: Some(numbers) })
}

fn have(journal: JournalRef) -> Message {
    Message::Have(vec![(journal, 300)])
}

fn hello() -> Message {
    let (business, certificate) = (shop().business(), certificate());
    Message::Hello(Hello { version: PROTOCOL_VERSION, business, certificate })
}

fn frontier() -> Frontier {
    let row = FrontierRow { journal: journal_genesis().id(), base: 0, high: 1, hash: sale_hash().short() };
    Frontier(vec![row])
}

fn frontier_message() -> Message {
    let asking = Asking { digest: frontier().digest(), frontier: Some(frontier()), skip: Vec::new() };
    Message::Frontier(asking)
}

fn bye() -> Message {
    Message::Bye(Bye { code: ByeCode::Version, reason: "update the older one".to_owned() })
}

fn page_heads() -> Vec<u8> {
    let label = PageLabel { ordinal: 0, day: Day(19_675) };
    let journal = journal_genesis().id();
    let entries = sales_run().entries;
    let placed: Vec<(Place, &Entry)> =
        (1..).zip(&entries).map(|(seq, entry)| (Place { journal, seq }, entry)).collect();
    let page = page::render(&placed, journal, label).unwrap();
    assert_eq!(page::read(&page.bytes).unwrap().len(), 4);
    page.heads.concat()
}

/// The first change, a product's price and name, and the heads.
fn product_document() -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let record = RecordId::from_client(shop().business(), "product", "BREAD");
    let mut document = SharedDocument::new(DocumentId::catalogue(record));
    let edit = |field: &str, value| FieldEdit { record, field: field.to_owned(), value: Some(value) };
    let edits = [edit("name", FieldValue::Text("Bread".to_owned())), edit("price_minor", FieldValue::Int(6500))];
    let change = document.edit(journal_genesis().id(), 1_700_000_200_000, &edits).unwrap().unwrap();
    (document.first().to_vec(), change, document.heads().concat())
}

fn limits() -> Vec<(&'static str, u64)> {
    fn bytes(count: usize) -> u64 {
        u64::try_from(count).unwrap()
    }
    use crdt_model::{
        document, entry, frontier, journal, record, sync::codec, sync::compact, sync::holding, sync::message, time,
    };
    vec![
        ("ENTRY_BYTES_MAX", bytes(entry::ENTRY_BYTES_MAX)),
        ("PARTS_MAX", bytes(entry::PARTS_MAX)),
        ("FACTS_MAX", bytes(entry::FACTS_MAX)),
        ("CHANGES_MAX", bytes(entry::CHANGES_MAX)),
        ("AFTER_MAX", bytes(entry::AFTER_MAX)),
        ("PAGE_FACTS_MAX", u64::from(entry::PAGE_FACTS_MAX)),
        ("MARK_EVERY_ENTRIES", journal::MARK_EVERY_ENTRIES),
        ("MARK_EVERY_BYTES", bytes(journal::MARK_EVERY_BYTES)),
        ("SOURCE_BYTES_MAX", bytes(record::SOURCE_BYTES_MAX)),
        ("NAME_BYTES_MAX", bytes(record::NAME_BYTES_MAX)),
        ("TEXT_BYTES_MAX", bytes(record::TEXT_BYTES_MAX)),
        ("LINES_MAX", bytes(record::LINES_MAX)),
        ("TENDERS_MAX", bytes(record::TENDERS_MAX)),
        ("HANDOFF_TICKETS_MAX", bytes(record::HANDOFF_TICKETS_MAX)),
        ("CUSTOM_BODY_BYTES_MAX", bytes(record::CUSTOM_BODY_BYTES_MAX)),
        ("VERSION_BYTES_MAX", bytes(record::VERSION_BYTES_MAX)),
        ("DEVICE_NAME_BYTES_MAX", bytes(record::DEVICE_NAME_BYTES_MAX)),
        ("CHANGE_BYTES_MAX", bytes(document::CHANGE_BYTES_MAX)),
        ("OPS_MAX", bytes(document::OPS_MAX)),
        ("DEPS_MAX", bytes(document::DEPS_MAX)),
        ("REPLACED_MAX", bytes(document::REPLACED_MAX)),
        ("FIELD_BYTES_MAX", bytes(document::FIELD_BYTES_MAX)),
        ("RUN_ENTRIES_MAX", bytes(codec::RUN_ENTRIES_MAX)),
        ("RUN_BYTES_SOFT", bytes(codec::RUN_BYTES_SOFT)),
        ("RUNS_MAX", bytes(codec::RUNS_MAX)),
        ("COMPACT_ENTRIES_MAX", bytes(compact::COMPACT_ENTRIES_MAX)),
        ("COMPACT_BYTES_MAX", bytes(compact::COMPACT_BYTES_MAX)),
        ("HOLDINGS_MAX", bytes(holding::HOLDINGS_MAX)),
        ("BLOCK_PLAINTEXT_BYTES_MAX", bytes(codec::BLOCK_PLAINTEXT_BYTES_MAX)),
        ("FRAME_BYTES_MAX", bytes(message::FRAME_BYTES_MAX)),
        ("FRONTIER_ROWS_AT_ONCE", bytes(message::FRONTIER_ROWS_AT_ONCE)),
        ("CHECKPOINTS_MAX", bytes(message::CHECKPOINTS_MAX)),
        ("FRONTIER_ROWS_MAX", bytes(frontier::FRONTIER_ROWS_MAX)),
        ("CLOCK_ADVANCE_MAX_MS", time::CLOCK_ADVANCE_MAX_MS),
    ]
}
