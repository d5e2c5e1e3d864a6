#!/usr/bin/env python3
"""What scraping costs, and what forwarding everything adds: Stint, Prometheus and vmagent side by side on the same targets.

--targets targets of --series series each are scraped every 5 s, first without remote write and then with it (remote
write 2.0 where a server speaks it). Told are CPU seconds of user and system per million samples, memory, bytes sent per
sample, and how many times as much the others need.

    benches/forward.py --stint target/release/stint --prometheus $(which prometheus) --vmagent $(which vmagent)

Needs Python 3 and nothing else. A program that is not given is left out; vmagent stores nothing and always forwards.
Servers listen on loopback, from --port on.
"""

import argparse, gzip, http.server, os, random, re, shutil, subprocess, tempfile, threading, time

INTERVAL = 5


def bodies(target, series):
    """Four bodies of a target, for its scrapes in turn: counters, some of which move, and gauges."""
    chance = random.Random(target)
    values = [chance.randrange(1 << chance.randrange(1, 40)) for _ in range(series)]
    made = []
    for _ in range(4):
        lines = []
        for n in range(series):
            family = n // 8
            if n % 8 == 0:
                lines.append(f"# HELP app_metric_{family}_total What family {family} counts.\n# TYPE app_metric_{family}_total counter")
            if n % 3 == 0:
                values[n] += chance.randrange(1000)
            lines.append(f'app_metric_{family}_total{{method="GET",path="/api/v1/path/{n % 8}"}} {values[n]}')
        made.append(gzip.compress(("\n".join(lines) + "\n").encode(), 5))
    return made


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    targets, turns, scrapes = [], {}, 0
    requests = taken = 0

    def do_GET(self):
        target = int(self.path.split("/")[2])
        turn = Handler.turns[target] = Handler.turns.get(target, -1) + 1
        Handler.scrapes += 1
        body = Handler.targets[target][turn % 4]
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        Handler.taken += len(self.rfile.read(int(self.headers["content-length"])))
        Handler.requests += 1
        self.send_response(204)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


def cpu(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid):
    text = open(f"/proc/{pid}/status").read()
    return [int(re.search(name + r":\s+(\d+)", text)[1]) / 1024 for name in ("VmRSS", "RssAnon")]


def command(name, program, folder, port, sink, forward):
    config = f"{folder}/prometheus.yml"
    with open(config, "w") as file:
        file.write(f"global: {{scrape_interval: {INTERVAL}s, scrape_timeout: {INTERVAL}s}}\nscrape_configs:\n- job_name: bench\n  static_configs:\n")
        for target in range(len(Handler.targets)):
            labels = f"__metrics_path__: '/target/{target}/metrics', instance: 'host-{target:05d}', environment: production"
            file.write(f"  - targets: ['127.0.0.1:{sink}']\n    labels: {{{labels}}}\n")
        if forward and name != "vmagent":
            file.write(f"remote_write:\n- url: http://127.0.0.1:{sink}/api/v1/write\n  protobuf_message: io.prometheus.write.v2.Request\n")
    if name == "vmagent":
        listen = [f"-httpListenAddr=127.0.0.1:{port}", f"-remoteWrite.tmpDataPath={folder}/data"]
        return [program, f"-promscrape.config={config}", f"-remoteWrite.url=http://127.0.0.1:{sink}/api/v1/write"] + listen
    listen = [f"--web.listen-address=127.0.0.1:{port}", f"--storage.tsdb.path={folder}/data"]
    return [program, f"--config.file={config}"] + listen


def measure(name, program, options, forward):
    folder = tempfile.mkdtemp(prefix="stint-forward-")
    line = command(name, program, folder, options.port, options.port + 1, forward)
    with open(f"{folder}/log", "w") as log:
        server = subprocess.Popen(line, stdout=log, stderr=subprocess.STDOUT)
    try:
        time.sleep(options.warm)
        used, scrapes, taken, requests = cpu(server.pid), Handler.scrapes, Handler.taken, Handler.requests
        time.sleep(options.seconds)
        samples = (Handler.scrapes - scrapes) * options.series
        if not samples:
            raise SystemExit(f"{name} scraped nothing:\n" + open(f"{folder}/log").read())
        rss, anonymous = memory(server.pid)
        return {
            "cpu": (cpu(server.pid) - used) / samples * 1e6,
            "rss": rss,
            "anonymous": anonymous,
            "bytes": (Handler.taken - taken) / samples,
            "requests": Handler.requests - requests,
        }
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("stint", "prometheus", "vmagent"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--targets", type=int, default=20)
    parser.add_argument("--series", type=int, default=500)
    parser.add_argument("--warm", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--port", type=int, default=26120)
    options = parser.parse_args()
    Handler.targets = [bodies(target, options.series) for target in range(options.targets)]
    http.server.ThreadingHTTPServer.request_queue_size = 512
    listener = http.server.ThreadingHTTPServer(("127.0.0.1", options.port + 1), Handler)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    found = {}
    for forward in (False, True):
        for name in ("stint", "prometheus", "vmagent"):
            program = getattr(options, name)
            if program and (forward or name != "vmagent"):
                found[name, forward] = measure(name, program, options, forward)
    print(f"{options.targets} targets of {options.series} series every {INTERVAL} s, {options.seconds} s\n")
    print("| | forwards | CPU s per 1M samples | RSS MiB | anonymous | bytes per sample | requests | CPU, Stint's = 1 |")
    print("|---|---|---|---|---|---|---|---|")
    for (name, forward), it in found.items():
        own = found.get(("stint", forward), it)["cpu"] or 1
        print(f"| {name} | {'yes' if forward else 'no'} | {it['cpu']:.2f} | {it['rss']:.1f} | {it['anonymous']:.1f} | {it['bytes']:.2f} | {it['requests']} | {it['cpu'] / own:.2f} |")
    for name in ("stint", "prometheus"):
        if (name, True) in found:
            print(f"{name}: forwarding adds {found[name, True]['cpu'] - found[name, False]['cpu']:.2f} CPU s per 1M samples")


if __name__ == "__main__":
    main()
