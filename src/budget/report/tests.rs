use super::*;

#[test]
fn the_text_names_what_matters() {
    let report = Report {
        endpoints: vec![EndpointReport {
            name: "cloud".into(),
            url: "https://x.grafana.net/api/prom/push".into(),
            series: Some(SeriesBudget {
                contract: 10_000,
                target: 9_000,
                server: "normal".into(),
                ..SeriesBudget::default()
            }),
            live: 4_500,
            samples: Samples { running: false, restarts: 3, ..Samples::default() },
            jobs: vec![Use { name: "node".into(), slots: 4_500, withheld: 3, ..Use::default() }],
            withheld: vec![Withheld {
                metric: "big".into(),
                job: "node".into(),
                series: 3,
                reason: "budget".into(),
                since: Some(1_700_000_000.0),
                ..Withheld::default()
            }],
            forecast: Some(Forecast {
                slots_per_hour: 90.0,
                exhausted_in_secs: Some(180_000.0),
                ..Forecast::default()
            }),
            ..EndpointReport::default()
        }],
        ..Report::default()
    };
    let text = report.to_string();
    for part in [
        "4500 of 9000 (50 %), contract 10000",
        "+90 series per hour, the target is reached in 2d2h",
        "forwarding broke down 3 times and starts again",
        "big (node)",
        "2023-11-14T22:13:20Z  budget",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    assert!(Report::default().to_string().contains("nothing is forwarded"));
}

#[test]
fn the_json_can_be_read_back() {
    let report = Report { endpoints: vec![EndpointReport::default()], ..Report::default() };
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
}
