"""Starts a node with a shop's data and a server of the shop's own, both on loopback, and lets
schemathesis call every operation of the node's OpenAPI document. Both end with this."""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STARTS_WITHIN_S = 60
ENDS_WITHIN_S = 600


class ShopsServer(BaseHTTPRequestHandler):
    """Takes everything, but for what is called refused or contradicted."""

    protocol_version = "HTTP/1.1"
    taken = 0

    def answer(self):
        given = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode("utf-8", "replace")
        ShopsServer.taken += 1
        status, body = 201, {"id": f"s-{ShopsServer.taken}"}
        if "refused" in given:
            status, body = 422, {"code": "closed_day"}
        elif "contradicted" in given:
            status, body = 409, {"code": "odd", "version": "7"}
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

    def log_message(self, *_):
        pass


class Node:
    """A node of a new business, with the owner's key."""

    def __init__(self, program, folder, server_port):
        upstream = folder / "upstream.toml"
        upstream.write_text(f"base_url = 'http://127.0.0.1:{server_port}'\nallow_loopback = true\nclaim_quiet_ms = 50\n")
        data = str(folder / "data")
        subprocess.run(
            [program, "init", "--data", data, "--name", "Duka", "--currency", "KES"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        self.log = open(folder / "node.log", "w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [program, "run", "--json", "--data", data, "--api", "127.0.0.1:0", "--no-lan", "--bluetooth", "off"]
            + ["--upstream", str(upstream)],
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            sys.exit(f"the node did not start: {self.log.read()[-2000:]}")
        self.url = "http://" + json.loads(line)["api"]

    def ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as refused:
            sys.exit(f"{method} {path} {body}: {refused.code} {refused.read().decode()}")

    def record(self, path, body):
        return self.ask("POST", path, body)["id"]

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()


def sale(number, note=None):
    line = {"sku": "BREAD", "quantity_milli": 1000 * number, "unit_price_minor": 6500}
    tender = {"kind": "cash", "amount_minor": 6500 * number}
    return {"lines": [line], "currency": "KES", "tenders": [tender], "note": note}


def fill(node):
    """Records a day; gives ids for the paths of the document."""
    product = {"name": "Bread", "price_minor": 6500, "category": "bakery", "tax_rate_bp": 1600}
    for sku in ["BREAD", "TEA", "MILK", "SALT"]:
        node.record("/api/products", {"sku": sku, **product})
    customers = [node.record("/api/customers", {"name": f"Customer {n}", "phone": "254708374149"}) for n in range(4)]
    shifts = [node.record("/api/shifts", {"float_minor": 100_000})]
    for quantity in [5_000, -1_000]:
        node.record("/api/stock/adjustments", {"sku": "MILK", "quantity_milli": quantity, "reason": "delivery"})
    counted = [node.record("/api/stock/adjustments", {"sku": "TEA", "counted_milli": 7_000})]
    sales = [node.record("/api/sales", sale(number % 3 + 1)) for number in range(12)]
    sales.append(node.record("/api/sales", {**sale(1), "note": "refused"}))
    node.record(f"/api/sales/{sales[0]}/void", {"reason": "wrong item"})
    expenses = [node.record("/api/expenses", {"category": "fuel", "amount_minor": 500}) for _ in range(3)]
    records = [node.record("/api/records", {"record_type": "deposit", "amount_minor": 1_000}) for _ in range(3)]
    lines = [{"sku": "TEA", "quantity_milli": 1_000, "unit_price_minor": 2_000}]
    tickets = [node.record("/api/tickets", {"name": f"Table {n}", "lines": lines}) for n in range(4)]
    operations = []
    for number, body in enumerate(["plain", "refused", "contradicted", "later"]):
        operation = {"operation_id": f"visit-{number}", "operation_type": "visit", "method": "POST"}
        operation |= {"endpoint": "/api/visits", "request_body": {"of": body}}
        operations.append(node.record("/api/offline/queue", operation))
    node.ask("POST", "/api/offline/sync", {})
    documents = [item["id"] for item in node.ask("GET", "/api/documents")["items"]]
    conflicts = [item["id"] for item in node.ask("GET", "/api/conflicts?all=true")["items"]]
    assert conflicts, "there is something to decide"
    skus = ["BREAD", "TEA", "MILK", "SALT"]
    return {
        "/api/sales/{id}": sales,
        "/api/sales/{id}/void": sales,
        "/api/sales/{id}/refund": sales,
        "/api/expenses/{id}": expenses,
        "/api/records/{id}": records,
        "/api/stock/{sku}": skus,
        "/api/stock/adjustments/{id}": counted,
        "/api/products/{sku}": skus,
        "/api/customers/{id}": customers,
        "/api/tickets/{id}": tickets,
        "/api/tickets/{id}/close": tickets,
        "/api/shifts/{id}": shifts,
        "/api/shifts/{id}/close": shifts,
        "/api/documents/{id}": documents,
        "/api/conflicts/{id}/resolve": conflicts,
        "/api/offline/history/{id}": operations,
        "/api/offline/sync/{id}": operations,
    }


def config(ids, business):
    """What schemathesis has to know that no schema says."""
    lines = [
        "[checks.positive_data_acceptance]",
        # 422: a rule of the shop that a schema can't tell. 413, 503, 507: no matter of the request.
        'expected-statuses = ["2xx", "403", "404", "409", "413", "422", "503", "507"]',
        "[parameters]",
        # Nothing is waited for: there is no relay.
        '"query.wait" = 0',
        f'"query.businessId" = "{business}"',
    ]
    operations = []
    for number, (path, values) in enumerate(ids.items()):
        name = "sku" if path.endswith("{sku}") else "id"
        lines += [f"[dictionaries.known-{number}]", f"values = {json.dumps(values)}"]
        binding = f'{{ dictionary = "known-{number}", probability = 0.7 }}'
        operations += ["[[operations]]", f'include-path = "{path}"', f'parameters = {{ "path.{name}" = {binding} }}']
    return "\n".join(lines + operations) + "\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", required=True)
    parser.add_argument("--schemathesis", required=True)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--examples", default="15")
    parser.add_argument("--only")
    options = parser.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", 0), ShopsServer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        node = Node(options.program, folder, server.server_port)
        try:
            ids = fill(node)
            business = node.ask("GET", "/api/business")["id"]
            (folder / "schemathesis.toml").write_text(config(ids, business))
            command = [options.schemathesis, "--config-file", str(folder / "schemathesis.toml")]
            command += ["run", node.url + "/openapi.json", "--seed", options.seed, "--max-examples", options.examples]
            # Events never end; a test of the project's own reads them.
            command += ["--exclude-path", "/api/events", "--phases", "examples,coverage,fuzzing"]
            command += ["--continue-on-failure", "--suppress-health-check", "all", "--no-color", "--warnings", "off"]
            command += ["--generation-database", "none", "--request-timeout", "30", "--mode", "all"]
            if options.only:
                command += ["--include-path", options.only]
            began = time.monotonic()
            status = subprocess.run(command, cwd=folder, timeout=ENDS_WITHIN_S).returncode
            print(f"schemathesis: {'no violation' if status == 0 else 'VIOLATIONS'} after {time.monotonic() - began:.0f} s")
            if node.process.poll() is not None:
                print(f"the node ended by itself: {node.process.returncode}")
                status = 1
            return 1 if status else 0
        finally:
            node.stop()
            server.shutdown()


sys.exit(main())
