#!/usr/bin/env python3
"""What the budget report costs over many series, and whether ingestion waits for it.

--series series of 400 targets are written scrape by scrape to a server that forwards them within a budget of 10 000
series; then it goes on at a steady pace while the report is asked for again and again. It is told how long a report
takes, and how long writes take with and without reports beside them.

    benches/budget_report.py --stint target/release/stint [--series 200000]

Needs Python 3 and nothing else. Servers listen on loopback, from --port on.
"""

import argparse, http.client, http.server, json, shutil, subprocess, sys, tempfile, threading, time, urllib.request

from outage import SERIES, Endpoint, Scrape, cpu, memory


def quantile(times, q):
    times = sorted(times)
    return times[min(len(times) - 1, int(q * len(times)))] * 1000


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stint", required=True)
    parser.add_argument("--series", type=int, default=200_000)
    parser.add_argument("--reports", type=int, default=20)
    parser.add_argument("--port", type=int, default=26110)
    options = parser.parse_args()
    port, sink = options.port, options.port + 1
    listener = http.server.ThreadingHTTPServer(("127.0.0.1", sink), Endpoint)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    folder = tempfile.mkdtemp(prefix="stint-report-")
    with open(f"{folder}/prometheus.yml", "w") as file:
        file.write(f"remote_write:\n- name: cloud\n  url: http://127.0.0.1:{sink}/api/v1/write\n")
    with open(f"{folder}/retention.toml", "w") as file:
        file.write('[endpoint.cloud.budget]\nseries = 10000\ninterval = "1m"\n')
    command = [options.stint, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    command += [f"--retention.file={folder}/retention.toml"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--web.enable-remote-write-receiver"]
    with open(f"{folder}/log", "w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        run(options, server, port)
    except urllib.error.URLError:
        print(open(f"{folder}/log").read(), file=sys.stderr)
        raise
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(folder)


def run(options, server, port):
    for _ in range(200):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready")
            break
        except OSError:
            time.sleep(0.05)
    scrapes = [Scrape(target) for target in range(options.series // SERIES)]
    connection = http.client.HTTPConnection("127.0.0.1", port)
    headers = {"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf"}
    headers["X-Prometheus-Remote-Write-Version"] = "0.1.0"
    number = 0

    def write():
        nonlocal number
        body = scrapes[number % len(scrapes)].at(int(time.time() * 1000), number)
        began = time.time()
        connection.request("POST", "/api/v1/write", body, headers)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status // 100 != 2:
            sys.exit(f"not taken: {answer.status} {text}")
        number += 1
        return time.time() - began

    for _ in range(3 * len(scrapes)):
        write()
    time.sleep(3)
    alone = [write() for _ in range(len(scrapes)) if not time.sleep(0.01)]
    reports, sizes, stop = [], [], threading.Event()

    def ask():
        for _ in range(options.reports):
            began = time.time()
            answer = urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/status/budget").read()
            reports.append(time.time() - began)
            sizes.append(len(answer))
            time.sleep(0.1)
        stop.set()

    used = cpu(server.pid)
    asker = threading.Thread(target=ask)
    asker.start()
    beside = []
    while not stop.is_set():
        beside.append(write())
        time.sleep(0.01)
    spent = cpu(server.pid) - used
    data = json.loads(urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/status/budget").read())["data"]
    endpoints = data.get("endpoints", data)
    print(f"{options.series:,} series, {len(reports)} reports of {sizes[-1] / 1024:.0f} KiB for {len(endpoints)} endpoint(s)")
    print(f"a report: p50 {quantile(reports, 0.5):.0f} ms, p99 {quantile(reports, 0.99):.0f} ms; {spent / len(reports) * 1000:.0f} ms CPU each, writes included")
    for name, times in (("alone", alone), ("beside reports", beside)):
        print(f"a write of {SERIES} samples {name}: p50 {quantile(times, 0.5):.1f} ms, p99 {quantile(times, 0.99):.1f} ms, at most {max(times) * 1000:.1f} ms")
    print(f"memory {memory(server.pid)[0]:.0f} MiB")


if __name__ == "__main__":
    main()
