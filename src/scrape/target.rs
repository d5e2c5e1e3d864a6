//! From discovered labels to a target: defaults, relabelling, checks.

use stint_model::labels::{INSTANCE, JOB, LabelsBuilder, Quoted};
use stint_model::relabel::{self, Verdict};
use stint_model::{Labels, Span};
use xxhash_rust::xxh3::xxh3_64;

use crate::config::ScrapeConfig;
use crate::discovery::{ADDRESS, TargetGroup};

const SCHEME: &str = "__scheme__";
const METRICS_PATH: &str = "__metrics_path__";
const SCRAPE_INTERVAL: &str = "__scrape_interval__";
const SCRAPE_TIMEOUT: &str = "__scrape_timeout__";
const SCRAPE_NATIVE: &str = "__scrape_native_histograms__";
const SCRAPE_CLASSIC: &str = "__always_scrape_classic_histograms__";
const CONVERT_CLASSIC: &str = "__convert_classic_histograms_to_nhcb__";
const UNIX_SOCKET: &str = "__unix_socket__";
const META_PREFIX: &str = "__meta_";
const PARAM_PREFIX: &str = "__param_";

/// Something to scrape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// As discovered, with the job's defaults, before relabelling.
    pub discovered: Labels,
    /// What every sample gets; no label starts with `__`.
    pub labels: Labels,
    /// All labels after relabelling, the internal ones too; with the URL, the target's identity.
    pub all_labels: Labels,
    /// Where its metrics are.
    pub url: String,
    /// The same, taken apart.
    pub location: Option<reqwest::Url>,
    /// How often it is scraped.
    pub interval: Span,
    /// When a scrape is given up.
    pub timeout: Span,
    /// Whether native histograms are taken from it.
    pub native_histograms: bool,
    /// Whether the classic buckets of native histograms are taken too.
    pub classic_too: bool,
    /// Whether classic histograms become native ones with custom buckets.
    pub convert_classic: bool,
}

/// What became of a discovered target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Built {
    /// It is scraped.
    Active(Box<Target>),
    /// Relabelling dropped it; these are its discovered labels.
    Dropped(Labels),
    /// It cannot be scraped, and why.
    Invalid(String),
}

impl Target {
    /// Builds the target that discovery found as `found` in `group` for the job `config`.
    pub fn build(config: &ScrapeConfig, group: &TargetGroup, found: &Labels) -> Built {
        let mut labels = LabelsBuilder::default();
        for (name, value) in group.labels.iter().chain(found) {
            labels.set(name, value);
        }
        set_defaults(config, &mut labels);
        let discovered = labels.build();
        if relabel::apply(&config.relabel_configs, &mut labels) == Verdict::Drop {
            return Built::Dropped(discovered);
        }
        match Self::finish(config, discovered, labels) {
            Ok(target) => Built::Active(Box::new(target)),
            Err(message) => Built::Invalid(message),
        }
    }

    fn finish(
        config: &ScrapeConfig,
        discovered: Labels,
        mut labels: LabelsBuilder,
    ) -> Result<Self, String> {
        let address = labels.get(ADDRESS).unwrap_or_default().to_owned();
        if address.is_empty() {
            return Err("no address".to_owned());
        }
        if address.contains('/') {
            return Err(format!("{} is not a valid hostname", Quoted(&address)));
        }
        if labels.get(UNIX_SOCKET).is_some() {
            return Err(format!("`{UNIX_SOCKET}` is not supported yet: remove it by relabelling"));
        }
        let (interval, timeout) = timing(&labels)?;
        let native_histograms = flag(&labels, SCRAPE_NATIVE)?;
        let classic_too = flag(&labels, SCRAPE_CLASSIC)?;
        let convert_classic = flag(&labels, CONVERT_CLASSIC)?;
        labels.retain(|name| !name.starts_with(META_PREFIX));
        if labels.get(INSTANCE).is_none() {
            labels.set(INSTANCE, &address);
        }
        let all_labels = labels.build();
        let url = url(config, &all_labels, &address)?;
        let labels = all_labels.retain(|name| !name.starts_with("__"));
        Ok(Self {
            discovered,
            labels,
            all_labels,
            location: reqwest::Url::parse(&url).ok(),
            url,
            interval,
            timeout,
            native_histograms,
            classic_too,
            convert_classic,
        })
    }

    /// Interval and timeout as they are written.
    pub fn shown_timing(&self) -> (&str, &str) {
        let label = |name| self.all_labels.get(name).unwrap_or_default();
        (label(SCRAPE_INTERVAL), label(SCRAPE_TIMEOUT))
    }

    /// A hash of labels and URL, the same in every run: where in the interval the target falls.
    pub fn hash(&self) -> u64 {
        self.all_labels.stable_hash() ^ xxh3_64(self.url.as_bytes())
    }
}

fn set_defaults(config: &ScrapeConfig, labels: &mut LabelsBuilder) {
    let interval = config.scrape_interval.to_string();
    let timeout = config.scrape_timeout.to_string();
    let defaults = [
        (JOB, config.job_name.as_str()),
        (SCRAPE_INTERVAL, &interval),
        (SCRAPE_TIMEOUT, &timeout),
        (METRICS_PATH, &config.metrics_path),
        (SCHEME, &config.scheme),
        (SCRAPE_NATIVE, truth(config.scrape_native_histograms)),
        (SCRAPE_CLASSIC, truth(config.always_scrape_classic_histograms)),
        (CONVERT_CLASSIC, truth(config.convert_classic_histograms_to_nhcb)),
    ];
    for (name, value) in defaults {
        if labels.get(name).is_none() {
            labels.set(name, value);
        }
    }
    for (name, values) in &config.params {
        let name = format!("{PARAM_PREFIX}{name}");
        if let (Some(first), None) = (values.first(), labels.get(&name)) {
            labels.set(&name, first);
        }
    }
}

const fn truth(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

fn flag(labels: &LabelsBuilder, name: &str) -> Result<bool, String> {
    match labels.get(name).unwrap_or("false") {
        "true" | "TRUE" | "True" | "1" | "t" | "T" => Ok(true),
        "false" | "FALSE" | "False" | "0" | "f" | "F" => Ok(false),
        other => Err(format!("error parsing {name}: {} is neither true nor false", Quoted(other))),
    }
}

fn timing(labels: &LabelsBuilder) -> Result<(Span, Span), String> {
    let span = |name: &str, what: &str| {
        let text = labels.get(name).unwrap_or_default();
        let span =
            Span::parse(text).map_err(|error| format!("error parsing scrape {what}: {error}"))?;
        if span == Span::ZERO { Err(format!("scrape {what} cannot be 0")) } else { Ok(span) }
    };
    let interval = span(SCRAPE_INTERVAL, "interval")?;
    let timeout = span(SCRAPE_TIMEOUT, "timeout")?;
    if timeout > interval {
        return Err(format!(
            "scrape timeout cannot be greater than scrape interval (\"{timeout}\" > \"{interval}\")"
        ));
    }
    Ok((interval, timeout))
}

/// The URL: the job's parameters, the first value of each replaced by its `__param_` label.
fn url(config: &ScrapeConfig, labels: &Labels, address: &str) -> Result<String, String> {
    let scheme = labels.get(SCHEME).unwrap_or_default();
    let mut params = config.params.clone();
    for (name, value) in labels {
        let Some(name) = name.strip_prefix(PARAM_PREFIX) else { continue };
        match params.iter_mut().find(|(param, _)| param == name) {
            Some((_, values)) if !values.is_empty() => {
                if let Some(first) = values.first_mut() {
                    value.clone_into(first);
                }
            }
            Some((_, values)) => values.push(value.to_owned()),
            None => params.push((name.to_owned(), vec![value.to_owned()])),
        }
    }
    params.sort();
    let mut url = reqwest::Url::parse(&format!("{scheme}://{address}/"))
        .map_err(|error| format!("{} is not a valid address: {error}", Quoted(address)))?;
    url.set_path(labels.get(METRICS_PATH).unwrap_or_default());
    let pairs = params.iter().flat_map(|(name, values)| values.iter().map(move |v| (name, v)));
    let mut pairs = pairs.peekable();
    if pairs.peek().is_some() {
        url.query_pairs_mut().extend_pairs(pairs);
    }
    // The address is kept as it is written, a default port included.
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    Ok(format!("{scheme}://{address}{}{query}", url.path()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(yaml: &str) -> ScrapeConfig {
        crate::config::tests_support::job(yaml)
    }

    fn group(labels: &[(&str, &str)]) -> TargetGroup {
        let targets = Vec::new();
        TargetGroup {
            source: String::new(),
            targets,
            labels: Labels::from_pairs(labels.iter().copied()),
        }
    }

    fn build(yaml: &str, found: &[(&str, &str)]) -> Built {
        let found = Labels::from_pairs(found.iter().copied());
        Target::build(&job(yaml), &group(&[("zone", "g"), ("__meta_x", "m")]), &found)
    }

    fn active(yaml: &str, found: &[(&str, &str)]) -> Target {
        match build(yaml, found) {
            Built::Active(target) => *target,
            other => panic!("{other:?}"),
        }
    }

    fn invalid(yaml: &str, found: &[(&str, &str)], text: &str) {
        assert_eq!(build(yaml, found), Built::Invalid(text.to_owned()));
    }

    const A: [(&str, &str); 1] = [("__address__", "a:80")];

    #[test]
    fn defaults_are_filled_in() {
        let target = active("", &A);
        assert_eq!(target.labels.to_string(), r#"{instance="a:80", job="j", zone="g"}"#);
        assert_eq!(target.url, "http://a:80/metrics");
        assert_eq!((target.interval, target.timeout), (Span(60_000), Span(10_000)));
        assert_eq!(target.discovered.get("__meta_x"), Some("m"));
        assert_eq!(target.discovered.get("__scrape_interval__"), Some("1m"));
        assert_eq!(target.discovered.get("__scrape_native_histograms__"), Some("false"));
        assert_eq!(target.all_labels.get("__meta_x"), None);
    }

    #[test]
    fn the_targets_own_labels_win_over_the_groups() {
        let target = active("", &[("__address__", "a:1"), ("zone", "t"), ("job", "own")]);
        assert_eq!(target.labels.to_string(), r#"{instance="a:1", job="own", zone="t"}"#);
    }

    #[test]
    fn relabelling_sees_and_sets_everything() {
        let yaml = "
params: {module: [x, y], 'a b': [c]}
scheme: https
relabel_configs:
- {source_labels: [__address__], target_label: __param_target}
- {source_labels: [__meta_x], target_label: from_meta}
- {target_label: __address__, replacement: 'proxy:9115'}
- {target_label: __metrics_path__, replacement: /probe}
- {target_label: __scrape_interval__, replacement: 30s}
- {target_label: __scrape_timeout__, replacement: 5s}";
        let target = active(yaml, &A);
        assert_eq!(target.url, "https://proxy:9115/probe?a+b=c&module=x&module=y&target=a%3A80");
        assert_eq!((target.interval, target.timeout), (Span(30_000), Span(5000)));
        assert_eq!(target.labels.get("from_meta"), Some("m"));
        assert_eq!(target.labels.get("instance"), Some("proxy:9115"));
    }

    #[test]
    fn labels_of_parameters_replace_their_first_values() {
        let labels = [("__address__", "a:80"), ("__param_a", "label"), ("__param_new", "x")];
        assert_eq!(
            active("params: {a: ['1', '2']}", &labels).url,
            "http://a:80/metrics?a=label&a=2&new=x"
        );
    }

    #[test]
    fn intervals_are_shown_as_they_are_written() {
        let set = "relabel_configs: [{target_label: __scrape_interval__, replacement: 60000ms}]";
        assert_eq!(active(set, &A).shown_timing(), ("60000ms", "10s"));
    }

    #[test]
    fn dropped_targets_keep_their_discovered_labels() {
        let yaml = "relabel_configs: [{source_labels: [zone], regex: g, action: drop}]";
        let Built::Dropped(labels) = build(yaml, &A) else { panic!("it is dropped") };
        assert_eq!(labels.get("__address__"), Some("a:80"));
        assert_eq!(labels.get("job"), Some("j"));
    }

    #[test]
    fn what_cannot_be_scraped_says_why() {
        let set = |label: &str, value: &str| {
            format!("relabel_configs: [{{target_label: {label}, replacement: '{value}'}}]")
        };
        invalid("", &[], "no address");
        invalid("", &[("__address__", "http://a")], "\"http://a\" is not a valid hostname");
        invalid(&set("__scrape_interval__", "0"), &A, "scrape interval cannot be 0");
        invalid(
            &set("__scrape_timeout__", "2m"),
            &A,
            "scrape timeout cannot be greater than scrape interval (\"2m\" > \"1m\")",
        );
        invalid(
            &set("__scrape_timeout__", "x"),
            &A,
            "error parsing scrape timeout: not a valid duration string: \"x\"",
        );
        // What nobody can fetch is a target all the same, and down.
        assert_eq!(active(&set("__scheme__", "ftp"), &A).url, "ftp://a:80/metrics");
    }
}
