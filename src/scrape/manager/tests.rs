use super::super::fetch::Clients;
use super::super::testing::{Script, Store, TokioClock, always};
use super::super::{FetchError, Health};
use super::*;
use crate::config::tests_support::config;
use crate::discovery::DiscoveryMetrics;
use stint_model::Timestamp;

const START: i64 = 1_800_000_000_000;

struct House {
    store: Arc<Store>,
    script: Arc<Script>,
    manager: Manager,
}

fn metrics() -> (ScrapeMetrics, Arc<Hub>) {
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::at(Timestamp(START)));
    let registry = crate::metrics::Metrics::new();
    (ScrapeMetrics::new(&registry, &clock), hub(&registry, &clock))
}

fn hub(registry: &crate::metrics::Metrics, clock: &Arc<dyn Clock>) -> Arc<Hub> {
    Arc::new(Hub::new(Arc::clone(clock), DiscoveryMetrics::new(registry, clock)))
}

fn house() -> House {
    let (metrics, discovery) = metrics();
    let (store, script) = (Arc::new(Store::default()), Arc::new(Script::default()));
    let parts = Parts {
        appender: Arc::clone(&store) as Arc<dyn Appender>,
        clock: Arc::new(TokioClock::at(Timestamp(START))),
        metrics,
        discovery,
        make_fetcher: always(&script),
        server_name: "here".to_owned(),
        shared: Arc::default(),
        threads: None,
    };
    House { store, script, manager: Manager::new(parts) }
}

impl House {
    async fn apply(&self, yaml: &str) {
        self.manager.apply(&config(yaml)).await.unwrap();
    }

    /// Lets `seconds` pass.
    async fn pass(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
}

fn jobs(targets: &str) -> String {
    format!(
        "global: {{scrape_interval: 10s, scrape_timeout: 5s}}\n\
         scrape_configs: [{{job_name: j, static_configs: [{{targets: [{targets}]}}]}}]"
    )
}

fn times(rows: &[String], metric: &str) -> Vec<i64> {
    let name = format!("\"{metric}\"");
    let rows = rows.iter().filter(|row| row.contains(&name));
    rows.filter_map(|row| row.rsplit_once('@')?.1.parse().ok()).collect()
}

#[tokio::test(start_paused = true)]
async fn targets_are_scraped_at_equal_distances_on_their_offset() {
    let house = house();
    house.script.answer("http://a:1/metrics", "x 1\n");
    house.apply(&jobs("'a:1'")).await;
    house.pass(60).await;
    let first = times(&house.store.take(), "x");
    assert_eq!(first.len(), 6);
    assert!(first.windows(2).all(|pair| pair[1] - pair[0] == 10_000), "{first:?}");

    let status = house.manager.status();
    let [target] = &status.active[..] else { panic!("one target") };
    assert_eq!((target.health, &*target.last_error), (Health::Up, ""));
    assert!(target.last_scrape.is_some());
    assert_eq!((&*target.pool, &*target.url), ("j", "http://a:1/metrics"));
    house.manager.stop().await;

    // Another start hits the same offset.
    let again = self::house();
    again.script.answer("http://a:1/metrics", "x 1\n");
    again.pass(33).await;
    again.apply(&jobs("'a:1'")).await;
    again.pass(20).await;
    let second = times(&again.store.take(), "x");
    assert_eq!(second[0].rem_euclid(10_000), first[0].rem_euclid(10_000));
}

#[tokio::test(start_paused = true)]
async fn a_silent_target_is_given_up_and_marked() {
    let house = house();
    house.script.answer("http://a:1/metrics", "x 1\n");
    house.apply(&jobs("'a:1'")).await;
    house.pass(12).await;
    house.script.silence("http://a:1/metrics");
    house.store.take();
    house.pass(16).await;
    let rows = house.store.take();
    assert!(rows.iter().any(|row| row.contains("\"x\"") && row.contains(" stale ")), "{rows:?}");
    let status = house.manager.status();
    let target = &status.active[0];
    assert_eq!(target.health, Health::Down);
    assert_eq!(target.last_error, "Get \"http://a:1/metrics\": context deadline exceeded");
    assert_eq!(target.last_duration, Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_target_that_goes_is_ended_after_two_intervals() {
    let house = house();
    for address in ["a:1", "b:1"] {
        house.script.answer(&format!("http://{address}/metrics"), "x 1\n");
    }
    house.apply(&jobs("'a:1', 'b:1'")).await;
    house.pass(20).await;
    house.apply(&jobs("'b:1'")).await;
    let removed = START + 20_000;
    assert_eq!(house.manager.status().active.len(), 1);
    house.store.take();
    house.pass(10).await;
    let stale = |rows: &[String]| {
        let of_a = rows.iter().filter(|row| row.contains("a:1") && row.contains(" stale "));
        of_a.cloned().collect::<Vec<_>>()
    };
    assert!(stale(&house.store.take()).is_empty());
    house.pass(12).await;
    let ended = stale(&house.store.take());
    assert_eq!(ended.len(), 6, "{ended:?}");
    let at = times(&ended, "x")[0];
    assert!(at > removed && at <= removed + 10_000, "{at} is the first tick after {removed}");
    assert!(house.script.asked().iter().any(|url| url.contains("b:1")));
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_what_is_known_and_leaves_equal_jobs_alone() {
    let house = house();
    house.script.answer("http://a:1/metrics", "x 1\n");
    house.script.answer("http://b:1/metrics", "x 1\n");
    let two = |interval: &str| {
        format!(
            "scrape_configs:\n\
             - {{job_name: same, scrape_interval: 10s, static_configs: [{{targets: ['a:1']}}]}}\n\
             - {{job_name: other, scrape_interval: {interval}, static_configs: [{{targets: ['b:1']}}]}}"
        )
    };
    house.apply(&two("10s")).await;
    house.pass(20).await;
    house.store.take_batches();
    house.apply(&two("5s")).await;
    house.pass(20).await;
    let batches = house.store.take_batches();
    let by_handle = |row: &stint_model::Row| matches!(row.series, stint_model::SeriesKey::Known(_));
    assert!(batches.iter().flat_map(|batch| &batch.rows).all(by_handle));
    assert_eq!(batches.len(), 2 + 4);
    assert!(!house.store.take().iter().any(|row| row.contains("stale")));
    let status = house.manager.status();
    assert_eq!(status.pools, ["other", "same"]);
    assert!(status.active.iter().all(|target| target.health == Health::Up));
}

#[tokio::test(start_paused = true)]
async fn too_many_targets_are_all_refused() {
    let house = house();
    let yaml = "scrape_configs: [{job_name: j, scrape_interval: 10s, target_limit: 1, \
                static_configs: [{targets: ['a:1', 'b:1']}]}]";
    house.apply(yaml).await;
    house.pass(11).await;
    let status = house.manager.status();
    let text = "target_limit exceeded (number of targets: 2, limit: 1)";
    assert!(status.active.iter().all(|target| target.last_error == text), "{status:?}");
    assert_eq!(times(&house.store.take(), "up").len(), 2);
    assert!(house.script.asked().is_empty());
}

#[tokio::test(start_paused = true)]
async fn dropped_targets_and_metadata_are_shown() {
    let house = house();
    house.script.answer("http://a:1/metrics", "# TYPE x gauge\n# HELP x why\nx 1\n");
    let yaml = "scrape_configs: [{job_name: j, scrape_interval: 10s, keep_dropped_targets: 1, \
                static_configs: [{targets: ['a:1', 'b:1', 'c:1']}], \
                relabel_configs: [{source_labels: [__address__], regex: a.*, action: keep}]}]";
    house.apply(yaml).await;
    house.pass(11).await;
    let status = house.manager.status();
    assert_eq!((status.active.len(), status.dropped.len()), (1, 1));
    assert_eq!(status.dropped_counts.get("j"), Some(&2));
    let metadata = house.manager.target_metadata();
    assert_eq!(metadata.len(), 1);
    assert_eq!((&*metadata[0].family, &*metadata[0].metadata.help), ("x", "why"));
}

#[tokio::test(start_paused = true)]
async fn stopping_ends_no_series() {
    let house = house();
    house.script.answer("http://a:1/metrics", "x 1\n");
    house.script.fail("http://b:1/metrics", FetchError::BodyTooLarge);
    house.apply(&jobs("'a:1', 'b:1'")).await;
    house.pass(15).await;
    house.store.take();
    house.manager.stop().await;
    house.pass(60).await;
    assert!(house.store.take().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_cannot_be_made_changes_nothing() {
    let mut house = house();
    house.script.answer("http://a:1/metrics", "x 1\n");
    let script = Arc::clone(&house.script);
    let good = always(&script);
    let make: MakeFetcher = Box::new(move |job| match job.http.tls.ca {
        Some(_) => Err(Clients::default().get(&job.http).expect_err("the file does not exist")),
        None => good(job),
    });
    let (metrics, discovery) = metrics();
    let parts = Parts {
        appender: Arc::clone(&house.store) as Arc<dyn Appender>,
        clock: Arc::new(TokioClock::at(Timestamp(START))),
        metrics,
        discovery,
        make_fetcher: make,
        server_name: String::new(),
        shared: Arc::default(),
        threads: None,
    };
    house.manager = Manager::new(parts);
    house.apply(&jobs("'a:1'")).await;
    let bad = "scrape_configs: [{job_name: k, tls_config: {ca_file: /nowhere/ca.pem}}]";
    let errors = house.manager.apply(&config(bad)).await.unwrap_err();
    assert!(errors[0].starts_with("scrape job \"k\": cannot read /nowhere/ca.pem"), "{errors:?}");
    assert_eq!(house.manager.status().pools, ["j"]);
}

#[tokio::test(start_paused = true)]
async fn pools_and_intervals_are_counted_under_the_names_of_prometheus() {
    let (store, script) = (Arc::new(Store::default()), Arc::new(Script::default()));
    let registry = crate::metrics::Metrics::new();
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::at(Timestamp(START)));
    let parts = Parts {
        appender: Arc::clone(&store) as Arc<dyn Appender>,
        clock: Arc::clone(&clock),
        make_fetcher: always(&script),
        metrics: ScrapeMetrics::new(&registry, &clock),
        discovery: hub(&registry, &clock),
        server_name: String::new(),
        shared: Arc::default(),
        threads: None,
    };
    let house = House { store, script, manager: Manager::new(parts) };
    house.script.answer("http://a:1/metrics", "# TYPE x gauge\nx 1\n");
    house
        .apply(&jobs("'a:1', 'b:1/nonsense'").replace(
            "job_name: j,",
            "job_name: j, relabel_configs: [{action: labeldrop, regex: none}],",
        ))
        .await;
    house.pass(60).await;
    house.manager.refresh_metrics();
    let text = registry.render();
    for line in [
        "prometheus_sd_discovered_targets{config=\"j\",name=\"scrape\"} 2\n",
        "prometheus_target_scrape_pool_targets{scrape_job=\"j\"} 1\n",
        "prometheus_target_sync_failed_total{scrape_job=\"j\"} 1\n",
        "prometheus_target_metadata_cache_entries{scrape_job=\"j\"} 1\n",
        "prometheus_target_interval_length_seconds{interval=\"10s\",quantile=\"0.5\"} 10\n",
        "prometheus_target_sync_length_seconds_count{scrape_job=\"j\"} 1\n",
        "prometheus_target_scrape_pools_total 1\n",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    house.apply("").await;
    let text = registry.render();
    assert!(!text.contains("scrape_job=\"j\""), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_bug_in_one_scrape_is_shown_and_the_next_scrape_is_tried() {
    let house = house();
    house.script.answer("http://a:1/metrics", "x 1\n");
    house.apply(&jobs("'a:1'")).await;
    house.pass(12).await;
    house.store.panic_once();
    house.script.answer("http://a:1/metrics", "y 1\n");
    house.pass(10).await;
    let status = house.manager.status();
    assert_eq!(status.active[0].health, Health::Down);
    assert!(status.active[0].last_error.contains("a bug in the store"), "{:?}", status.active[0]);
    house.store.take();
    house.pass(10).await;
    assert_eq!(house.manager.status().active[0].health, Health::Up);
    let rows = house.store.take();
    assert!(rows.iter().any(|row| row.contains("\"y\"")), "{rows:?}");
    assert!(rows.iter().any(|row| row.contains("\"x\"") && row.contains(" stale ")), "{rows:?}");
}

#[tokio::test(start_paused = true)]
async fn a_reload_leaves_no_gap_in_what_was_discovered() {
    use crate::discovery::testing::{Reply, Server};
    let server = Server::of(&[("/", Reply::json(r#"[{"targets": ["a:1"]}]"#))]).await;
    let house = house();
    house.script.answer("http://a:1/metrics", "x 1\n");
    let url = server.url();
    let job = |interval: &str| {
        format!(
            "scrape_configs: [{{job_name: j, scrape_interval: {interval}, \
             http_sd_configs: [{{url: '{url}/', refresh_interval: 1d}}]}}]"
        )
    };
    house.apply(&job("10s")).await;
    while house.manager.status().active.is_empty() {
        house.pass(1).await;
    }
    house.pass(20).await;
    house.store.take();
    house.apply(&job("5s")).await;
    let status = house.manager.status();
    assert_eq!((status.active.len(), status.active[0].health), (1, Health::Up));
    house.pass(40).await;
    let rows = house.store.take();
    assert!(times(&rows, "x").len() >= 7 && !rows.iter().any(|row| row.contains(" stale ")));
}

#[tokio::test(start_paused = true)]
async fn a_target_that_stays_shows_how_it_was_found_last() {
    let house = house();
    house.script.answer("http://a:1/metrics", "x 1\n");
    let folder = std::env::temp_dir().join(format!("stint-found-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let list = |ready: &str| {
        let text = format!(r#"[{{"targets": ["a:1"], "labels": {{"__meta_ready": "{ready}"}}}}]"#);
        std::fs::write(folder.join("t.json.new"), text).unwrap();
        std::fs::rename(folder.join("t.json.new"), folder.join("t.json")).unwrap();
    };
    let ready = || {
        let status = house.manager.status();
        let active = status.active.first();
        active.and_then(|target| target.discovered.get("__meta_ready").map(str::to_owned))
    };
    list("no");
    let files = folder.join("t.json");
    let keys =
        format!("scrape_interval: 10s, file_sd_configs: [{{files: ['{}']}}]", files.display());
    house.apply(&format!("scrape_configs: [{{job_name: j, {keys}}}]")).await;
    house.pass(30).await;
    assert_eq!(ready().as_deref(), Some("no"));
    house.store.take();
    list("yes, now");
    house.pass(30).await;
    assert_eq!(ready().as_deref(), Some("yes, now"));
    let rows = house.store.take();
    assert!(times(&rows, "x").len() >= 2 && !rows.iter().any(|row| row.contains(" stale ")));
    std::fs::remove_dir_all(&folder).unwrap();
}
