#!/usr/bin/env python3
"""What evaluating rules costs: Stint, Prometheus and vmalert (with VictoriaMetrics) side by side on the same rules.

100 metrics of 1000 series each are written ahead of their time, so that nothing is ingested while it is measured; then
1000 recording rules in 100 groups run every 15 s. Told are CPU seconds of user and system, memory, and how late
evaluations begin. With --alerts, 10 000 alerts fire, and the memory that holds them is told.

    benches/rules.py --stint target/release/stint --prometheus $(which prometheus) \
        --victoria-metrics $(which victoria-metrics) --vmalert $(which vmalert)

Needs Python 3 and nothing else. A program that is not given is left out. Servers listen on loopback, from --port on.
"""

import argparse, json, os, shutil, struct, subprocess, sys, tempfile, time, urllib.error, urllib.parse, urllib.request

METRICS, SERIES, STEP = 100, 1000, 15


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


def series(labels, samples):
    body = b"".join(field(1, field(1, k.encode()) + field(2, v.encode())) for k, v in sorted(labels.items()))
    for at, value in samples:
        body += field(2, b"\x09" + struct.pack("<d", value) + b"\x10" + varint(at))
    return field(1, body)


def labels_of(metric, n):
    return {
        "__name__": f"requests_{metric:03}_total",
        "job": f"job-{n % 10}",
        "instance": f"host-{n // 10 % 20}:9100",
        "handler": f"/api/{n // 200}",
        "code": "500" if n % 50 == 0 else "200",
    }


def requests(url, body):
    headers = {
        "Content-Encoding": "snappy",
        "Content-Type": "application/x-protobuf",
        "X-Prometheus-Remote-Write-Version": "0.1.0",
    }
    urllib.request.urlopen(urllib.request.Request(url, snappy(body), headers), timeout=120).read()


def write(urls, begin, end):
    """Samples of all series for every step of begin..end, in milliseconds."""
    times = range(begin, end, STEP * 1000)
    for metric in range(METRICS):
        for first in range(0, SERIES, 250):
            body = bytearray()
            for n in range(first, first + 250):
                slope = 1 + (metric * 7 + n * 13) % 50
                body += series(labels_of(metric, n), [(at, float((at - begin) // 1000 * slope)) for at in times])
            for url in urls:
                requests(url + "/api/v1/write", bytes(body))


def rules():
    groups = []
    for metric in range(METRICS):
        name = f"requests_{metric:03}_total"
        exprs = {
            "job:rate": f"sum by (job) (rate({name}[1m]))",
            "instance:rate": f"sum by (instance) (rate({name}[1m]))",
            "handler:rate": f"sum by (job, handler) (rate({name}[2m]))",
            "job:errors": f'sum by (job) (rate({name}{{code="500"}}[1m]))',
            "job:ratio": f"job:errors:{metric:03} / job:rate:{metric:03}",
            "job:max": f"max by (job) ({name})",
            "count": f"count({name})",
            "top": f"topk(5, sum by (instance) (rate({name}[1m])))",
            "job:increase": f"sum by (job) (increase({name}[2m]))",
            "all": f"sum(job:rate:{metric:03})",
        }
        lines = [f"  - {{record: '{record}:{metric:03}', expr: '{expr}'}}" for record, expr in exprs.items()]
        groups.append(f"- name: g{metric:03}\n  interval: {STEP}s\n  rules:\n" + "\n".join(lines))
    return "groups:\n" + "\n".join(groups) + "\n"


ALERTS = """groups:
- name: alerts
  interval: 15s
  rules:
  - alert: RequestsStopped
    expr: label_replace({__name__=~"requests_00.*_total"}, "metric", "$1", "__name__", "(.*)") >= 0
    labels: {severity: page}
    annotations: {summary: '{{ $labels.handler }} of {{ $labels.instance }} is at {{ $value | humanize }}'}
"""


class Process:
    def __init__(self, command, url, folder):
        self.url, self.command = url, command
        self.log = open(os.path.join(folder, os.path.basename(command[0]) + f"-{time.time_ns()}.log"), "wb")
        self.child = subprocess.Popen(command, stdout=self.log, stderr=self.log)

    def ready(self):
        for _ in range(600):
            for path in ("/-/ready", "/health"):
                try:
                    if urllib.request.urlopen(self.url + path, timeout=5).status == 200:
                        return self
                except (urllib.error.URLError, OSError):
                    pass
            if self.child.poll() is not None:
                sys.exit(f"{self.command[0]} ended: see {self.log.name}")
            time.sleep(0.1)
        sys.exit(f"{self.command[0]} is not ready")

    def cpu(self):
        parts = open(f"/proc/{self.child.pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self):
        """Anonymous memory in MiB."""
        for line in open(f"/proc/{self.child.pid}/status"):
            if line.startswith("RssAnon"):
                return int(line.split()[1]) / 1024
        return 0

    def stop(self):
        self.child.terminate()
        self.child.wait()
        self.log.close()


def ask(url, query):
    text = urllib.request.urlopen(url + "/api/v1/query?" + urllib.parse.urlencode({"query": query}), timeout=60).read()
    return json.loads(text)["data"]["result"]


def lag(url):
    """How many ms after their time the groups began, at their last evaluation."""
    groups = json.load(urllib.request.urlopen(url + "/api/v1/rules?exclude_alerts=true", timeout=60))["data"]["groups"]
    points = {}
    for number in range(METRICS):
        for result in ask(url, f"timestamp(count:{number:03})"):
            points[f"g{number:03}"] = float(result["value"][1])
    lags = []
    for group in groups:
        text = group["lastEvaluation"]
        seconds = time.mktime(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone
        fraction = text[19:].rstrip("Z").split("+")[0]
        begun = seconds + (float("0" + fraction) if fraction.startswith(".") else 0)
        late = (begun - points[group["name"]]) * 1000
        if 0 <= late < STEP * 1000:
            lags.append((late, group["evaluationTime"] * 1000))
    return lags


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))] if values else float("nan")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stint")
    parser.add_argument("--prometheus")
    parser.add_argument("--victoria-metrics")
    parser.add_argument("--vmalert")
    parser.add_argument("--seconds", type=int, default=120, help="how long it is measured")
    parser.add_argument("--port", type=int, default=21000)
    parser.add_argument("--alerts", action="store_true", help="measure 10 000 firing alerts, not recording rules")
    args = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="rules-bench-")
    file = os.path.join(folder, "rules.yml")
    with open(file, "w") as out:
        out.write("groups: []\n")
    config = os.path.join(folder, "prometheus.yml")
    with open(config, "w") as out:
        out.write(f"global: {{evaluation_interval: {STEP}s}}\nrule_files: ['{file}']\n")
    targets = {}
    port = iter(range(args.port, args.port + 20))
    for name, program in (("stint", args.stint), ("prometheus", args.prometheus)):
        if program:
            at = f"127.0.0.1:{next(port)}"
            command = [program, f"--config.file={config}", f"--storage.tsdb.path={folder}/{name}",
                       f"--web.listen-address={at}", "--web.enable-remote-write-receiver", "--web.enable-lifecycle"]
            targets[name] = [Process(command, f"http://{at}", folder).ready()]
    if args.victoria_metrics and args.vmalert:
        at, rules_at = f"127.0.0.1:{next(port)}", f"127.0.0.1:{next(port)}"
        command = [args.victoria_metrics, f"-storageDataPath={folder}/vm", f"-httpListenAddr={at}", "-retentionPeriod=7d"]
        targets["vmalert"] = [Process(command, f"http://{at}", folder).ready()]
        command = [args.vmalert, f"-rule={file}", f"-datasource.url=http://{at}", f"-remoteWrite.url=http://{at}",
                   f"-httpListenAddr={rules_at}", "-notifier.blackhole", f"-evaluationInterval={STEP}s"]
        targets["vmalert"].append(Process(command, f"http://{rules_at}", folder).ready())
    try:
        now = int(time.time() * 1000)
        # Prometheus takes nothing that is more than ten minutes ahead.
        ahead = min(args.seconds + 240, 590)
        print(f"writing {METRICS * SERIES} series", file=sys.stderr)
        write([processes[0].url for processes in targets.values()], now - 300_000, now + ahead * 1000)
        time.sleep(20)
        idle = {name: sum(p.memory() for p in processes) for name, processes in targets.items()}
        with open(file, "w") as out:
            out.write(ALERTS if args.alerts else rules())
        for name, processes in targets.items():
            urllib.request.urlopen(urllib.request.Request(processes[-1].url + "/-/reload", method="POST"), timeout=60)
        # The first round fills what is cached.
        time.sleep(2 * STEP + 2)
        before = {name: sum(p.cpu() for p in processes) for name, processes in targets.items()}
        begun = time.time()
        while time.time() - begun < args.seconds:
            time.sleep(STEP)
        took = time.time() - begun
        cpu = {name: sum(p.cpu() for p in processes) - before[name] for name, processes in targets.items()}
        print(f"{'':12}{'CPU s':>8}{'per round':>11}{'MiB':>8}{'more than idle':>16}")
        for name, processes in targets.items():
            memory = sum(p.memory() for p in processes)
            rounds = took / STEP
            print(f"{name:12}{cpu[name]:8.2f}{cpu[name] / rounds:11.3f}{memory:8.1f}{memory - idle[name]:16.1f}")
        others = [seconds for name, seconds in cpu.items() if name != "stint"]
        if "stint" in cpu and others:
            print(f"stint / the better of the others: {cpu['stint'] / min(others):.2f}")
        for name in ("stint", "prometheus"):
            if name in targets and not args.alerts:
                all_lags = lag(targets[name][0].url)
                late, long = [l[0] for l in all_lags], [l[1] for l in all_lags]
                print(f"{name}: begun p50 {quantile(late, 0.5):.1f} ms, p99 {quantile(late, 0.99):.1f} ms late;"
                      f" groups take p50 {quantile(long, 0.5):.1f} ms, p99 {quantile(long, 0.99):.1f} ms"
                      f" ({len(late)} evaluations)")
                for what in ("missed", ""):
                    name_of = "prometheus_rule_group_iterations_missed_total" if what else "prometheus_rule_evaluation_failures_total"
                    text = urllib.request.urlopen(targets[name][0].url + "/metrics", timeout=60).read().decode()
                    total = sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name_of + "{"))
                    print(f"{name}: {name_of} {total:.0f}")
            if name in targets and args.alerts:
                data = json.load(urllib.request.urlopen(targets[name][0].url + "/api/v1/alerts", timeout=60))
                print(f"{name}: {len(data['data']['alerts'])} alerts")
    finally:
        for processes in targets.values():
            for process in reversed(processes):
                process.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
