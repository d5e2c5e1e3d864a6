//! The real program, killed with -9 while clients write to it: what it acknowledged is there after the next start, with
//! the value that was sent, and nothing that was never sent. The oracle is outside the program.
//!
//! A few rounds by default, many with `STINT_LONG=1`.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value as Json;
use stint_model::clock::SystemClock;
use stint_model::{Clock as _, Sample, Timestamp};
use stint_wire::remote_write::v1;
use stint_wire::snappy::compress_into;
use tokio::sync::Notify;

use crate::process::{Running, free_address};
use crate::support::TestDir;

const CLIENTS: usize = 4;
const SERIES_PER_CLIENT: usize = 25;

/// By client: time in milliseconds → value; every series of a client gets the same samples.
type Sent = Vec<BTreeMap<i64, f64>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kill_9() {
    let rounds = if std::env::var_os("STINT_LONG").is_some() { 200 } else { 4 };
    let dir = TestDir::new();
    std::fs::write(dir.path().join("prometheus.yml"), "").unwrap();
    let address = free_address();
    let start = || {
        Running::start(
            Command::new(env!("CARGO_BIN_EXE_stint"))
                .args(["--config.file=prometheus.yml", "--web.enable-remote-write-receiver"])
                .arg(format!("--web.listen-address={address}"))
                .current_dir(dir.path()),
        )
    };
    let now = SystemClock::default().now().as_ms();
    let mut oracle = Oracle { acknowledged: vec![BTreeMap::new(); CLIENTS], ..Oracle::default() };
    oracle.in_doubt.resize(CLIENTS, BTreeMap::new());
    for round in 0..rounds {
        let server = start();
        wait_until_ready(&address).await;
        oracle.verify(&address).await;
        // Unlike numbers, so that the kill meets different moments of the log.
        let kill_after = 3 + round * 17 % 61;
        oracle.write_until_killed(&address, server, now + round as i64 * 2000, kill_after).await;
    }
    let server = start();
    wait_until_ready(&address).await;
    oracle.verify(&address).await;
    server.terminate();
    let inspect = Command::new(env!("CARGO_BIN_EXE_stint"))
        .args(["inspect", "--verify", "--storage.tsdb.path=data"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(inspect.status.success(), "{}", String::from_utf8_lossy(&inspect.stdout));
}

/// What the clients know.
#[derive(Default)]
struct Oracle {
    /// Answered with success: must be there.
    acknowledged: Sent,
    /// Sent without an answer: may be there, whole or not at all.
    in_doubt: Sent,
}

impl Oracle {
    /// All clients write, one request after the other, until `kill_after` were acknowledged together; then the server
    /// is killed under the requests of the others.
    async fn write_until_killed(
        &mut self,
        address: &str,
        server: Running,
        from: i64,
        kill_after: u64,
    ) {
        let count = Arc::new(AtomicU64::new(0));
        let enough = Arc::new(Notify::new());
        let writers: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (count, enough) = (Arc::clone(&count), Arc::clone(&enough));
                let url = format!("http://{address}/api/v1/write");
                tokio::spawn(async move {
                    let http = reqwest::Client::builder().no_proxy().build().unwrap();
                    let mut acknowledged = BTreeMap::new();
                    for step in 0.. {
                        let (at, value) = (from + step, (from + step) as f64 / 7.0 + client as f64);
                        let request = http.post(&url).header("Content-Encoding", "snappy");
                        match request.body(body(client, at, value)).send().await {
                            Ok(answer) if answer.status() == 204 => {
                                acknowledged.insert(at, value);
                                if count.fetch_add(1, Ordering::Relaxed) + 1 == kill_after {
                                    enough.notify_one();
                                }
                            }
                            Ok(answer) => panic!("refused: {answer:?}"),
                            Err(_) => return (acknowledged, BTreeMap::from([(at, value)])),
                        }
                    }
                    unreachable!("the server is killed before")
                })
            })
            .collect();
        enough.notified().await;
        server.kill_9();
        for (client, writer) in writers.into_iter().enumerate() {
            let (acknowledged, in_doubt) = writer.await.unwrap();
            self.acknowledged[client].extend(acknowledged);
            self.in_doubt[client].extend(in_doubt);
        }
    }

    /// Compares everything that is stored with what was sent.
    async fn verify(&self, address: &str) {
        let stored = stored(address).await;
        for client in 0..CLIENTS {
            let (sure, doubtful) = (&self.acknowledged[client], &self.in_doubt[client]);
            let mut first = None;
            for n in 0..SERIES_PER_CLIENT {
                let name = (client.to_string(), n.to_string());
                let held = stored.get(&name).cloned().unwrap_or_default();
                for (at, value) in sure {
                    assert_eq!(held.get(at), Some(value), "acknowledged for {name:?} at {at}");
                }
                for (at, value) in &held {
                    let sent = sure.get(at).or_else(|| doubtful.get(at));
                    assert_eq!(Some(value), sent, "stored for {name:?} at {at}");
                }
                let first = first.get_or_insert_with(|| held.clone());
                assert_eq!(*first, held, "a request is stored as a whole: {name:?}");
            }
        }
    }
}

fn body(client: usize, at: i64, value: f64) -> Vec<u8> {
    let mut encoder = v1::Encoder::new();
    let client = client.to_string();
    for n in 0..SERIES_PER_CLIENT {
        let n = n.to_string();
        let labels = [("__name__", "crash"), ("client", client.as_str()), ("n", n.as_str())];
        encoder.series(labels).sample(&Sample::float(Timestamp(at), value));
    }
    let mut body = Vec::new();
    compress_into(encoder.body(), &mut body).unwrap();
    body
}

/// Asks until the server is ready: a foreign process offers no event to wait for.
async fn wait_until_ready(address: &str) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    for _ in 0..6000 {
        tick.tick().await;
        let answer = http.get(format!("http://{address}/-/ready")).send().await;
        if answer.is_ok_and(|answer| answer.status() == 200) {
            return;
        }
    }
    panic!("the server did not become ready within a minute");
}

/// (client, n) → time in milliseconds → value.
async fn stored(address: &str) -> BTreeMap<(String, String), BTreeMap<i64, f64>> {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    // A quarter of an hour ahead, since the rounds write a little into the future.
    let at = SystemClock::default().now().as_ms() / 1000 + 900;
    let form = [("query", "crash[1h]".to_owned()), ("time", at.to_string())];
    let answer = http.post(format!("http://{address}/api/v1/query")).form(&form).send().await;
    let answer: Json = serde_json::from_str(&answer.unwrap().text().await.unwrap()).unwrap();
    let matrix = answer["data"]["result"].as_array().unwrap_or_else(|| panic!("{answer}"));
    let series = matrix.iter().map(|series| {
        let label = |name: &str| series["metric"][name].as_str().unwrap().to_owned();
        let values = series["values"].as_array().unwrap().iter().map(|pair| {
            let seconds = pair[0].as_f64().unwrap();
            ((seconds * 1000.0).round() as i64, pair[1].as_str().unwrap().parse().unwrap())
        });
        ((label("client"), label("n")), values.collect())
    });
    series.collect()
}
