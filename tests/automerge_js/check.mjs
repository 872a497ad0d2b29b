// Opens every save in a folder with the published Automerge library, and compares what it reads
// with what the node said of it. index.json lists the saves: {file, id, heads, decoded}.

import { strict as assert } from "node:assert";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import * as Automerge from "@automerge/automerge";

const folder = process.argv[2];
const index = JSON.parse(readFileSync(join(folder, "index.json"), "utf8"));
const counts = { documents: 0, facts: 0, fields: 0 };

for (const { file, id, heads, decoded } of index) {
  const doc = Automerge.load(new Uint8Array(readFileSync(join(folder, file))));
  assert.deepEqual([...Automerge.getHeads(doc)].sort(), [...heads].sort(), `${id}: heads`);
  assert.deepEqual([...decoded.heads].sort(), [...heads].sort(), `${id}: heads in JSON`);
  if (decoded.kind === "page") checkPage(doc, decoded);
  else checkShared(doc, decoded);
  checkThatItCanBeEdited(doc);
  counts.documents += 1;
}
console.log(JSON.stringify(counts));

function checkPage(doc, decoded) {
  assert.equal(doc._journal, decoded.journal);
  assert.equal(doc._day, decoded.day);
  assert.equal(typeof doc._page, "number");
  const keys = Object.keys(doc).filter((key) => !key.startsWith("_"));
  assert.equal(keys.length, decoded.content.length, `${decoded.id}: facts`);
  for (const { seq, index, kind, fact } of decoded.content) {
    const cbor = doc[`${seq}/${index}`];
    assert.ok(cbor instanceof Uint8Array, `${seq}/${index} is bytes`);
    const [number, [fields]] = decode(cbor);
    assert.equal(typeof number, "number");
    if (kind === "sale") checkSale(fields, fact);
    counts.facts += 1;
  }
}

// docs/protocol.md: sale = [source, occurred, currency, lines, tenders, …], line = [sku, quantity, price, …]
function checkSale([, , currency, lines], fact) {
  assert.equal(currency, fact.currency);
  const seen = lines.map(([sku, quantity, price]) => [sku, quantity, price]);
  const said = fact.lines.map((line) => [line.sku, line.quantity_milli, line.unit_price_minor]);
  assert.deepEqual(seen, said);
}

function checkShared(doc, decoded) {
  assert.equal(doc._document, decoded.id);
  const read = {};
  for (const key of Object.keys(doc).filter((key) => !key.startsWith("_"))) {
    const at = key.indexOf("/");
    (read[key.slice(0, at)] ??= {})[key.slice(at + 1)] = doc[key];
    counts.fields += 1;
  }
  assert.deepEqual(read, decoded.records, `${decoded.id}: fields`);
  for (const [key, values] of Object.entries(decoded.conflicting ?? {})) {
    const seen = Object.values(Automerge.getConflicts(doc, key)).sort();
    assert.deepEqual(seen, [...values].sort(), `${decoded.id}: values of ${key}`);
  }
}

function checkThatItCanBeEdited(doc) {
  const edited = Automerge.change(doc, (draft) => {
    draft["from-javascript"] = "hujambo";
  });
  const again = Automerge.load(Automerge.save(edited));
  assert.equal(again["from-javascript"], "hujambo");
}

// As much of CBOR as facts use.
function decode(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  const value = item();
  assert.equal(at, bytes.length, "bytes behind a fact");
  return value;

  function take(count) {
    at += count;
    return at - count;
  }

  function argument(short) {
    if (short < 24) return short;
    if (short === 24) return view.getUint8(take(1));
    if (short === 25) return view.getUint16(take(2));
    if (short === 26) return view.getUint32(take(4));
    assert.equal(short, 27);
    return Number(view.getBigUint64(take(8)));
  }

  function item() {
    const head = view.getUint8(take(1));
    const [major, short] = [head >> 5, head & 31];
    if (major === 7) return { 20: false, 21: true, 22: null }[short];
    const number = argument(short);
    switch (major) {
      case 0: return number;
      case 1: return -1 - number;
      case 2: return bytes.slice(take(number), at);
      case 3: return new TextDecoder().decode(bytes.slice(take(number), at));
      case 4: return Array.from({ length: number }, item);
      default: throw new Error(`no fact holds CBOR of major type ${major}`);
    }
  }
}
