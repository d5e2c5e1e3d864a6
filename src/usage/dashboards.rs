//! Expressions in Grafana dashboards: panels, annotations and variables, of any version of the
//! format, in rows or not, wrapped as the API answers them or not.

use serde_json::{Map, Value};
use stint_model::Span;

use super::catalogue::{Known, Source};
use super::expression::{self, Name, Use, uses};
use super::needs::Needs;
use super::variables::{VALUES, fill};

/// Most expressions of one dashboard; the largest published ones have a few hundred.
const EXPRESSIONS_MAX: usize = 10_000;

/// Reads a dashboard. Each expression is there, also what cannot be read (with the reason), but for
/// queries that say they are for another kind of data source.
///
/// # Errors
/// The text is no JSON object.
pub fn read(text: &str) -> Result<Vec<Known>, String> {
    let json: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let Value::Object(mut root) = json else {
        return Err("a dashboard is a JSON object".to_owned());
    };
    let inner = ["dashboard", "spec"].iter().find_map(|key| match root.get(*key) {
        Some(Value::Object(_)) => root.remove(*key),
        _ => None,
    });
    let root = match inner {
        Some(Value::Object(inner)) => inner,
        _ => root,
    };
    let title = root.get("title").and_then(Value::as_str).unwrap_or("without a title").to_owned();
    let mut reader = Reader { title: &title, found: Vec::new() };
    reader.object(&root, "", true);
    Ok(reader.found)
}

struct Reader<'a> {
    title: &'a str,
    found: Vec<Known>,
}

impl Reader<'_> {
    fn value(&mut self, value: &Value, panel: &str, prometheus: bool) {
        match value {
            Value::Array(items) => {
                for item in items {
                    self.value(item, panel, prometheus);
                }
            }
            Value::Object(object) => self.object(object, panel, prometheus),
            _ => {}
        }
    }

    fn object(&mut self, object: &Map<String, Value>, panel: &str, prometheus: bool) {
        let prometheus = is_prometheus(object).unwrap_or(prometheus);
        let title = ["title", "name"].iter().find_map(|key| object.get(*key)?.as_str());
        let panel =
            title.filter(|title| !title.is_empty() && *title != self.title).unwrap_or(panel);
        if prometheus && let Some(expr) = object.get("expr").and_then(Value::as_str) {
            self.add(panel, expr, || touched(expr));
        }
        let is_variable = object.get("type").and_then(Value::as_str) == Some("query");
        if prometheus
            && is_variable
            && let Some(query) = object.get("query")
        {
            let text = query.as_str().or_else(|| query.get("query").and_then(Value::as_str));
            if let Some(text) = text {
                self.add(&format!("${panel}"), text, || variable(text));
            }
        }
        for value in object.values() {
            self.value(value, panel, prometheus);
        }
    }

    fn add(&mut self, panel: &str, expr: &str, uses: impl FnOnce() -> Result<Vec<Use>, String>) {
        if expr.trim().is_empty() || self.found.len() == EXPRESSIONS_MAX {
            return;
        }
        let what = match panel {
            "" => self.title.to_owned(),
            panel => format!("{} / {panel}", self.title),
        };
        self.found.push(Known::new(Source::Dashboard, what, expr, uses()));
    }
}

/// Whether the object's data source is one, where it says so.
fn is_prometheus(object: &Map<String, Value>) -> Option<bool> {
    let kind = match object.get("datasource")? {
        Value::Object(source) => source.get("type")?.as_str()?,
        // Once it was a name, which tells nothing, unless it is that of another product.
        Value::String(name) if name.to_ascii_lowercase().contains("loki") => "loki",
        _ => return None,
    };
    // The two kinds that hold several others say it at each query.
    Some(
        matches!(kind, "prometheus" | "datasource" | "grafana" | "mixed" | "")
            || kind.contains("prometheus"),
    )
}

/// The shortest window that an expression with variables has, where it is written out.
pub fn shortest_window(expr: &str) -> Option<Span> {
    VALUES.iter().find_map(|value| expression::shortest_window(&fill(expr, value)).ok()).flatten()
}

/// What an expression with variables touches.
fn touched(expr: &str) -> Result<Vec<Use>, String> {
    let mut outcome = Err(String::new());
    for value in VALUES {
        outcome = uses(&fill(expr, value));
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// What a variable's query touches: `label_values(…)`, `query_result(…)` and their like.
fn variable(query: &str) -> Result<Vec<Use>, String> {
    let query = query.trim();
    let call = query.strip_suffix(')').and_then(|inner| inner.split_once('('));
    match call.map(|(name, inner)| (name.trim(), inner.trim())) {
        Some(("label_values", inner)) => {
            // The label comes last; an expression before it may hold commas of its own.
            let (of, label) = match inner.rsplit_once(',') {
                Some((of, label)) => (of.trim(), label.trim()),
                None => ("", inner),
            };
            if of.is_empty() {
                return Ok(vec![Use { name: Name::Any, needs: Needs::none().with(label) }]);
            }
            let label = if label.starts_with(['$', '[']) { "x" } else { label };
            touched(&format!("group by ({label}) ({of})"))
        }
        Some(("query_result", inner)) => touched(inner),
        Some(("metrics" | "label_names", _)) => Ok(Vec::new()),
        _ => touched(query),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DASHBOARD: &str = r#"{
      "title": "Node",
      "templating": {"list": [
        {"type": "query", "name": "job", "query": {"query": "label_values(node_uname_info{a=\"1\", b=\"2\"}, job)"}},
        {"type": "query", "name": "env", "query": "label_values(environment)"},
        {"type": "custom", "name": "n", "query": "1,2"}
      ]},
      "annotations": {"list": [{"name": "deploys", "expr": "changes(build_info[5m])"}]},
      "panels": [
        {"type": "row", "title": "Memory", "panels": [
          {"title": "Used", "datasource": {"type": "prometheus", "uid": "$ds"},
           "targets": [{"expr": "sum by (instance) (node_memory_bytes{job=\"$job\"})"}, {"expr": " "}]}
        ]},
        {"title": "Logs", "datasource": {"type": "loki"}, "targets": [{"expr": "{app=\"x\"} |= \"y\""}]},
        {"title": "Broken", "targets": [{"expr": "sum("}]}
      ],
      "rows": [{"panels": [{"title": "Old", "targets": [{"expr": "topk($n, sum by (a) (old_total))"}]}]}]
    }"#;

    fn find<'a>(all: &'a [Known], what: &str) -> &'a Known {
        all.iter().find(|known| known.what == what).unwrap_or_else(|| panic!("{what} in {all:?}"))
    }

    #[test]
    fn every_place_of_an_expression_is_read() {
        let all = read(DASHBOARD).unwrap();
        let names: Vec<_> = all.iter().map(|known| known.what.as_str()).collect();
        assert_eq!(all.len(), 6, "{names:?}");
        let uses = &find(&all, "Node / Used").uses;
        assert_eq!(uses[0].name, Name::Is("node_memory_bytes".into()));
        assert_eq!(uses[0].needs, Needs::only(&["instance".into(), "job".into()]));
        assert_eq!(find(&all, "Node / Old").uses[0].needs, Needs::only(&["a".into()]));
        assert_eq!(find(&all, "Node / deploys").uses[0].name, Name::Is("build_info".into()));
        let labels = ["a", "b", "job"].map(str::to_owned);
        assert_eq!(find(&all, "Node / $job").uses[0].needs, Needs::only(&labels));
        assert_eq!(find(&all, "Node / $env").uses[0].name, Name::Any);
        assert!(find(&all, "Node / Broken").unread.is_some());
    }

    #[test]
    fn a_wrapped_dashboard_is_read_as_well() {
        let wrapped = format!("{{\"meta\": {{}}, \"dashboard\": {DASHBOARD}}}");
        assert_eq!(read(&wrapped).unwrap(), read(DASHBOARD).unwrap());
        assert!(read("[]").is_err());
        assert!(read("{").is_err());
    }

    /// The dashboards that lie beside the repository, or where `STINT_SHARED` says.
    fn collection() -> Option<std::path::PathBuf> {
        let shared = std::env::var_os("STINT_SHARED").map_or_else(
            || std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared"),
            std::path::PathBuf::from,
        );
        let found = shared.join("dashboards");
        let is_there = found.join("exprs.json").is_file();
        if !is_there {
            eprintln!("skipped: no dashboards at {} (set STINT_SHARED)", found.display());
        }
        is_there.then_some(found)
    }

    /// Texts under a key.
    fn texts<'a>(of: &'a Value, key: &str) -> impl Iterator<Item = &'a str> {
        of[key].as_array().into_iter().flatten().filter_map(Value::as_str)
    }

    #[test]
    fn popular_dashboards_are_read_as_prometheus_understands_them() {
        let Some(folder) = collection() else { return };
        let mut found = std::collections::HashMap::new();
        let mut files = 0;
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let is_dashboard = path.extension().is_some_and(|ending| ending == "json");
            if !is_dashboard || path.ends_with("exprs.json") {
                continue;
            }
            files += 1;
            let known = read(&std::fs::read_to_string(&path).unwrap()).unwrap();
            found.extend(known.into_iter().map(|known| (known.expr.clone(), known)));
        }
        let text = std::fs::read_to_string(folder.join("exprs.json")).unwrap();
        let all: Vec<Value> = serde_json::from_str(&text).unwrap();
        assert_eq!((files, all.len()), (30, 1306));
        for one in &all {
            let expr = one["expr"].as_str().unwrap();
            let known = found.get(expr).unwrap_or_else(|| panic!("not found: {expr}"));
            if one["parses"] == false {
                assert!(known.unread.is_some(), "{expr}");
                continue;
            }
            assert_eq!(known.unread, None, "{expr}");
            for metric in texts(one, "metrics") {
                let names = |used: &Use| match &used.name {
                    Name::Is(name) => name == metric,
                    Name::Like(pattern) => metric.strip_prefix("=~") == Some(pattern),
                    Name::Any => false,
                };
                assert!(known.uses.iter().any(names), "{expr} uses {metric}: {:?}", known.uses);
            }
            // Labels that an expression says it does not need, or makes, are among its labels there.
            let words = ["without", "ignoring", "label_join", "label_replace"];
            let has_others = words.iter().any(|word| expr.contains(word));
            for label in texts(one, "labels").filter(|it| *it != "__name__" && !has_others) {
                let needs = |used: &Use| used.needs.contains(label);
                assert!(known.uses.iter().any(needs), "{expr} needs {label}: {:?}", known.uses);
            }
        }
        // Nothing was made up either: what is read beside is no query of Prometheus there.
        let listed: std::collections::HashSet<&str> =
            all.iter().filter_map(|one| one["expr"].as_str()).collect();
        let others: Vec<&String> =
            found.keys().filter(|expr| !listed.contains(expr.as_str())).collect();
        assert!(others.is_empty(), "{others:?}");
    }
}
