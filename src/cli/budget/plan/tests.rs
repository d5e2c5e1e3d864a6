use super::*;

/// A folder with these files, that goes in the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let path = std::env::temp_dir().join(format!("stint-plan-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        for (file, text) in files {
            std::fs::write(path.join(file), text).unwrap();
        }
        Self(path)
    }

    fn args(&self, retention: &str, replicas: u32) -> PlanArgs {
        PlanArgs {
            config_file: self.0.join("prometheus.yml"),
            retention_file: Some(self.0.join(retention)),
            base_retention_file: None,
            expand_env: false,
            server: None,
            storage_path: None,
            scrape_file: vec![self.0.join("metrics.txt")],
            replicas,
            job: "api".into(),
            rule_file: Vec::new(),
            dashboard_file: Vec::new(),
            endpoint: None,
            format: Format::Text,
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left behind lies in the temporary directory.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const CONFIG: &str = "remote_write: [{name: cloud, url: 'http://a/'}]\n\
    scrape_configs: [{job_name: api, metric_relabel_configs: [{action: drop, source_labels: [__name__], regex: dropped}]}]\n";
const METRICS: &str =
    "# TYPE c_total counter\nc_total{a=\"1\"} 1\nc_total{a=\"2\"} 1\ndropped 1\ng 1\n";

fn folder(name: &str) -> Folder {
    let files = [
        ("prometheus.yml", CONFIG),
        ("metrics.txt", METRICS),
        ("fits.toml", "[budget]\nseries = 50\n"),
        ("small.toml", "[budget]\nseries = 20\n"),
        ("points.toml", "[budget]\nseries = 50\npoints_per_minute = 20\n"),
        ("wrong.toml", "[budget]\nseries = 'x'\n"),
    ];
    Folder::new(name, &files)
}

#[test]
fn targets_are_counted_as_they_will_be_scraped() {
    let folder = folder("counted");
    let args = folder.args("fits.toml", 4);
    let config = load(&args, args.retention_file.as_ref()).unwrap();
    let series = series::of_targets(&args.scrape_file[0], "api", 4, &config).unwrap();
    // Three of the target, five of the scrape.
    assert_eq!(series.len(), 4 * 8);
}

#[test]
fn the_exit_code_says_whether_it_fits() {
    let folder = folder("exit");
    assert_eq!(run(&folder.args("fits.toml", 4)).unwrap(), ExitCode::SUCCESS);
    assert_eq!(run(&folder.args("small.toml", 4)).unwrap(), ExitCode::from(3));
    assert_eq!(run(&folder.args("points.toml", 4)).unwrap(), ExitCode::from(3));
    assert!(run(&folder.args("wrong.toml", 4)).is_err());
    let unknown = PlanArgs { endpoint: Some("b".into()), ..folder.args("fits.toml", 1) };
    assert!(run(&unknown).unwrap_err().to_string().contains("has no endpoint b"));
    let rules = PlanArgs {
        rule_file: vec![folder.0.join("prometheus.yml")],
        ..folder.args("fits.toml", 1)
    };
    assert!(run(&rules).is_err());
}

#[test]
fn a_plan_tells_what_changes() {
    let folder = folder("changes");
    let args = folder.args("small.toml", 3);
    let config = load(&args, args.retention_file.as_ref()).unwrap();
    let series = series::of_targets(&args.scrape_file[0], "api", 3, &config).unwrap();
    let one = series::of_targets(&args.scrape_file[0], "api", 1, &config).unwrap();
    let report = |series: &[Labels]| {
        let scraped = scrape_interval(&config);
        plan(series, &config.remote_write[0], &Labels::default(), scraped, None)
    };
    let planned = [Planned { before: report(&one), after: report(&series) }];
    insta::assert_snapshot!(show::text(&planned));
    let json: serde_json::Value = serde_json::from_str(&show::json(&planned).unwrap()).unwrap();
    assert_eq!(
        (&json["fits"], &json["endpoints"][0]["series"]["before"]),
        (&false.into(), &8.into())
    );
}

#[test]
fn what_is_used_comes_first_as_with_a_running_server() {
    let metrics = (0..6).map(|n| format!("a_total{{n=\"{n}\"}} 1\n")).collect::<Vec<_>>().concat();
    let metrics = format!("{metrics}{}", metrics.replace("a_total", "z_total"));
    let rules = "groups: [{name: g, rules: [{alert: Z, expr: 'z_total > 1'}]}]\n";
    let files = [
        ("prometheus.yml", CONFIG),
        ("metrics.txt", metrics.as_str()),
        // Room for what a scrape adds, and for one of the two.
        ("plain.toml", "[budget]\nseries = 12\nreserve = 0\n"),
        ("rules.toml", "[budget]\nseries = 12\nreserve = 0\n[usage]\nrules = ['rules.yml']\n"),
        ("shown.toml", "[budget]\nseries = 12\nreserve = 0\n[usage]\ndashboards = ['*.json']\n"),
        ("rules.yml", rules),
        ("board.json", "{\"panels\": [{\"targets\": [{\"expr\": \"sum(z_total)\"}]}]}"),
    ];
    let folder = Folder::new("used", &files);
    let sent = |args: &PlanArgs| {
        let planned = plans(args).unwrap().remove(0);
        let mut sent: Vec<String> = Vec::new();
        for report in [planned.before, planned.after] {
            let of =
                |name: &str| report.metrics.iter().find(|it| it.name == name).map(|it| it.slots);
            sent.push(format!("{:?} {:?}", of("a_total"), of("z_total")));
        }
        sent.remove(1)
    };
    let (by_name, by_use) = ("Some(6) Some(0)", "Some(0) Some(6)");
    assert_eq!(sent(&folder.args("plain.toml", 1)), by_name);
    assert_eq!(sent(&folder.args("rules.toml", 1)), by_use);
    assert_eq!(sent(&folder.args("shown.toml", 1)), by_use);
    let board = PlanArgs {
        dashboard_file: vec![folder.0.join("board.json")],
        ..folder.args("plain.toml", 1)
    };
    assert_eq!(sent(&board), by_use);
    let none = PlanArgs { dashboard_file: vec![folder.0.join("none")], ..board };
    assert!(plans(&none).is_err());
}
