use super::*;
use stint_model::Span;

fn read(prometheus: &str, retention: &str) -> Result<Config, ConfigErrors> {
    let files = Files {
        prometheus: Some(Path::new("/etc/p/prometheus.yml")),
        retention: Some(Path::new("retention.toml")),
        own_address: "localhost:9090",
        expand_env: false,
    };
    let texts = Texts { prometheus: Some(prometheus), retention: Some(retention) };
    parse(files, texts, &|name| (name == "ENVIRONMENT").then(|| "dev".to_owned()))
}

fn yml(prometheus: &str) -> Config {
    read(prometheus, "").unwrap_or_else(|errors| panic!("{errors}"))
}

/// The whole text of the errors, without the file's name.
fn errors(prometheus: &str) -> String {
    let errors = read(prometheus, "").expect_err("a mistake must be found");
    errors.to_string().replace("/etc/p/prometheus.yml:", "")
}

fn refuse(prometheus: &str, text: &str) {
    assert_eq!(errors(prometheus), text, "{prometheus}");
}

/// `keys`, one per line, as the only scrape job.
fn job(keys: &str) -> String {
    format!("scrape_configs:\n- job_name: a\n  {}\n", keys.replace('\n', "\n  "))
}

#[test]
fn an_empty_file_is_the_default() {
    let config = yml("");
    assert_eq!(config.global, Global::default());
    assert!(config.scrape_configs.is_empty() && config.remote_write.is_empty());
    assert_eq!(config.retention.time, Span(7 * Span::DAY.0));
    assert_eq!(yml("global:\n").global, Global::default());
}

#[test]
fn without_a_file_the_server_scrapes_itself() {
    let files = Files { own_address: "[::1]:9090", ..Files::default() };
    let config = parse(files, Texts::default(), &|_| None).unwrap();
    let [job] = &config.scrape_configs[..] else { panic!("one job is expected") };
    assert_eq!(job.static_configs[0].targets, ["[::1]:9090"]);
    assert_eq!(job.scrape_interval, Span::from_secs(15));
}

#[test]
fn the_shipped_retention_file_is_the_default_written_out() {
    let remote = "remote_write: [{url: 'http://a/'}, {url: 'https://x.grafana.net/api/prom/push'}]";
    let shipped = read(remote, include_str!("../../retention.toml")).unwrap();
    let mut default = read(remote, "").unwrap();
    assert_eq!(shipped.remote_write[1].budget, Budget::free_tier());
    assert!(!shipped.remote_write[0].budget.is_limited());
    default.text.clone_from(&shipped.text);
    assert_eq!(shipped, default);
}

#[test]
fn the_examples_of_the_shipped_retention_file_are_valid() {
    let mut text = String::new();
    for line in include_str!("../../retention.toml").lines() {
        let example = line.strip_prefix('#').filter(|rest| !rest.starts_with(' '));
        text.push_str(example.unwrap_or(line));
        text.push('\n');
    }
    let config = read("remote_write: [{url: 'http://a/', name: cloud}]", &text).unwrap();
    let budget = &config.remote_write[0].budget;
    assert_eq!(budget.series, Some(9000));
    assert_eq!(budget.points_per_minute, Some(10_000));
    let names: Vec<_> = budget.classes.iter().map(|class| &*class.name).collect();
    assert_eq!(names, ["vital", "debug", "local"]);
    assert_eq!(budget.classes[0].interval, Some(Span::from_secs(15)));
    assert_eq!((budget.classes[1].series, budget.classes[2].send), (Some(500), false));
    assert_eq!(config.remote_write[0].labels.get("sender"), Some("a"));
    assert_eq!((budget.identities.len(), budget.gauges.len()), (1, 1));
}

#[test]
fn globals_are_inherited() {
    let config = yml("
global:
  scrape_interval: 15s
  sample_limit: 100
  body_size_limit: 1MB
  external_labels: {environment: '${ENVIRONMENT}', region: $NOWHERE, cost: $$5}
scrape_configs:
- job_name: a
- job_name: b
  scrape_interval: 5s
  sample_limit: 7
  scrape_protocols: [PrometheusText0.0.4]
  params: {module: [x], collect: [a, b]}
  http_headers: {X-Team: {values: [infra], secrets: [s]}}
- job_name: c
  scrape_interval: 1m
  scrape_timeout: 20s
");
    let [a, b, c] = &config.scrape_configs[..] else { panic!("three jobs are expected") };
    assert_eq!((a.scrape_interval, a.scrape_timeout), (Span(15_000), Span(10_000)));
    assert_eq!((b.scrape_interval, b.scrape_timeout), (Span(5000), Span(5000)));
    assert_eq!((c.scrape_interval, c.scrape_timeout), (Span(60_000), Span(20_000)));
    assert_eq!((a.limits.samples, b.limits.samples, a.limits.body_size), (100, 7, 1 << 20));
    assert_eq!((&a.scrape_protocols, b.scrape_protocols.as_ref().map(Vec::len)), (&None, Some(1)));
    assert_eq!(b.params[0].0, "collect");
    assert_eq!(b.http.headers[0].values.len(), 2);
    assert_eq!(config.global.external_labels.to_string(), r#"{cost="$5", environment="dev"}"#);
    assert!(config.warnings[0].message.contains("`NOWHERE`, which is not set"));
    assert_eq!(config.warnings[0].line, 6);
}

#[test]
fn every_mistake_is_told_at_once_with_its_place() {
    insta::assert_snapshot!(
        errors("
global:
  scrape_interval: 15x
  scrape_timout: 5s
scrape_configs:
- job_name: a
  scrape_timeout: 2m
  honor_labels: maybe
  static_configs:
  - targets: ['http://x']
    labels: {'': y}
- job_name: a
  nomad_sd_configs: [{}]
  relabel_configs:
  - action: repalce
  - source_labels: [x]
    regex: '('
    target_label: y
remote_write:
- name: r
  basic_auth: {username: u, password: p}
  bearer_token: t
rule_files: ['a*/b.yml']
alerting:
  alertmanagers: [{static_configs: [{targets: ['a:1']}]}]
"),
        @r##"
        3:20: `global.scrape_interval`: not a valid duration string: "15x"
        4:3: unknown key `scrape_timout` in `global`; did you mean `scrape_timeout`?
        7:3: scrape timeout greater than scrape interval for scrape config with job name "a"
        8:17: `scrape_configs[0].honor_labels`: maybe is neither true nor false
        10:15: "http://x" is not a valid hostname
        11:14: "" is not a valid label name
        12:3: found multiple scrape configs with job name "a"
        13:3: `scrape_configs[1].nomad_sd_configs` is not supported yet; list the targets of Nomad with file_sd_configs or http_sd_configs, for which a generator writes or serves them
        15:13: `scrape_configs[1].relabel_configs[0].action`: unknown relabel action "repalce"
        17:5: `scrape_configs[1].relabel_configs[1]`: error parsing regexp: missing closing ): `(`
        20:3: url for remote_write is empty
        22:3: at most one of basic_auth, oauth2, bearer_token & bearer_token_file must be configured
        23:14: invalid rule file path "a*/b.yml"
        "##
    );
}

#[test]
fn what_only_says_the_default_is_no_mistake() {
    yml("
global: {rule_query_offset: 0s, scrape_native_histograms: false, query_log_file: ''}
rule_files:
remote_read: []
alerting: {alertmanagers: []}
storage: {tsdb: {chunk_encoding: {floats: xor}, stale_series_compaction_threshold: 0.0}}
scrape_configs:
- job_name: a
  http_sd_configs: []
  always_scrape_classic_histograms: true
  native_histogram_bucket_limit: 0
remote_write:
- {url: 'http://a/', sigv4: , round_robin_dns: false}
");
}

#[test]
fn prometheus_words_are_used_for_what_prometheus_refuses() {
    refuse(
        "global: {scrape_interval: 5s, scrape_timeout: 6s}",
        "1:31: global scrape timeout greater than scrape interval",
    );
    refuse("scrape_configs: [{}]", "1:18: job_name is empty");
    refuse("remote_write: [{}]", "1:16: url for remote_write is empty");
    refuse(
        &job("scrape_timeout: 2m"),
        "3:3: scrape timeout greater than scrape interval for scrape config with job name \"a\"",
    );
    refuse(
        &job("basic_auth: {username: a}\nauthorization: {credentials: b}"),
        "3:3: at most one of basic_auth, oauth2 & authorization must be configured",
    );
    refuse(
        &job("basic_auth: {username: a, password: b, password_file: c}"),
        "3:42: at most one of basic_auth password & password_file must be configured",
    );
    refuse(
        &job("authorization: {type: Basic, credentials: b}"),
        "3:19: authorization type cannot be set to \"basic\", use \"basic_auth\" instead",
    );
    refuse(
        &job("file_sd_configs: [{files: ['a*/b.json']}]"),
        "3:30: path name \"a*/b.json\" is not valid for file discovery",
    );
    refuse(
        "remote_write: [{url: 'http://a/', headers: {authorization: x, Host: y}}]",
        "1:45: authorization header must be changed via the basic_auth or authorization parameter\n\
         1:63: Host is a reserved header. It must not be changed",
    );
    refuse(
        "remote_write: [{url: 'http://a/', name: n}, {url: 'http://b/', name: n}]",
        "1:45: found multiple remote write configs with job name \"n\"",
    );
    refuse("scrape_configs: {job_name: a}", "1:17: `scrape_configs` must be a list, not a map");
}

#[test]
fn queue_keys_without_effect_are_named() {
    let config = yml("
remote_write:
- url: http://a/
  queue_config: {capacity: 5, retry_on_http_429: false}
");
    let told: Vec<&str> = config.warnings.iter().map(|warning| &*warning.message).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("`capacity` has no effect"), "{told:?}");
    assert!(told[1].contains("`retry_on_http_429: false` has no effect"), "{told:?}");
}

#[test]
fn endpoints_are_read_whole() {
    let config = yml("
remote_write:
- url: https://p.grafana.net/api/prom/push
  basic_auth: {username: 123, password_file: token}
  queue_config: {max_samples_per_send: 500, retry_on_http_429: true}
  metadata_config: {send: false}
  write_relabel_configs: [{source_labels: [job], regex: x, action: drop}]
  headers: {X-Scope-OrgID: t}
  tls_config: {ca_file: ca.pem, min_version: TLS12}
- url: http://b/
- url: http://b/
  remote_timeout: 5s
");
    let [cloud, b, again] = &config.remote_write[..] else { panic!("three endpoints") };
    let Auth::Basic { username, password } = &cloud.http.auth else { panic!("basic auth") };
    assert_eq!(*username, Credential::Inline(Secret::new("123")));
    assert_eq!(*password, Credential::File("/etc/p/token".into()));
    assert_eq!((cloud.queue.max_samples_per_send, cloud.metadata.send), (500, false));
    assert_eq!(cloud.http.tls.ca, Some(Credential::File("/etc/p/ca.pem".into())));
    assert!(!cloud.http.enable_http2 && cloud.write_relabel_configs.len() == 1);
    assert_eq!(cloud.budget, Budget::free_tier());
    assert_eq!(b.budget, Budget { reserve: 0.05, ..Budget::default() });
    assert_eq!((b.name.len(), again.name.len()), (6, 6));
    assert_ne!(b.name, again.name);
}

#[test]
fn budgets_are_inherited_key_by_key() {
    let budgets = |retention: &str| {
        let remote = "remote_write: [{url: 'http://a/', name: a}, {url: 'http://b/', name: b}]";
        let config = read(remote, retention).unwrap();
        let [a, b] = &config.remote_write[..] else { panic!("two endpoints") };
        (a.budget.clone(), b.budget.clone())
    };
    let (a, b) = budgets("budget.series = 5_000\nendpoint.b.budget.interval = '30s'");
    assert_eq!((a.series, a.points_per_minute, a.interval), (Some(5000), None, Some(Span::MINUTE)));
    assert_eq!((b.series, b.interval), (Some(5000), Some(Span(30_000))));
    let (a, b) = budgets(
        "budget.series = 5\nendpoint.a.budget.series = 'unlimited'\nendpoint.b.budget.enabled = false",
    );
    assert!(!a.is_limited() && a.interval.is_none());
    assert_eq!(b, Budget::default());
}

#[test]
fn mistakes_in_the_retention_file_are_told_with_their_place() {
    let told = |retention: &str| {
        let remote = "remote_write: [{url: 'http://a/', name: a}]";
        read(remote, retention).unwrap_err().to_string().replace("retention.toml:", "")
    };
    insta::assert_snapshot!(
        told("retention = { time = '7', sise = '1GB' }\n\
              [budget]\nseries = 0\nreserve = 1.5\nclass = [{ match = ['up{'] }, { name = 'x', match = [] }]\n\
              [endpoint.b]\n"),
        @r##"
        1:22: `retention.time`: not a valid duration string: "7"
        1:27: unknown key `sise` in `retention`; did you mean `size`?
        3:10: `budget.series`: 0 is neither a number above 0 nor "unlimited"; `enabled = false` lifts all limits
        4:1: `reserve` is a part of `series`, from 0 to below 1
        5:10: a class needs a `name`
        5:21: `up{`: 1:4: parse error: unexpected end of input inside braces
        5:45: a class needs `match`, a list of series selectors
        6:11: no remote_write endpoint is named `b`; there is: a
        "##
    );
    assert_eq!(
        told(
            "[budget]\nseries = 100\nquota = [{ name = 'x', match = ['a'], guaranteed = 60 }, \
             { name = 'y', match = ['b'], guaranteed = 60 }]\n"
        )
        .trim(),
        "3:1: 120 slots are guaranteed, and there are 100"
    );
    insta::assert_snapshot!(told("a = \nb ==\n"), @r##"
        1:5: not valid TOML: string values must be quoted, expected literal string
        2:4: not valid TOML: extra `=`, expected nothing
        "##);
}

#[test]
fn a_policy_is_read() {
    let config = read(
        "remote_write: [{url: 'http://a/', name: a}]",
        "[budget]\nseries = 100\n\
         [[budget.class]]\nname = 'few'\nmatch = ['{job=\"a\"}']\ntargets = 2\n\
         [[budget.quota]]\nname = 'job'\nper = 'job'\nseries = 20\n\
         [[budget.quota]]\nname = 'shop'\nmatch = ['{service=\"shop\"}']\nguaranteed = 5\n\
         [[budget.histogram]]\nmatch = ['h']\nlevel = 'thin'\nat_least = 'totals'\nbuckets = [0.5, 1]\n\
         [[budget.histogram]]\nmatch = ['n']\nresolution = 3\n\
         [[budget.aggregate]]\nmatch = ['a']\nwithout = ['pod']\nfunction = 'counter'\n",
    );
    let budget = &config.unwrap().remote_write[0].budget;
    assert_eq!(budget.classes[0].targets, Some(2));
    let (job, shop) = (&budget.quotas[0], &budget.quotas[1]);
    assert_eq!((job.per.as_deref(), job.series, job.guaranteed), (Some("job"), Some(20), 0));
    assert_eq!((shop.per.as_deref(), shop.series, shop.guaranteed), (None, None, 5));
    let aggregate = &budget.aggregates[0];
    assert_eq!((&aggregate.without[..], aggregate.fold), (&["pod".to_owned()][..], Fold::Counter));
    let (thin, coarse) = (&budget.histograms[0], &budget.histograms[1]);
    assert_eq!((thin.level, thin.at_least), (Level::Thin, Level::Totals));
    assert_eq!(thin.bounds, [0.5, 1.0]);
    assert_eq!(
        (coarse.level, coarse.at_least, coarse.resolution),
        (Level::Full, Level::Full, Some(3))
    );
}

#[test]
fn mistakes_in_a_policy_are_told() {
    let told = |retention: &str| {
        let remote = "remote_write: [{url: 'http://a/', name: a}]";
        read(remote, retention).unwrap_err().to_string().replace("retention.toml:", "")
    };
    insta::assert_snapshot!(told(
        "[budget]\nseries = 9\n\
         class = [{ name = 'x', match = ['a'], targets = 0 }]\n\
         quota = [{ name = 'x' }, { name = 'x', per = 'job', guaranteed = 3, series = 2 }]\n\
         histogram = [{ match = ['a{le=\"1\"}'], level = 'thick' }, \
                      { match = ['a'], level = 'totals', at_least = 'thin', buckets = ['+Inf'], resolution = 9 }]\n\
         aggregate = [{ match = ['a'] }, { match = ['a'], without = ['le'], function = 'median' }]\n"
    ), @r##"
        3:39: a class of no targets is one with `send = false`
        4:10: a quota needs `match` or `per`, or it would be the budget
        4:10: a quota needs `series` (most slots) or `guaranteed` (least)
        4:28: another quota is named `x`
        4:53: what is guaranteed is for all of `match`; leave out `per`
        4:69: `series` is less than `guaranteed`
        5:16: a histogram is selected as a whole, not by `le`
        5:47: `budget.histogram[0].level`: thick is none of full, thin, totals, nothing
        5:93: `at_least` cannot be more than `level`
        5:123: +Inf is not the bound of a bucket; +Inf always stays
        5:145: `budget.histogram[1].resolution`: 9 is not a whole number from -4 to 8
        6:14: an aggregation needs `function`: counter, or for gauges sum, avg, min or max
        6:14: an aggregation needs `without`, a list of labels
        6:50: the name, `le` and `quantile` cannot be aggregated away: what differs in them means something else
        6:79: `budget.aggregate[1].function`: median is none of counter, sum, avg, min, max
    "##);
}

#[test]
fn targets_that_come_and_go_are_told_by_instance_and_job() {
    let rules = |toml: &str| {
        let remote = "remote_write: [{url: 'http://a/', name: a}]";
        read(remote, toml).map(|config| config.remote_write[0].budget.identities.clone())
    };
    let plain = rules("[budget]\nseries = 9\nidentity = [{ match = ['{job=\"web\"}'] }]").unwrap();
    assert_eq!(
        (&*plain[0].replace, &*plain[0].per),
        (&["instance".into()][..], &["job".into()][..])
    );
    assert_eq!(plain[0].info.as_deref(), Some("target_identity"));
    let own = rules(
        "[budget]\nseries = 9\nidentity = [{ match = ['a'], replace = ['task', 'host'], \
         per = ['service'], info = '' }]",
    );
    let own = own.unwrap().remove(0);
    assert_eq!((own.replace.len(), own.per.len(), own.info), (2, 1, None));
    let told = |toml: &str| rules(toml).unwrap_err().to_string().replace("retention.toml:", "");
    insta::assert_snapshot!(told(
        "[budget]\nseries = 9\n\
         identity = [{}, { match = ['a'], replace = ['job'], info = 'a b' }, \
                     { match = ['a'], replace = ['le'] }]\n\
         gauge = [{ match = ['a'] }, { match = ['a'], function = 'sum' }]\n"
    ), @r##"
        3:13: a rule for identities needs `match`, a list of series selectors
        3:34: what is replaced tells the target: neither the name, `le` and `quantile`, nor what is in `per`
        3:53: a b is no name of a metric
        3:86: what is replaced tells the target: neither the name, `le` and `quantile`, nor what is in `per`
        4:10: a rule for gauges needs `function`: avg, min or max
        4:57: `budget.gauge[1].function`: sum is none of avg, min, max
    "##);
}

#[test]
fn a_retention_section_comes_before_the_retention_file() {
    let retention = "retention.time = '3d'";
    assert_eq!(read("", retention).unwrap().retention.time, Span(3 * Span::DAY.0));
    let config = read("storage: {tsdb: {retention: {size: 1GB}}}", retention).unwrap();
    assert_eq!(config.retention, Retention { time: Span::ZERO, size_bytes: 1 << 30 });
}

#[test]
fn a_missing_file_is_told_by_name() {
    let files = Files { prometheus: Some(Path::new("/nowhere/p.yml")), ..Files::default() };
    let told = load(files).unwrap_err().to_string();
    assert!(told.starts_with("/nowhere/p.yml: cannot read the file: "), "{told}");
}

proptest::proptest! {
    #[test]
    fn no_text_makes_reading_panic(yaml in ".{0,200}", toml in ".{0,100}") {
        let _ = read(&yaml, &toml);
    }

    #[test]
    fn no_tree_makes_reading_panic(
        key in "(global|scrape_configs|remote_write|storage|otlp|alerting)",
        inner in "(job_name|relabel_configs|tls_config|url|tsdb|headers|params|static_configs)",
        value in "(x|\\[\\]|\\{\\}|\\[x\\]|\\{x: y\\}|\\[\\{x: \\[y\\]\\}\\]|~)",
        list in proptest::bool::ANY,
    ) {
        let section = format!("{{{inner}: {value}}}");
        let section = if list { format!("[{section}]") } else { section };
        let _ = read(&format!("{key}: {section}"), "");
    }
}

#[test]
fn a_quoted_value_is_a_text() {
    let quoted = "global: {scrape_native_histograms: 'true', sample_limit: \"5\"}";
    refuse(
        quoted,
        "1:36: `global.scrape_native_histograms`: a text is given where true or false is wanted; \
         remove the quotes\n\
         1:58: `global.sample_limit`: a text is given where a number is wanted; remove the quotes",
    );
    assert!(yml("global: {scrape_native_histograms: yes}").global.scrape_native_histograms);
    assert_eq!(yml("global: {external_labels: {a: 'true'}}").global.external_labels.len(), 1);
    let retention = read("", "[budget]\nenabled = \"true\"\n").unwrap_err().to_string();
    assert!(retention.contains("remove the quotes"), "{retention}");
}

#[test]
fn numbers_may_be_written_with_a_point_or_an_exponent() {
    assert_eq!(yml("global: {sample_limit: 1e3, target_limit: 1.5}").global.limits.samples, 1000);
    assert!(errors("global: {sample_limit: 1e30}").contains("1e30 is not a whole number"));
    assert!(errors("global: {sample_limit: -1.5}").contains("-1.5 is not a whole number"));
}

#[test]
fn lists_are_lists_and_their_items_are_something() {
    refuse(
        &job("params: {a: b}"),
        "3:15: `scrape_configs[0].params.a` must be a list, not a single value",
    );
    refuse(
        &job("static_configs: [null]"),
        "3:20: empty or null section in scrape_configs[0].static_configs",
    );
    refuse("scrape_configs: [~]", "1:18: empty or null section in scrape_configs");
}

#[test]
fn only_one_way_to_authenticate_is_allowed() {
    let told = errors("remote_write: [{url: 'http://a/', basic_auth: {username: a}, sigv4: {}}]");
    assert!(told.contains("at most one of basic_auth"), "{told}");
}

#[test]
fn a_scheme_restricts_the_labels_that_are_written() {
    let rule = |rule: &str| {
        let scheme = "metric_name_validation_scheme: legacy";
        job(&format!("{scheme}\nrelabel_configs: [{rule}]"))
    };
    yml(&rule("{source_labels: ['a.b'], target_label: b}"));
    assert!(errors(&rule("{target_label: 'a.b'}")).contains("invalid 'target_label'"));
    assert!(errors(&rule("{source_labels: [''], target_label: b}")).contains("not a valid label"));
}

#[test]
fn the_scheme_of_a_url_has_no_case() {
    assert_eq!(yml(&job("scheme: HTTPS")).scrape_configs[0].scheme, "https");
}

#[test]
fn a_negative_size_lifts_the_limit_that_would_be_inherited() {
    let config = yml(&format!("global: {{body_size_limit: 1MB}}\n{}", job("body_size_limit: -1B")));
    assert_eq!(config.scrape_configs[0].limits.body_size, u64::MAX);
}

#[test]
fn hosts_of_grafana_cloud_are_compared_whole() {
    for url in ["https://x.grafana.net/api/prom/push", "https://1:2@x.GRAFANA.net.:443/?a"] {
        assert!(is_grafana_cloud(url), "{url}");
    }
    for url in ["https://evilgrafana.net/", "http://example.org/grafana.net", "nonsense"] {
        assert!(!is_grafana_cloud(url), "{url}");
    }
}

#[test]
fn an_interval_beyond_the_lookback_is_warned_of() {
    let remote = "remote_write: [{url: 'http://a/'}]";
    let config = read(remote, "[budget]\nseries = 9\ninterval = \"10m\"\n").unwrap();
    let [warning] = &config.warnings[..] else { panic!("{:?}", config.warnings) };
    assert_eq!(warning.line, 3);
    assert!(warning.message.contains("longer than the 5m"), "{warning:?}");
}
