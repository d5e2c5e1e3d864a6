//! Reads typed fields out of a tree, and tells of each wrong, unknown or unsupported one where it
//! stands. Reading goes on after a mistake, so that one run shows them all.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use stint_model::labels::{NameScheme, Quoted};
use stint_model::{Labels, Span};

use super::error::ConfigError;
use super::node::{Key, Kind, Node, Position, SyntaxError};
use super::secret::Secret;

/// What all sections of one file share.
pub(super) struct Context {
    file: String,
    directory: PathBuf,
    errors: RefCell<Vec<ConfigError>>,
    warnings: RefCell<Vec<ConfigError>>,
    /// Whether keys that nobody knows are passed over.
    pub(super) ignore_unknown: bool,
    /// Which keys are asked for, where that is what is to be found out.
    #[cfg(test)]
    pub(super) recorder: Option<super::reference::Recorder>,
}

impl Context {
    /// For the file called `file`; relative paths in it start at its directory.
    pub(super) fn new(file: &Path) -> Self {
        Self {
            file: file.display().to_string(),
            directory: file.parent().map(Path::to_path_buf).unwrap_or_default(),
            errors: RefCell::default(),
            warnings: RefCell::default(),
            ignore_unknown: false,
            #[cfg(test)]
            recorder: None,
        }
    }

    pub(super) fn error(&self, at: Position, message: impl Into<String>) {
        self.errors.borrow_mut().push(self.told(at, message.into()));
    }

    pub(super) fn warn(&self, at: Position, message: impl Into<String>) {
        self.warnings.borrow_mut().push(self.told(at, message.into()));
    }

    pub(super) fn syntax(&self, error: SyntaxError) {
        self.error(error.at, error.message);
    }

    fn told(&self, at: Position, message: String) -> ConfigError {
        ConfigError { file: self.file.clone(), line: at.line, column: at.column, message }
    }

    /// `path` as seen from the file's directory.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.directory.join(path)
    }

    /// Errors and warnings so far, in order of lines.
    pub(super) fn finish(self) -> (Vec<ConfigError>, Vec<ConfigError>) {
        let (mut errors, mut warnings) = (self.errors.into_inner(), self.warnings.into_inner());
        errors.sort();
        errors.dedup();
        warnings.sort();
        (errors, warnings)
    }
}

/// The fields of one map.
pub(super) struct Section<'a> {
    pub(super) cx: &'a Context,
    /// As it is called in messages, such as `scrape_configs[0]`.
    path: String,
    pub(super) at: Position,
    entries: &'a [(Key, Node)],
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// The fields of `node`, which should be a map; nothing at all counts as an empty one.
    pub(super) fn open(cx: &'a Context, node: &'a Node, path: impl Into<String>) -> Self {
        let path = path.into();
        let entries = match &node.kind {
            Kind::Map(entries) => entries.as_slice(),
            Kind::Null => &[],
            Kind::Scalar(_) | Kind::List(_) => {
                cx.error(node.at, format!("`{path}` must be a map, not {}", node.describe()));
                &[]
            }
        };
        Self { cx, path, at: node.at, entries, known: Vec::new() }
    }

    /// How the section is called in messages.
    pub(super) fn name(&self) -> &str {
        &self.path
    }

    /// Whether nothing at all is written in it.
    pub(super) fn is_empty(&self) -> bool {
        #[cfg(test)]
        if self.cx.recorder.is_some() {
            return false;
        }
        self.entries.is_empty()
    }

    /// Notes what `key` is, and what holds without it, for the reference.
    #[cfg_attr(not(test), expect(clippy::unused_self, unused_variables, reason = "for tests"))]
    fn note(&self, key: &str, kind: &'static str, default: Option<&str>) {
        #[cfg(test)]
        if let Some(recorder) = &self.cx.recorder {
            recorder.note(&self.name_of(key), kind, default);
        }
    }

    /// An empty section below this one, where it is to be found out which keys there are.
    #[cfg(test)]
    fn recorded(&self, key: &str, path: String) -> Option<Section<'a>> {
        let recorder = self.cx.recorder.as_ref()?;
        let (cx, at) = (self.cx, self.at);
        recorder.opens(key).then(|| Section { cx, path, at, entries: &[], known: Vec::new() })
    }

    /// The value of `key`, which is known from now on; `None` when absent or empty.
    pub(super) fn take(&mut self, key: &'static str) -> Option<&'a Node> {
        self.known.push(key);
        self.note(key, "", None);
        let (_, node) = self.entries.iter().find(|(present, _)| present.text == key)?;
        (!node.is_null()).then_some(node)
    }

    /// Whether `key` is written at all, with or without a value.
    pub(super) fn has(&self, key: &str) -> bool {
        #[cfg(test)]
        if self.cx.recorder.as_ref().is_some_and(|recorder| recorder.has_all) {
            return true;
        }
        self.entries.iter().any(|(present, _)| present.text == key)
    }

    /// Where `key` stands, or the section when it is absent.
    pub(super) fn position(&self, key: &str) -> Position {
        let found = self.entries.iter().find(|(present, _)| present.text == key);
        found.map_or(self.at, |(key, _)| key.at)
    }

    /// How `key` is called in messages.
    pub(super) fn name_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Tells of a mistake in `key`.
    pub(super) fn error(&self, key: &str, message: impl Into<String>) {
        self.cx.error(self.position(key), message);
    }

    /// Says at `key` what is allowed and hardly meant.
    pub(super) fn warn(&self, key: &str, message: impl Into<String>) {
        self.cx.warn(self.position(key), message);
    }

    /// The fields of the map under `key`.
    pub(super) fn section(&mut self, key: &'static str) -> Option<Section<'a>> {
        self.note(key, "map", None);
        #[cfg(test)]
        if let Some(recorded) = self.recorded(key, self.name_of(key)) {
            return Some(recorded);
        }
        let node = self.take(key)?;
        Some(Section::open(self.cx, node, self.name_of(key)))
    }

    /// The fields of each map in the list under `key`.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<Section<'a>> {
        let name = self.name_of(key);
        self.note(key, "list of maps", None);
        #[cfg(test)]
        if let Some(recorded) = self.recorded(key, format!("{name}[0]")) {
            return vec![recorded];
        }
        let mut sections = Vec::new();
        for (at, node) in self.take_list(key).iter().enumerate() {
            if node.is_null() {
                self.cx.error(node.at, format!("empty or null section in {name}"));
            } else {
                sections.push(Section::open(self.cx, node, format!("{name}[{at}]")));
            }
        }
        sections
    }

    /// The entries of the map under `key`, each a map itself.
    pub(super) fn map_of_sections(&mut self, key: &'static str) -> Vec<(&'a Key, Section<'a>)> {
        let name = self.name_of(key);
        self.note(key, "map of maps", None);
        #[cfg(test)]
        if let Some(recorded) = self.recorded(key, format!("{name}.NAME")) {
            return vec![(super::reference::any_key(), recorded)];
        }
        let Some(node) = self.take(key) else { return Vec::new() };
        let Kind::Map(entries) = &node.kind else {
            self.cx.error(node.at, format!("`{name}` must be a map, not {}", node.describe()));
            return Vec::new();
        };
        let open = |(key, node): &'a (Key, Node)| {
            (key, Section::open(self.cx, node, format!("{name}.{}", key.text)))
        };
        entries.iter().map(open).collect()
    }

    fn take_list(&mut self, key: &'static str) -> &'a [Node] {
        self.note(key, "list", None);
        let Some(node) = self.take(key) else { return &[] };
        let Kind::List(items) = &node.kind else {
            let (name, found) = (self.name_of(key), node.describe());
            self.cx.error(node.at, format!("`{name}` must be a list, not {found}"));
            return &[];
        };
        items
    }

    /// The items of the list under `key`, each a single value, with their places.
    pub(super) fn texts(&mut self, key: &'static str) -> Vec<(Position, &'a str)> {
        let name = self.name_of(key);
        let items = self.take_list(key);
        items.iter().filter_map(|item| Some((item.at, scalar(self.cx, item, &name)?))).collect()
    }

    /// The items of the list under `key`.
    pub(super) fn strings(&mut self, key: &'static str) -> Vec<String> {
        self.texts(key).into_iter().map(|(_, text)| text.to_owned()).collect()
    }

    /// The text of `key`.
    pub(super) fn text(&mut self, key: &'static str) -> Option<&'a str> {
        self.note(key, "text", None);
        let node = self.take(key)?;
        scalar(self.cx, node, &self.name_of(key))
    }

    /// The text of `key`, or `default`.
    pub(super) fn string_or(&mut self, key: &'static str, default: &str) -> String {
        self.note(key, "text", Some(default));
        self.text(key).unwrap_or(default).to_owned()
    }

    /// A secret.
    pub(super) fn secret(&mut self, key: &'static str) -> Option<Secret> {
        self.note(key, "secret", None);
        self.text(key).map(Secret::new)
    }

    /// A path, seen from the file's directory.
    pub(super) fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        self.note(key, "path", None);
        self.text(key).filter(|text| !text.is_empty()).map(|text| self.cx.path(text))
    }

    /// What `read` makes of the text of `key`; `None` when it is absent or wrong.
    pub(super) fn parsed<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(key)?;
        match read(text) {
            Ok(value) => Some(value),
            Err(message) => {
                let at = self.value_position(key);
                self.cx.error(at, format!("`{}`: {message}", self.name_of(key)));
                None
            }
        }
    }

    /// The same for what is no text: refuses a quoted value.
    fn typed<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let quoted = self.entries.iter().any(|(present, node)| present.text == key && node.quoted);
        self.parsed(key, |text| {
            if quoted {
                return Err(format!("a text is given where {wanted} is wanted; remove the quotes"));
            }
            read(text)
        })
    }

    /// Where the value of `key` stands, or the section when it is absent.
    pub(super) fn value_position(&self, key: &str) -> Position {
        let found = self.entries.iter().find(|(present, _)| present.text == key);
        found.map_or(self.at, |(_, node)| node.at)
    }

    /// A truth value.
    pub(super) fn bool_or(&mut self, key: &'static str, default: bool) -> bool {
        self.note(key, "true or false", Some(if default { "true" } else { "false" }));
        self.typed(key, "true or false", read_bool).unwrap_or(default)
    }

    /// A duration such as `1m30s`.
    pub(super) fn span(&mut self, key: &'static str) -> Option<Span> {
        self.note(key, "duration", None);
        self.parsed(key, |text| Span::parse(text).map_err(|error| error.to_string()))
    }

    /// A whole number.
    pub(super) fn u64(&mut self, key: &'static str) -> Option<u64> {
        self.note(key, "whole number", None);
        self.typed(key, "a number", |text| {
            let digits = text.replace('_', "");
            // What is written with a point or an exponent loses its fraction, as in Go's decoder.
            let number = digits.parse().ok().or_else(|| {
                let float = digits.parse::<f64>().ok()?.trunc();
                (0.0..u64::MAX as f64).contains(&float).then_some(float as u64)
            });
            number.ok_or_else(|| format!("{text} is not a whole number of 0 or more"))
        })
    }

    /// A whole number that is also a size in memory.
    pub(super) fn usize_or(&mut self, key: &'static str, default: usize) -> usize {
        self.note(key, "whole number", Some(&default.to_string()));
        self.u64(key).map_or(default, |number| usize::try_from(number).unwrap_or(usize::MAX))
    }

    /// A number.
    pub(super) fn f64(&mut self, key: &'static str) -> Option<f64> {
        self.note(key, "number", None);
        self.typed(key, "a number", |text| {
            text.parse::<f64>()
                .ok()
                .filter(|number| number.is_finite())
                .ok_or_else(|| format!("{text} is not a number"))
        })
    }

    /// A number of bytes such as `512MB`.
    pub(super) fn bytes(&mut self, key: &'static str) -> Option<u64> {
        self.note(key, "size", None);
        self.parsed(key, read_bytes)
    }

    /// The entries of the map under `key`: name, place and single value of each.
    pub(super) fn pairs(&mut self, key: &'static str) -> Vec<(&'a Key, &'a str)> {
        self.note(key, "map of texts", None);
        let name = self.name_of(key);
        let Some(node) = self.take(key) else { return Vec::new() };
        let Kind::Map(entries) = &node.kind else {
            self.cx.error(node.at, format!("`{name}` must be a map, not {}", node.describe()));
            return Vec::new();
        };
        let pair = |(key, node): &'a (Key, Node)| {
            if node.is_null() {
                return Some((key, ""));
            }
            Some((key, scalar(self.cx, node, &format!("{name}.{}", key.text))?))
        };
        entries.iter().filter_map(pair).collect()
    }

    /// The entries of the map under `key`, whose values are lists.
    pub(super) fn lists(&mut self, key: &'static str) -> Vec<(&'a Key, Vec<String>)> {
        self.note(key, "map of lists", None);
        let name = self.name_of(key);
        let Some(node) = self.take(key) else { return Vec::new() };
        let Kind::Map(entries) = &node.kind else {
            self.cx.error(node.at, format!("`{name}` must be a map, not {}", node.describe()));
            return Vec::new();
        };
        let mut lists = Vec::new();
        for (key, node) in entries {
            let name = format!("{name}.{}", key.text);
            let items = match &node.kind {
                Kind::List(items) => items.as_slice(),
                Kind::Null => &[],
                Kind::Scalar(_) | Kind::Map(_) => {
                    let found = node.describe();
                    self.cx.error(node.at, format!("`{name}` must be a list, not {found}"));
                    &[]
                }
            };
            let texts = items.iter().filter_map(|item| scalar(self.cx, item, &name));
            lists.push((key, texts.map(str::to_owned).collect()));
        }
        lists
    }

    /// Labels, their names checked under `scheme`.
    pub(super) fn labels(&mut self, key: &'static str, scheme: NameScheme) -> Labels {
        let pairs = self.pairs(key);
        for (key, _) in &pairs {
            if !scheme.is_label_name(&key.text) {
                let name = Quoted(&key.text);
                self.cx.error(key.at, format!("{name} is not a valid label name"));
            }
        }
        Labels::from_pairs(pairs.iter().map(|(key, value)| (key.text.as_str(), *value)))
    }

    /// Says that `key` is not supported, unless `harmless` holds for its value.
    pub(super) fn unsupported(
        &mut self,
        key: &'static str,
        harmless: impl FnOnce(&Node) -> bool,
        hint: &str,
    ) {
        self.note(key, "refused", None);
        let Some(node) = self.take(key) else { return };
        if !harmless(node) {
            let name = self.name_of(key);
            self.error(key, format!("`{name}` is not supported yet; {hint}"));
        }
    }

    /// Says of each key that nobody asked for that it is unknown.
    pub(super) fn finish(self) {
        for (key, _) in self.entries {
            if self.cx.ignore_unknown || self.known.contains(&key.text.as_str()) {
                continue;
            }
            let place = match &*self.path {
                "" => String::new(),
                path => format!(" in `{path}`"),
            };
            let hint = nearest(&key.text, &self.known)
                .map(|near| format!("; did you mean `{near}`?"))
                .unwrap_or_default();
            self.cx.error(key.at, format!("unknown key `{}`{place}{hint}", key.text));
        }
    }
}

/// Whether `node` is an empty value of its kind, or `false`, or `0`.
pub(super) fn is_off(node: &Node) -> bool {
    match &node.kind {
        Kind::Null => true,
        Kind::Scalar(text) => {
            text.is_empty()
                || text.parse() == Ok(0.0)
                || read_bool(text) == Ok(false)
                || Span::parse(text) == Ok(Span::ZERO)
                || read_bytes(text) == Ok(0)
        }
        Kind::List(items) => items.is_empty(),
        Kind::Map(entries) => entries.is_empty(),
    }
}

fn scalar<'a>(cx: &Context, node: &'a Node, name: &str) -> Option<&'a str> {
    match &node.kind {
        Kind::Scalar(text) => Some(text),
        Kind::Null => Some(""),
        Kind::List(_) | Kind::Map(_) => {
            cx.error(node.at, format!("`{name}` must be a single value, not {}", node.describe()));
            None
        }
    }
}

/// The truth values of YAML 1.1, which Prometheus reads.
pub(super) fn read_bool(text: &str) -> Result<bool, String> {
    match text {
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "y" | "Y" => {
            Ok(true)
        }
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "n" | "N" => {
            Ok(false)
        }
        _ => Err(format!("{text} is neither true nor false")),
    }
}

/// Numbers with units, each a power of 1024: `1GB`, `1.5GiB`, `1GB512MB`; a bare `0` is allowed.
pub(super) fn read_bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text} is not a size such as 512MB; units are B KB MB GB TB PB EB");
    if text == "0" {
        return Ok(0);
    }
    let mut rest = text;
    let mut total = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let unit = unit.strip_suffix('B').map(|unit| unit.strip_suffix('i').unwrap_or(unit));
        let exponent =
            ["", "K", "M", "G", "T", "P", "E"].iter().position(|name| Some(*name) == unit);
        let factor = 1024_f64.powi(exponent.ok_or_else(wrong)? as i32);
        total += number.parse::<f64>().map_err(|_| wrong())? * factor;
        rest = tail;
    }
    if text.is_empty() || total >= i64::MAX as f64 { Err(wrong()) } else { Ok(total as u64) }
}

/// The known key that is at most two edits away.
fn nearest(key: &str, known: &[&'static str]) -> Option<&'static str> {
    let scored = known.iter().map(|&candidate| (distance(key, candidate), candidate));
    scored.filter(|(edits, name)| *edits <= 2 && *edits < name.len()).min().map(|(_, name)| name)
}

fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (slot, cb) in row.iter_mut().skip(1).zip(&b) {
            let above = *slot;
            let replaced = diagonal + usize::from(ca != *cb);
            left = replaced.min(above + 1).min(left + 1);
            diagonal = above;
            *slot = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_count_in_powers_of_1024() {
        assert_eq!(read_bytes("0"), Ok(0));
        assert_eq!(read_bytes("512MB"), Ok(512 << 20));
        assert_eq!(read_bytes("1.5GiB"), Ok(3 << 29));
        assert_eq!(read_bytes("1GB512MB"), Ok((1 << 30) + (512 << 20)));
        for text in ["", "5", "5X", "MB", "1..5MB", "99999EB"] {
            assert!(read_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_slip_of_the_finger_is_recognised() {
        let known = ["scrape_interval", "scrape_timeout", "url"];
        assert_eq!(nearest("scrape_intervall", &known), Some("scrape_interval"));
        assert_eq!(nearest("scrap_timeout", &known), Some("scrape_timeout"));
        assert_eq!(nearest("something", &known), None);
        assert_eq!((distance("", "abc"), distance("kitten", "sitting")), (3, 3));
    }
}
