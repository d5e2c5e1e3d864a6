//! Summaries: quantiles over what was observed lately, under the names that dashboards know.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType, Quantile, Summary};
use stint_model::Clock;

use super::Metrics;

/// How long an observation counts.
const REMEMBERED: Duration = Duration::from_mins(10);
/// How many observations of one series are remembered at most; of more, the newest.
const REMEMBERED_MAX: usize = 1024;

/// A family of summaries with one label.
#[derive(Clone)]
pub struct SummaryVec {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    help: String,
    label: String,
    quantiles: &'static [f64],
    desc: Desc,
    clock: Arc<dyn Clock>,
    /// By value of the label.
    windows: Mutex<BTreeMap<String, Window>>,
}

#[derive(Default)]
struct Window {
    count: u64,
    sum: f64,
    recent: VecDeque<(Duration, f64)>,
}

impl SummaryVec {
    /// Registers a family whose series differ by `label`.
    ///
    /// # Panics
    /// When a family of that name is registered already: a mistake of the program, found at start.
    pub fn new(
        metrics: &Metrics,
        clock: Arc<dyn Clock>,
        name: &str,
        help: &str,
        label: &str,
        quantiles: &'static [f64],
    ) -> Self {
        let labels = if label.is_empty() { Vec::new() } else { vec![label.to_owned()] };
        let desc =
            Desc::new(name.to_owned(), help.to_owned(), labels, std::collections::HashMap::new())
                .expect("metric names are valid");
        let inner = Inner {
            name: name.to_owned(),
            help: help.to_owned(),
            label: label.to_owned(),
            quantiles,
            desc,
            clock,
            windows: Mutex::default(),
        };
        super::register(metrics.registry(), Self { inner: Arc::new(inner) })
    }

    /// Registers a family of one series, which has no label and is there from the start. It is that of
    /// the empty value.
    ///
    /// # Panics
    /// When a family of that name is registered already: a mistake of the program, found at start.
    pub fn without_label(
        metrics: &Metrics,
        clock: Arc<dyn Clock>,
        name: &str,
        help: &str,
        quantiles: &'static [f64],
    ) -> Self {
        let made = Self::new(metrics, clock, name, help, "", quantiles);
        made.inner.windows.lock().insert(String::new(), Window::default());
        made
    }

    /// Adds an observation to the series of `value`.
    pub fn observe(&self, value: &str, observed: f64) {
        let now = self.inner.clock.monotonic();
        let mut windows = self.inner.windows.lock();
        if !windows.contains_key(value) {
            windows.insert(value.to_owned(), Window::default());
        }
        let Some(window) = windows.get_mut(value) else { return };
        window.count += 1;
        window.sum += observed;
        if window.recent.len() >= REMEMBERED_MAX {
            window.recent.pop_front();
        }
        window.recent.push_back((now, observed));
    }

    /// Removes the series of `value`.
    pub fn remove(&self, value: &str) {
        self.inner.windows.lock().remove(value);
    }
}

impl Window {
    fn quantiles(&mut self, now: Duration, quantiles: &[f64]) -> Vec<Quantile> {
        while self.recent.front().is_some_and(|(at, _)| now.saturating_sub(*at) > REMEMBERED) {
            self.recent.pop_front();
        }
        let mut sorted: Vec<f64> = self.recent.iter().map(|(_, observed)| *observed).collect();
        sorted.sort_by(f64::total_cmp);
        let quantile = |rank: &f64| {
            let mut quantile = Quantile::default();
            quantile.set_quantile(*rank);
            let at = (rank * sorted.len() as f64).ceil() as usize;
            quantile.set_value(sorted.get(at.saturating_sub(1)).copied().unwrap_or(f64::NAN));
            quantile
        };
        quantiles.iter().map(quantile).collect()
    }
}

impl Collector for SummaryVec {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.inner.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let inner = &self.inner;
        let now = inner.clock.monotonic();
        let mut series = Vec::new();
        for (value, window) in &mut *inner.windows.lock() {
            let mut summary = Summary::default();
            summary.set_sample_count(window.count);
            summary.set_sample_sum(window.sum);
            summary.set_quantile(window.quantiles(now, inner.quantiles));
            let mut labels = Vec::new();
            if !inner.label.is_empty() {
                let mut label = LabelPair::default();
                label.set_name(inner.label.clone());
                label.set_value(value.clone());
                labels.push(label);
            }
            let mut metric = Metric::from_label(labels);
            metric.set_summary(summary);
            series.push(metric);
        }
        if series.is_empty() {
            return Vec::new();
        }
        let mut family = MetricFamily::default();
        family.set_name(inner.name.clone());
        family.set_help(inner.help.clone());
        family.set_field_type(MetricType::SUMMARY);
        family.set_metric(series);
        vec![family]
    }
}

#[cfg(test)]
mod tests {
    use stint_model::clock::SimClock;
    use stint_model::{Span, Timestamp};

    use super::*;

    #[test]
    fn quantiles_are_of_what_came_lately() {
        let metrics = Metrics::new();
        let clock = Arc::new(SimClock::at(Timestamp(0)));
        let summary =
            SummaryVec::new(&metrics, clock.clone(), "s_seconds", "Help.", "job", &[0.5, 0.99]);
        assert!(!metrics.render().contains("s_seconds"));
        for observed in 1..=100 {
            summary.observe("a", f64::from(observed));
        }
        let text = metrics.render();
        for line in [
            "# TYPE s_seconds summary\n",
            "s_seconds{job=\"a\",quantile=\"0.5\"} 50\n",
            "s_seconds{job=\"a\",quantile=\"0.99\"} 99\n",
            "s_seconds_sum{job=\"a\"} 5050\n",
            "s_seconds_count{job=\"a\"} 100\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        clock.advance(Span(11 * 60_000));
        summary.observe("a", 7.0);
        let text = metrics.render();
        assert!(text.contains("s_seconds{job=\"a\",quantile=\"0.99\"} 7\n"), "{text}");
        assert!(text.contains("s_seconds_count{job=\"a\"} 101\n"), "{text}");
        summary.remove("a");
        assert!(!metrics.render().contains("s_seconds"));
    }

    #[test]
    fn a_family_without_label_is_there_from_the_start() {
        let metrics = Metrics::new();
        let clock = Arc::new(SimClock::at(Timestamp(0)));
        let summary = SummaryVec::without_label(&metrics, clock, "s_seconds", "Help.", &[0.5]);
        assert!(metrics.render().contains("s_seconds_count 0\n"), "{}", metrics.render());
        summary.observe("", 3.0);
        assert!(
            metrics.render().contains("s_seconds{quantile=\"0.5\"} 3\n"),
            "{}",
            metrics.render()
        );
    }
}
