//! `alerting`: the Alertmanagers that alerts are sent to.

use stint_model::Span;
use stint_model::labels::NameScheme;
use stint_model::relabel::Rule;

use super::decode::{Section, is_off};
use super::discovery::{self, SdConfig, StaticGroup};
use super::http::HttpConfig;
use super::relabel;

/// The section `alerting`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Alerting {
    /// Run over each alert after the external labels are attached.
    pub relabel_configs: Vec<Rule>,
    /// In order of the file.
    pub alertmanagers: Vec<Alertmanager>,
}

/// One entry of `alertmanagers`: servers that are found and reached in the same way.
#[derive(Clone, Debug, PartialEq)]
pub struct Alertmanager {
    /// When a request is given up.
    pub timeout: Span,
    /// Before `/api/v2/alerts`.
    pub path_prefix: String,
    /// `http` or `https`.
    pub scheme: String,
    /// How to reach them.
    pub http: HttpConfig,
    /// Written in the file.
    pub static_configs: Vec<StaticGroup>,
    /// What finds more while the server runs.
    pub sd_configs: Vec<SdConfig>,
    /// Run over what was found.
    pub relabel_configs: Vec<Rule>,
    /// Run over each alert that goes here.
    pub alert_relabel_configs: Vec<Rule>,
}

impl Alerting {
    pub(super) fn read(mut section: Section<'_>, scheme: NameScheme) -> Self {
        let relabel_configs = relabel::read(&mut section, "alert_relabel_configs", scheme);
        let found = section.sections("alertmanagers").into_iter();
        let alertmanagers = found.map(|section| Alertmanager::read(section, scheme)).collect();
        section.finish();
        Self { relabel_configs, alertmanagers }
    }
}

impl Alertmanager {
    fn read(mut section: Section<'_>, names: NameScheme) -> Self {
        let scheme = section.parsed("scheme", |text| match text {
            "http" | "https" => Ok(text.to_owned()),
            _ => Err(format!("{text} is neither http nor https")),
        });
        section.parsed("api_version", |text| match text {
            "v2" => Ok(()),
            _ => Err(format!("expected Alertmanager api version to be one of [v2] but got {text}")),
        });
        let config = Self {
            timeout: section
                .span("timeout")
                .filter(|span| *span > Span::ZERO)
                .unwrap_or(Span::from_secs(10)),
            path_prefix: section.string_or("path_prefix", "/"),
            scheme: scheme.unwrap_or_else(|| "http".to_owned()),
            http: HttpConfig::read(&mut section, true),
            static_configs: discovery::read_static(&mut section, names),
            sd_configs: discovery::read(&mut section),
            relabel_configs: relabel::read(&mut section, "relabel_configs", names),
            alert_relabel_configs: relabel::read(&mut section, "alert_relabel_configs", names),
        };
        section.unsupported("sigv4", is_off, "use basic_auth or authorization");
        section.finish();
        config
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests_support::{config, mistakes};

    #[test]
    fn alertmanagers_are_read_whole() {
        let alerting = config(
            "alerting:
  alert_relabel_configs: [{regex: replica, action: labeldrop}]
  alertmanagers:
  - scheme: https
    path_prefix: /am
    timeout: 5s
    api_version: v2
    basic_auth: {username: u, password: p}
    static_configs: [{targets: ['a:9093', 'b:9093'], labels: {zone: x}}]
    file_sd_configs: [{files: ['am.json']}]
    relabel_configs: [{source_labels: [zone], regex: x, action: keep}]
    alert_relabel_configs: [{source_labels: [severity], regex: info, action: drop}]
  - static_configs: [{targets: ['c:9093']}]
",
        )
        .alerting;
        let [first, second] = &alerting.alertmanagers[..] else { panic!("two are expected") };
        assert_eq!((alerting.relabel_configs.len(), first.relabel_configs.len()), (1, 1));
        assert_eq!((&*first.scheme, &*first.path_prefix, first.timeout.0), ("https", "/am", 5000));
        assert_eq!(first.static_configs[0].targets.len(), 2);
        assert_eq!((first.sd_configs.len(), first.alert_relabel_configs.len()), (1, 1));
        assert_eq!(
            (&*second.scheme, &*second.path_prefix, second.timeout.0),
            ("http", "/", 10_000)
        );
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        insta::assert_snapshot!(
            mistakes(
                "alerting:
  alertmanager: []
  alertmanagers:
  - api_version: v1
    scheme: ftp
    timout: 5s
    azure_sd_configs: [{port: 1}]
    static_configs: [{targets: ['http://a:9093']}]
"
            ),
            @r#"
            2:3: unknown key `alertmanager` in `alerting`; did you mean `alertmanagers`?
            4:18: `alerting.alertmanagers[0].api_version`: expected Alertmanager api version to be one of [v2] but got v1
            5:13: `alerting.alertmanagers[0].scheme`: ftp is neither http nor https
            6:5: unknown key `timout` in `alerting.alertmanagers[0]`; did you mean `timeout`?
            7:5: `alerting.alertmanagers[0].azure_sd_configs` is not supported yet; list the targets of Azure with file_sd_configs or http_sd_configs, for which a generator writes or serves them
            8:33: "http://a:9093" is not a valid hostname
            "#
        );
    }
}
