#!/usr/bin/env python3
"""What an outage of a remote write endpoint costs: memory beyond that of a run without one, and how long catching up takes.

10 000 series of 20 targets, scraped every 15 s for --hours, are written scrape by scrape. In the first run everything is
forwarded meanwhile; in the second one the endpoint answers 503 from the eleventh minute to the end, and then takes
everything again. It is told how much more memory the second run had at most, and how long it took until nothing was left
to send. Everything must arrive.

    benches/outage.py --stint target/release/stint [--v2] [--hours 6]

Needs Python 3 and nothing else. Servers listen on loopback, from --port on.
"""

import argparse, http.client, http.server, os, re, shutil, struct, subprocess, sys, tempfile, threading, time, urllib.request

TARGETS, SERIES, STEP_MS = 20, 500, 15_000


def varint(n):
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def field(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def snappy(data):
    """One literal after the other: valid, and not smaller."""
    out = bytearray(varint(len(data)))
    for at in range(0, len(data), 65536):
        part = data[at : at + 65536]
        out += bytes([61 << 2]) + struct.pack("<H", len(part) - 1) + part
    return bytes(out)


class Scrape:
    """The requests of one target: the same bytes every time but for times and values."""

    def __init__(self, target):
        self.body, self.places = bytearray(), []
        for n in range(SERIES):
            labels = [
                ("__name__", f"app_metric_{n // 10}_total"),
                ("environment", "production"),
                ("instance", f"host-{target:03d}:9100"),
                ("job", "node"),
                ("path", f"/api/v1/path/{n % 10}"),
            ]
            pairs = b"".join(field(1, field(1, k.encode()) + field(2, v.encode())) for k, v in labels)
            sample = b"\x09" + bytes(8) + b"\x10" + varint(1 << 40)
            self.body += field(1, pairs + field(2, sample))
            self.places.append(len(self.body) - len(sample) + 1)

    def at(self, ms, number):
        when, body = b"\x10" + varint(ms), self.body
        for n, place in enumerate(self.places):
            body[place : place + 8] = struct.pack("<d", number * (n % 7))
            body[place + 8 : place + 15] = when
        return snappy(bytes(body))


class Endpoint(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    requests = bytes_taken = 0
    is_up = True

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if Endpoint.is_up:
            Endpoint.requests += 1
            Endpoint.bytes_taken += len(body)
        self.send_response(204 if Endpoint.is_up else 503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


def memory(pid):
    text = open(f"/proc/{pid}/status").read()
    of = lambda name: int(re.search(name + r":\s+(\d+)", text)[1]) / 1024
    return of("VmRSS"), of("RssAnon")


def cpu(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def metric(port, name):
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if re.match(name + r"[{ ]", line))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stint", required=True)
    parser.add_argument("--v2", action="store_true", help="forward by remote write 2.0")
    parser.add_argument("--hours", type=float, default=6)
    parser.add_argument("--port", type=int, default=26100)
    options = parser.parse_args()
    sink = options.port + 1
    http.server.ThreadingHTTPServer.request_queue_size = 64
    listener = http.server.ThreadingHTTPServer(("127.0.0.1", sink), Endpoint)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    well = with_server(options, sink, False)
    outage = with_server(options, sink, True)
    print(f"extra memory: {outage[0] - well[0]:.1f} MiB at most, of which anonymous {outage[1] - well[1]:.1f}")


def with_server(options, sink, outage):
    folder = tempfile.mkdtemp(prefix="stint-outage-")
    message = "io.prometheus.write.v2.Request" if options.v2 else "prometheus.WriteRequest"
    with open(f"{folder}/prometheus.yml", "w") as file:
        file.write(f"remote_write:\n- url: http://127.0.0.1:{sink}/api/v1/write\n  protobuf_message: {message}\n")
    command = [options.stint, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    command += [f"--web.listen-address=127.0.0.1:{options.port}", "--web.enable-remote-write-receiver"]
    with open(f"{folder}/log", "w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        return run(options, server, options.port, outage)
    finally:
        Endpoint.is_up = True
        server.terminate()
        server.wait()
        shutil.rmtree(folder)


def run(options, server, port, outage):
    for _ in range(200):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready")
            break
        except OSError:
            time.sleep(0.05)
    Endpoint.requests = Endpoint.bytes_taken = 0
    rounds = int(options.hours * 3_600_000 / STEP_MS)
    start = int(time.time() * 1000) - rounds * STEP_MS
    connection = http.client.HTTPConnection("127.0.0.1", port)
    headers = {"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf"}
    headers["X-Prometheus-Remote-Write-Version"] = "0.1.0"
    scrapes = [Scrape(target) for target in range(TARGETS)]
    highest = [0, 0]

    def look():
        now = memory(server.pid)
        highest[:] = [max(a, b) for a, b in zip(highest, now)]
        return now

    def wait(until, patience=900):
        began = time.time()
        while True:
            look()
            failed = metric(port, "prometheus_remote_storage_samples_failed_total")
            sent = metric(port, "prometheus_remote_storage_samples_total") - failed
            if sent >= until:
                return
            if time.time() - began > patience:
                sys.exit(f"{sent:,.0f} of {until:,} samples arrived in {patience} s")
            time.sleep(0.2)

    for number in range(rounds):
        for target, scrape in enumerate(scrapes):
            body = scrape.at(start + number * STEP_MS + target * STEP_MS // TARGETS, number)
            connection.request("POST", "/api/v1/write", body, headers)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status // 100 != 2:
                sys.exit(f"not taken: {answer.status} {text}")
        if number % 40 == 39:
            look()
            if Endpoint.is_up:
                wait((number + 1) * TARGETS * SERIES)
            if outage:
                Endpoint.is_up = False
    total = rounds * TARGETS * SERIES
    if not outage:
        wait(total)
        print(f"without an outage: at most {highest[0]:.1f} MiB, anonymous {highest[1]:.1f}; {Endpoint.bytes_taken / total:.2f} bytes per sample")
        return highest
    time.sleep(5)
    before, used, requests = look(), cpu(server.pid), Endpoint.requests
    Endpoint.is_up, began = True, time.time()
    while Endpoint.requests == requests and time.time() - began < 120:
        time.sleep(0.05)
    first = time.time()
    wait(total)
    took, spent = time.time() - first, cpu(server.pid) - used
    print(f"{total:,} samples of {TARGETS * SERIES:,} series over {options.hours} h while nobody took them: {before[0]:.1f} MiB, anonymous {before[1]:.1f}")
    print(f"next attempt after {first - began:.1f} s; caught up in {took:.1f} s, {spent:.1f} CPU s; at most {highest[0]:.1f} MiB, anonymous {highest[1]:.1f}")
    return highest


if __name__ == "__main__":
    main()
