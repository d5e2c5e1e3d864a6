//! From OTLP's names and units to names of metrics and labels.
//!
//! The rules are those of Prometheus' `otlptranslator`, so that the same instrument gets the same
//! name whichever of the two servers it is sent to.

use std::borrow::Cow;

/// How names are made (`otlp.translation_strategy` in Prometheus' configuration).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// Other characters than letters, digits and colons become underscores; unit and type are
    /// appended. `UnderscoreEscapingWithSuffixes`
    #[default]
    UnderscoresAndSuffixes,
    /// All characters stay; unit and type are appended. `NoUTF8EscapingWithSuffixes`
    Suffixes,
    /// Other characters become underscores, nothing is appended.
    /// `UnderscoreEscapingWithoutSuffixes`
    Underscores,
    /// Names stay as they are. `NoTranslation`
    None,
}

impl Strategy {
    pub(super) const fn escapes(self) -> bool {
        matches!(self, Self::UnderscoresAndSuffixes | Self::Underscores)
    }
}

/// What a metric's name says of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A sum that only grows.
    Counter,
    Gauge,
    Other,
}

/// A name of which nothing remains.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name {0:?} has no letter or digit that a name can be made of")]
pub(super) struct EmptyName(String);

const UNITS: [(&str, &str); 25] = [
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("KBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("%", "percent"),
];

const PER_UNITS: [(&str, &str); 7] = [
    ("s", "second"),
    ("m", "minute"),
    ("h", "hour"),
    ("d", "day"),
    ("w", "week"),
    ("mo", "month"),
    ("y", "year"),
];

fn look_up<'u>(table: &[(&'u str, &'u str)], unit: &'u str) -> &'u str {
    table.iter().find(|(short, _)| *short == unit).map_or(unit, |(_, long)| long)
}

/// The words of a unit such as `By/s`: `bytes` and `per_second`; empty where there is none.
fn unit_words(unit: &str) -> (Cow<'_, str>, String) {
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    // What stands in braces is a remark.
    let known = |part: &str| !part.is_empty() && !part.contains(['{', '}']);
    let (main, per) = (main.trim(), per.trim());
    let main = match main {
        "1" => "",
        main if known(main) => look_up(&UNITS, main),
        _ => "",
    };
    let per = if known(per) { format!("per_{}", look_up(&PER_UNITS, per)) } else { String::new() };
    (main.into(), per)
}

/// Whether a character may stand in an escaped metric name; underscores separate its words.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == ':'
}

/// A unit as part of an escaped name: other characters become single underscores, none leads.
fn clean_unit(unit: &str) -> String {
    let mut clean = String::with_capacity(unit.len());
    for c in unit.chars() {
        let c = if is_plain(c) { c } else { '_' };
        if c != '_' || !clean.ends_with('_') {
            clean.push(c);
        }
    }
    let lead = usize::from(clean.starts_with('_'));
    clean.split_off(lead)
}

/// The unit as metadata has it: in words.
pub(super) fn unit_name(unit: &str, strategy: Strategy) -> String {
    let (main, per) = unit_words(unit);
    let (main, per) = if strategy.escapes() {
        (clean_unit(&main), clean_unit(&per))
    } else {
        (main.into_owned(), per)
    };
    let both =
        if main.is_empty() || per.is_empty() { main + &per } else { format!("{main}_{per}") };
    let both = both.strip_prefix('_').unwrap_or(&both);
    both.strip_suffix('_').unwrap_or(both).to_owned()
}

/// The name of a metric.
///
/// # Errors
/// Nothing is left of it.
pub(super) fn metric_name<'n>(
    name: &'n str,
    unit: &str,
    kind: Kind,
    strategy: Strategy,
) -> Result<Cow<'n, str>, EmptyName> {
    let made = match strategy {
        Strategy::UnderscoresAndSuffixes => Cow::Owned(words_and_suffixes(name, unit, kind)),
        Strategy::Suffixes => Cow::Owned(with_suffixes(name, unit, kind)),
        Strategy::Underscores => {
            let words = name.split(|c| !is_plain(c) && c != '_').filter(|word| !word.is_empty());
            Cow::Owned(words.collect::<Vec<_>>().join("_"))
        }
        Strategy::None => Cow::Borrowed(name),
    };
    if is_nothing(&made, name, strategy.escapes()) {
        return Err(EmptyName(name.to_owned()));
    }
    if strategy.escapes() && made.starts_with(|c: char| c.is_ascii_digit()) {
        return Ok(Cow::Owned(format!("_{made}")));
    }
    Ok(made)
}

/// Whether escaping has left nothing of a name that was more before.
fn is_nothing(made: &str, name: &str, escapes: bool) -> bool {
    made.is_empty() || escapes && made != name && made.bytes().all(|byte| byte == b'_')
}

fn words_and_suffixes(name: &str, unit: &str, kind: Kind) -> String {
    let mut words: Vec<&str> =
        name.split(|c| !is_plain(c)).filter(|word| !word.is_empty()).collect();
    let (main, per) = unit_words(unit);
    let (main, per) = (clean_unit(&main), clean_unit(&per));
    let is_new = |word: &&str| !word.is_empty() && !words.contains(word);
    let main = Some(&*main).filter(is_new);
    let per =
        Some(per.strip_suffix('_').unwrap_or(&per)).filter(|word| *word != "per").filter(is_new);
    // Without the underscore at its end where something follows.
    let main = main.map(|main| match per {
        Some(_) => main.strip_suffix('_').unwrap_or(main),
        None => main,
    });
    words.extend(main.filter(|word| !word.is_empty()));
    words.extend(per);
    let suffix = match kind {
        Kind::Counter => Some("total"),
        Kind::Gauge if unit == "1" => Some("ratio"),
        Kind::Gauge | Kind::Other => None,
    };
    if let Some(suffix) = suffix {
        words.retain(|word| *word != suffix);
        words.push(suffix);
    }
    words.join("_")
}

fn with_suffixes(name: &str, unit: &str, kind: Kind) -> String {
    let suffix = match kind {
        Kind::Counter => "total",
        Kind::Gauge if unit == "1" => "ratio",
        Kind::Gauge | Kind::Other => "",
    };
    let (main, per) = unit_words(unit);
    let mut made = without_suffix(without_suffix(name, suffix), &per).to_owned();
    if !made.ends_with(&*main) {
        made.push('_');
        made.push_str(&main);
    }
    for suffix in [&per, suffix] {
        if !suffix.is_empty() {
            made.push('_');
            made.push_str(suffix);
        }
    }
    made
}

/// `name` without `suffix` and the character before it.
fn without_suffix<'n>(name: &'n str, suffix: &str) -> &'n str {
    let Some(rest) = name.strip_suffix(suffix).filter(|_| !suffix.is_empty()) else { return name };
    let mut rest = rest.chars();
    match rest.next_back() {
        Some(_) if !rest.as_str().is_empty() => rest.as_str(),
        _ => name,
    }
}

/// What an attribute's key becomes, where names are escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LabelStyle {
    pub(super) escapes: bool,
    /// Runs of underscores stay.
    pub(super) keeps_runs: bool,
    /// A name that starts with one underscore is prefixed with `key`.
    pub(super) prefixes: bool,
}

/// The name of the label of an attribute.
///
/// # Errors
/// Nothing is left of it.
pub(super) fn label_name(key: &str, style: LabelStyle) -> Result<Cow<'_, str>, EmptyName> {
    if key.is_empty() {
        return Err(EmptyName(String::new()));
    }
    if !style.escapes {
        return Ok(Cow::Borrowed(key));
    }
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let first = key.as_bytes().first().copied().unwrap_or_default();
    if first.is_ascii_alphabetic()
        && key.bytes().all(word)
        && (style.keeps_runs || !key.contains("__"))
    {
        return Ok(Cow::Borrowed(key));
    }
    // What is reserved stays recognisable.
    let inner = key.strip_prefix("__").and_then(|rest| rest.strip_suffix("__"));
    let (reserved, inner) = inner.map_or((false, key), |inner| (true, inner));
    let mut made = String::with_capacity(key.len() + 4);
    for c in inner.chars() {
        let c = if c.is_ascii_alphanumeric() { c } else { '_' };
        if c != '_' || style.keeps_runs || !made.ends_with('_') {
            made.push(c);
        }
    }
    if reserved {
        made = format!("__{made}__");
    }
    if is_nothing(&made, key, true) {
        return Err(EmptyName(key.to_owned()));
    }
    if made.starts_with(|c: char| c.is_ascii_digit()) {
        made.insert_str(0, "key_");
    } else if style.prefixes && made.starts_with('_') && !made.starts_with("__") {
        made.insert_str(0, "key");
    }
    Ok(Cow::Owned(made))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert, proptest};
    use stint_model::labels::{is_legacy_label_name, is_legacy_metric_name};

    fn name(name: &str, unit: &str, kind: Kind, strategy: Strategy) -> String {
        metric_name(name, unit, kind, strategy).unwrap().into_owned()
    }

    #[test]
    fn words_get_units_and_types() {
        let name = |text, unit, kind| name(text, unit, kind, Strategy::UnderscoresAndSuffixes);
        for (text, unit, kind, expected) in [
            ("http.server.duration", "s", Kind::Other, "http_server_duration_seconds"),
            ("requests", "1", Kind::Counter, "requests_total"),
            ("memory.usage", "By", Kind::Gauge, "memory_usage_bytes"),
            ("cpu.utilization", "1", Kind::Gauge, "cpu_utilization_ratio"),
            ("net", "By/s", Kind::Gauge, "net_bytes_per_second"),
            ("jobs", "{job}", Kind::Gauge, "jobs"),
            ("jobs", "{job}/s", Kind::Gauge, "jobs_per_second"),
            ("total.of.bytes", "By", Kind::Counter, "of_bytes_total"),
            ("__a..b__", "", Kind::Other, "a_b"),
            ("5xx", "", Kind::Counter, "_5xx_total"),
            ("speed", "m/s²", Kind::Gauge, "speed_meters_per_s"),
            ("angle", "°/°", Kind::Gauge, "angle"),
            ("size", "KB", Kind::Gauge, "size_KB"),
            ("x", "ms", Kind::Other, "x_milliseconds"),
        ] {
            assert_eq!(name(text, unit, kind), expected);
        }
    }

    #[test]
    fn other_strategies_leave_more_of_a_name() {
        let suffixes = |text, unit, kind| name(text, unit, kind, Strategy::Suffixes);
        assert_eq!(suffixes("http.duration", "s", Kind::Other), "http.duration_seconds");
        assert_eq!(suffixes("a.total", "", Kind::Counter), "a_total");
        assert_eq!(suffixes("a.seconds", "s", Kind::Counter), "a.seconds_total");
        assert_eq!(suffixes("load.ratio", "1", Kind::Gauge), "load_ratio");
        assert_eq!(suffixes("total", "", Kind::Counter), "total_total");
        let plain = |text| name(text, "s", Kind::Counter, Strategy::Underscores);
        assert_eq!(plain("a..b__c."), "a_b__c");
        assert_eq!(plain("9.lives"), "_9_lives");
        assert_eq!(name("9.ö", "s", Kind::Counter, Strategy::None), "9.ö");
    }

    #[test]
    fn of_some_names_nothing_is_left() {
        for (text, strategy) in [
            ("...", Strategy::UnderscoresAndSuffixes),
            ("-_-", Strategy::Underscores),
            ("", Strategy::Suffixes),
            ("", Strategy::None),
        ] {
            let kind = Kind::Other;
            assert_eq!(metric_name(text, "", kind, strategy), Err(EmptyName(text.to_owned())));
        }
    }

    #[test]
    fn units_in_words() {
        let unit = |text| unit_name(text, Strategy::UnderscoresAndSuffixes);
        assert_eq!(unit("By/s"), "bytes_per_second");
        assert_eq!(unit("{packets}"), "");
        assert_eq!(unit("1"), "");
        assert_eq!(unit("°F"), "F");
    }

    #[test]
    fn label_names() {
        let style = LabelStyle { escapes: true, keeps_runs: true, prefixes: true };
        let label = |key, style| label_name(key, style).unwrap().into_owned();
        assert_eq!(label("http.status_code", style), "http_status_code");
        assert_eq!(label("a..b", style), "a__b");
        assert_eq!(label("a..b", LabelStyle { keeps_runs: false, ..style }), "a_b");
        assert_eq!(label("5xx", style), "key_5xx");
        assert_eq!(label("_x", style), "key_x");
        assert_eq!(label("_x", LabelStyle { prefixes: false, ..style }), "_x");
        assert_eq!(label("__tenant.id__", style), "__tenant_id__");
        assert_eq!(label("a.ö", LabelStyle { escapes: false, ..style }), "a.ö");
        assert!(label_name("ö.", style).is_err());
        assert!(label_name("", style).is_err());
    }

    proptest! {
        #[test]
        fn escaped_names_are_legal(
            text in "\\PC{0,12}", unit in "\\PC{0,6}", runs in any::<bool>(),
        ) {
            for strategy in [Strategy::UnderscoresAndSuffixes, Strategy::Underscores] {
                for kind in [Kind::Counter, Kind::Gauge, Kind::Other] {
                    if let Ok(made) = metric_name(&text, &unit, kind, strategy) {
                        prop_assert!(is_legacy_metric_name(&made), "{made}");
                    }
                }
            }
            let style = LabelStyle { escapes: true, keeps_runs: runs, prefixes: true };
            if let Ok(made) = label_name(&text, style) {
                prop_assert!(is_legacy_label_name(&made), "{made}");
            }
        }
    }
}
