//! `--enable-feature`: what each name switches on.

use stint_promql::EngineOptions;

use crate::cli::flags::Flags;
use crate::config::Config;

/// Features of Prometheus that are always on here.
const ALWAYS_ON: [&str; 12] = [
    "agent",
    "auto-gomaxprocs",
    "auto-gomemlimit",
    "exemplar-storage",
    "native-histograms",
    "new-service-discovery-manager",
    "no-default-scrape-port",
    "ooo-native-histograms",
    "promql-at-modifier",
    "promql-duration-expr",
    "promql-negative-offset",
    "utf8-names",
];

/// Evaluating rules of one group at the same time.
const CONCURRENT_RULES: &str = "concurrent-rule-eval";

/// How many rules may run beside the others of their groups; `None` for one after the other.
pub fn concurrent_rules(flags: &Flags) -> Option<usize> {
    let is_on = flags.enable_feature.iter().any(|name| name == CONCURRENT_RULES);
    is_on.then_some(flags.rules_max_concurrent_evals as usize)
}

/// The engine's options from the flags and the configuration that the server starts with.
pub fn engine_options(flags: &Flags, config: &Config) -> EngineOptions {
    let mut options = EngineOptions {
        lookback: flags.query_lookback_delta,
        samples_max: usize::try_from(flags.query_max_samples).unwrap_or(usize::MAX),
        timeout: flags.query_timeout.to_std(),
        subquery_step: config.global.evaluation_interval,
        ..EngineOptions::default()
    };
    for name in &flags.enable_feature {
        match name.as_str() {
            "promql-experimental-functions" => options.features.experimental_functions = true,
            "promql-extended-range-selectors" => options.features.extended_range_selectors = true,
            "promql-binop-fill-modifiers" => options.features.fill_modifiers = true,
            "promql-delayed-name-removal" => options.delayed_name_removal = true,
            "promql-per-step-stats" => options.per_step_stats = true,
            "use-start-timestamps" => options.use_start_timestamps = true,
            _ => {}
        }
    }
    options
}

/// A warning for every feature that changes nothing here.
pub fn warnings(flags: &Flags) -> Vec<String> {
    let known = [
        CONCURRENT_RULES,
        "promql-experimental-functions",
        "promql-extended-range-selectors",
        "promql-binop-fill-modifiers",
        "promql-delayed-name-removal",
        "promql-per-step-stats",
        "use-start-timestamps",
    ];
    let without_effect = |name: &&String| !known.contains(&name.as_str());
    flags
        .enable_feature
        .iter()
        .filter(without_effect)
        .map(|name| {
            if ALWAYS_ON.contains(&name.as_str()) {
                format!(
                    "feature {name} needs no switch: it is part of the server or means nothing here"
                )
            } else {
                format!("feature {name} is not supported and has no effect")
            }
        })
        .collect()
}
