//! What targets say about their metric families. Targets of one kind say the same of the same
//! families, so that each thing that is said is kept once.

use std::collections::HashSet;
use std::hash::BuildHasher as _;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use parking_lot::Mutex;
use stint_model::{Metadata, MetricType};
use stint_wire::exposition::{FamilyLine, Format};

/// How many scrapes metadata is remembered after its family was last exposed.
const METADATA_KEPT_SCRAPES: u32 = 10;

/// A family's name and what is said about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Description {
    name: String,
    metadata: Metadata,
}

/// All that is said about families, by all targets.
#[derive(Debug, Default)]
pub(super) struct Descriptions(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    all: HashSet<Arc<Description>, RandomState>,
    /// With so many, those that nobody says any more are looked for.
    look_at: usize,
}

impl Descriptions {
    /// Descriptions that are kept in any case.
    const FEW: usize = 1024;

    fn share(&self, description: Description) -> Arc<Description> {
        let mut kept = self.0.lock();
        if let Some(known) = kept.all.get(&description) {
            return Arc::clone(known);
        }
        if kept.all.len() >= kept.look_at {
            kept.all.retain(|description| Arc::strong_count(description) > 1);
            kept.look_at = (kept.all.len() * 2).max(Self::FEW);
        }
        let description = Arc::new(description);
        kept.all.insert(Arc::clone(&description));
        description
    }
}

/// Metadata of one target's families.
#[derive(Debug, Default)]
pub(super) struct Families {
    /// Locked for the whole of one body.
    known: Mutex<FamilyMap>,
}

/// The families, mostly in the order of the body.
#[derive(Debug, Default)]
pub(super) struct FamilyMap {
    families: Vec<Family>,
    /// From the hash of a name to the place in `families`.
    index: HashTable<u32>,
    hasher: RandomState,
    /// The place of the family that was spoken of last.
    at: usize,
    changed: Vec<String>,
    /// The lines of the last body that spoke of families, in order: mostly they come again.
    lines: Vec<Line>,
    /// The line of them that is expected next.
    line: usize,
    /// The hash of the line that is being taken apart.
    heard: Option<u32>,
    /// The format of the last body.
    format: Option<Format>,
    scrape: u32,
    descriptions: Arc<Descriptions>,
}

/// A line about a family. There is one for each that any target shows: every byte counts.
#[derive(Clone, Copy, Debug)]
struct Line {
    hash: u32,
    /// The family's place, and the kind that the line told, if so.
    place: u32,
    kind: Option<MetricType>,
}

#[derive(Debug)]
struct Family {
    description: Arc<Description>,
    /// The scrapes that saw it first and last.
    born: u32,
    seen: u32,
}

impl Families {
    /// Nothing is known yet. What is said goes to `descriptions`.
    pub(super) fn new(descriptions: Arc<Descriptions>) -> Self {
        Self { known: Mutex::new(FamilyMap { descriptions, ..FamilyMap::default() }) }
    }

    pub(super) fn lock(&self) -> parking_lot::MutexGuard<'_, FamilyMap> {
        self.known.lock()
    }

    /// A copy, sorted by name.
    pub(super) fn list(&self) -> Vec<(String, Metadata)> {
        let known = self.known.lock();
        let copy = |family: &Family| {
            (family.description.name.clone(), family.description.metadata.clone())
        };
        let mut list: Vec<_> = known.families.iter().map(copy).collect();
        list.sort_by(|a, b| a.0.cmp(&b.0));
        list
    }
}

impl FamilyMap {
    /// How many families are known.
    pub(super) fn len(&self) -> usize {
        self.families.len()
    }

    /// Begins a body.
    pub(super) fn begin(&mut self, format: Format) {
        if self.format.replace(format) != Some(format) {
            self.lines.clear();
        }
        (self.line, self.heard) = (0, None);
    }

    /// Whether `line` is the one that stood here in the last body.
    pub(super) fn known(&mut self, line: &str) -> FamilyLine {
        let hash = self.hasher.hash_one(line) as u32;
        let expected = self.lines.get(self.line).filter(|expected| expected.hash == hash);
        let Some(Line { place, kind, .. }) = expected.copied() else {
            self.heard = Some(hash);
            return FamilyLine::New;
        };
        (self.line, self.heard) = (self.line + 1, None);
        if let Some(family) = self.families.get_mut(place as usize) {
            family.seen = self.scrape;
        }
        FamilyLine::Known(kind)
    }

    /// Remembers the line that was just taken apart.
    fn note(&mut self, kind: Option<MetricType>) {
        let Some(hash) = self.heard.take() else { return };
        let line = Line { hash, place: self.at as u32, kind };
        match self.lines.get_mut(self.line) {
            Some(expected) => *expected = line,
            None => self.lines.push(line),
        }
        self.line += 1;
    }

    pub(super) fn set_kind(&mut self, family: &str, kind: MetricType) {
        self.change(family, |metadata| metadata.kind != kind, |metadata| metadata.kind = kind);
        self.note(Some(kind));
    }

    pub(super) fn set_help(&mut self, family: &str, help: &str) {
        let differs = |metadata: &Metadata| metadata.help != help;
        self.change(family, differs, |metadata| help.clone_into(&mut metadata.help));
        self.note(None);
    }

    pub(super) fn set_unit(&mut self, family: &str, unit: &str) {
        let differs = |metadata: &Metadata| metadata.unit != unit;
        self.change(family, differs, |metadata| unit.clone_into(&mut metadata.unit));
        self.note(None);
    }

    /// Makes the `change` of what is said about `name` if it `differs`.
    fn change(
        &mut self,
        name: &str,
        differs: impl FnOnce(&Metadata) -> bool,
        change: impl FnOnce(&mut Metadata),
    ) {
        let scrape = self.scrape;
        let (place, new) = match self.place(name) {
            Some(place) => (place, false),
            None => (self.add(name), true),
        };
        self.at = place;
        let Some(family) = self.families.get_mut(place) else { return };
        family.seen = scrape;
        let changes = differs(&family.description.metadata);
        if changes {
            let mut description = Description::clone(&family.description);
            change(&mut description.metadata);
            family.description = self.descriptions.share(description);
        }
        if (changes || new) && self.changed.last().is_none_or(|last| last != name) {
            self.changed.push(name.to_owned());
        }
    }

    /// The place of `name`: mostly that of the last one, or the next.
    fn place(&self, name: &str) -> Option<usize> {
        let is_it = |place: usize| {
            self.families.get(place).is_some_and(|family| family.description.name == name)
        };
        let near = [self.at, self.at + 1].into_iter().find(|place| is_it(*place));
        near.or_else(|| {
            let hash = self.hasher.hash_one(name);
            self.index.find(hash, |place| is_it(*place as usize)).map(|place| *place as usize)
        })
    }

    fn add(&mut self, name: &str) -> usize {
        let description = Description { name: name.to_owned(), metadata: Metadata::default() };
        let description = self.descriptions.share(description);
        let place = self.families.len();
        self.families.push(Family { description, born: self.scrape, seen: self.scrape });
        self.put_in_index(place);
        place
    }

    fn put_in_index(&mut self, place: usize) {
        let (families, hasher) = (&self.families, &self.hasher);
        let hash = |place: &u32| {
            let family = families.get(*place as usize);
            family.map_or(0, |family| hasher.hash_one(family.description.name.as_str()))
        };
        let place = place as u32;
        self.index.insert_unique(hash(&place), place, hash);
    }

    fn retain(&mut self, keep: impl Fn(&Family) -> bool) {
        if self.families.iter().all(&keep) {
            return;
        }
        self.families.retain(keep);
        // Places have changed.
        self.lines.clear();
        self.index.clear();
        (0..self.families.len()).for_each(|place| self.put_in_index(place));
    }

    /// Ends a scrape that failed: what only it has shown is forgotten, since failing scrapes may show
    /// ever new families; what it changed is told with the next good one.
    pub(super) fn fail(&mut self) {
        let scrape = self.scrape;
        self.lines.clear();
        self.retain(|family| family.born != scrape);
        let mut changed = std::mem::take(&mut self.changed);
        changed.retain(|name| self.place(name).is_some());
        changed.sort_unstable();
        changed.dedup();
        self.changed = changed;
    }

    /// Takes back what [`Self::finish`] returned: it could not be stored.
    pub(super) fn untold(&mut self, metadata: &[(String, Metadata)]) {
        self.changed.extend(metadata.iter().map(|(name, _)| name.clone()));
        self.changed.sort_unstable();
        self.changed.dedup();
    }

    /// Ends a scrape: forgets what has not been seen for long, and returns what is new.
    pub(super) fn finish(&mut self) -> Vec<(String, Metadata)> {
        let scrape = self.scrape;
        self.lines.truncate(self.line);
        self.retain(|family| scrape.wrapping_sub(family.seen) <= METADATA_KEPT_SCRAPES);
        self.scrape = scrape.wrapping_add(1);
        let changed = std::mem::take(&mut self.changed);
        let with_metadata = |name: String| {
            let family = self.families.get(self.place(&name)?)?;
            Some((name, family.description.metadata.clone()))
        };
        changed.into_iter().filter_map(with_metadata).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_outlives_its_family_by_ten_scrapes() {
        let families = Families::default();
        families.lock().set_kind("a", MetricType::Counter);
        families.lock().set_help("a", "help");
        let changed = families.lock().finish();
        assert_eq!(changed.len(), 1);
        assert_eq!((changed[0].1.kind, &*changed[0].1.help), (MetricType::Counter, "help"));
        for _ in 0..METADATA_KEPT_SCRAPES {
            assert!(families.lock().finish().is_empty());
            assert_eq!(families.list().len(), 1);
        }
        families.lock().finish();
        assert!(families.list().is_empty());
    }

    #[test]
    fn only_changes_are_handed_on() {
        let families = Families::default();
        families.lock().set_help("a", "x");
        assert_eq!(families.lock().finish().len(), 1);
        families.lock().set_help("a", "x");
        assert!(families.lock().finish().is_empty());
        families.lock().set_help("a", "y");
        families.lock().set_unit("a", "bytes");
        assert_eq!(families.lock().finish().len(), 1);
    }

    #[test]
    fn what_could_not_be_stored_is_handed_on_again() {
        let families = Families::default();
        families.lock().set_help("a", "x");
        let told = families.lock().finish();
        families.lock().untold(&told);
        assert_eq!(families.lock().finish(), told);
    }

    #[test]
    fn families_that_only_failing_scrapes_show_do_not_pile_up() {
        let families = Families::default();
        families.lock().set_help("a", "x");
        families.lock().finish();
        for n in 0..100 {
            families.lock().set_help(&format!("new_{n}"), "x");
            families.lock().set_help("a", "y");
            families.lock().fail();
        }
        assert_eq!(families.list().len(), 1);
        assert_eq!(families.lock().finish().len(), 1, "the change of `a` is told once");
    }

    #[test]
    fn what_targets_say_alike_is_kept_once() {
        let descriptions = Arc::<Descriptions>::default();
        let targets: Vec<Families> =
            (0..100).map(|_| Families::new(Arc::clone(&descriptions))).collect();
        for families in &targets {
            families.lock().set_kind("a_total", MetricType::Counter);
            families.lock().set_help("a_total", "said by all");
        }
        let of = |families: &Families| Arc::clone(&families.lock().families[0].description);
        assert!(targets.iter().all(|it| Arc::ptr_eq(&of(it), &of(&targets[0]))));
        // What nobody says any more is not kept for ever.
        for number in 0..10 * Descriptions::FEW {
            targets[0].lock().set_help("a_total", &number.to_string());
        }
        assert!(descriptions.0.lock().all.len() <= Descriptions::FEW + 1);
        assert_eq!(targets[1].list()[0].1.help, "said by all");
    }

    #[test]
    fn lines_that_come_again_are_known() {
        let families = Families::default();
        let body = |format, lines: &[(&'static str, &str)]| {
            let mut known = families.lock();
            known.begin(format);
            let mut taken_apart = Vec::new();
            for (name, help) in lines {
                if known.known(&format!("# HELP {name} {help}")) == FamilyLine::New {
                    taken_apart.push(*name);
                    known.set_help(name, help);
                }
                if known.known(&format!("# TYPE {name} gauge"))
                    != FamilyLine::Known(Some(MetricType::Gauge))
                {
                    known.set_kind(name, MetricType::Gauge);
                }
            }
            known.finish();
            taken_apart
        };
        let text = Format::PrometheusText;
        let first = [("a", "x"), ("b", "x"), ("c", "x")];
        assert_eq!(body(text, &first), ["a", "b", "c"]);
        assert!(body(text, &first).is_empty());
        // What has changed is taken apart, and what stands elsewhere because of it.
        assert_eq!(body(text, &[("a", "x"), ("new", "x"), ("c", "y")]), ["new", "c"]);
        assert!(body(text, &[("a", "x"), ("new", "x"), ("c", "y")]).is_empty());
        assert_eq!(families.list().last().unwrap().1.help, "x", "new, the last one by name");
        assert_eq!(families.list()[2].1.help, "y");
        // In another format the same line may mean something else.
        assert_eq!(body(Format::OpenMetrics, &[("a", "x")]), ["a"]);
        // Known lines keep their families, and only those.
        let later = (0..=METADATA_KEPT_SCRAPES).map(|_| body(Format::OpenMetrics, &[("a", "x")]));
        let taken_apart: Vec<_> = later.filter(|lines| !lines.is_empty()).collect();
        // Whenever families were forgotten, first one and then two: their places have changed.
        assert_eq!(taken_apart, [["a"], ["a"]]);
        assert_eq!(families.list().len(), 1);
        // What a failing scrape has shown is not relied on.
        families.lock().begin(Format::OpenMetrics);
        families.lock().fail();
        assert_eq!(body(Format::OpenMetrics, &[("a", "x")]), ["a"]);
    }

    #[test]
    fn the_order_of_families_may_change() {
        let families = Families::default();
        for order in [["a", "b", "c"], ["c", "a", "b"], ["b", "new", "c"]] {
            for name in order {
                families.lock().set_help(name, name);
            }
            families.lock().finish();
        }
        let helps: Vec<_> = families.list().into_iter().map(|(name, it)| (name, it.help)).collect();
        assert_eq!(helps, ["a", "b", "c", "new"].map(|name| (name.to_owned(), name.to_owned())));
    }
}
