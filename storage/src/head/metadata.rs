//! What metric families are, as their sources say.

use hashbrown::HashMap;
use stint_model::Metadata;

/// A family goes when so many cuts in a row found no series of it. Sources say only once what a
/// family is, so one whose series come and go has to outlive the pauses.
const CUTS_KEPT: u8 = 12;

/// What the names of a family's series may have behind the family's name.
const SUFFIXES: [&str; 7] = ["", "_total", "_bucket", "_sum", "_count", "_created", "_info"];

#[derive(Debug)]
struct Family {
    metadata: Metadata,
    /// Cuts since a series of it was seen.
    idle: u8,
}

/// Metadata by family name.
#[derive(Debug, Default)]
pub(super) struct Families(HashMap<String, Family>);

impl Families {
    pub(crate) fn get(&self, family: &str) -> Option<&Metadata> {
        self.0.get(family).map(|family| &family.metadata)
    }

    pub(crate) fn insert(&mut self, family: String, metadata: Metadata) {
        self.0.insert(family, Family { metadata, idle: 0 });
    }

    /// All families, sorted.
    pub(crate) fn list(&self) -> Vec<(String, Metadata)> {
        let copy = |(name, family): (&String, &Family)| (name.clone(), family.metadata.clone());
        let mut all: Vec<_> = self.0.iter().map(copy).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// Notes a cut, after which there are series of these metric names. Families that have had
    /// none for long are forgotten.
    pub(crate) fn cut(&mut self, has_series: impl Fn(&str) -> bool) {
        let mut name = String::new();
        self.0.retain(|family, known| {
            let alive = SUFFIXES.iter().any(|suffix| {
                name.clear();
                name.push_str(family);
                name.push_str(suffix);
                has_series(&name)
            });
            known.idle = if alive { 0 } else { known.idle + 1 };
            known.idle < CUTS_KEPT
        });
        self.0.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_without_series_is_forgotten_after_some_cuts() {
        let mut families = Families::default();
        for family in ["gone", "rare", "latency"] {
            families.insert(family.to_owned(), Metadata::default());
        }
        for cut in 1..30 {
            families.cut(|name| name == "latency_bucket" || (name == "rare" && cut % 10 == 0));
            assert_eq!(families.get("gone").is_some(), cut < 12, "cut {cut}");
        }
        let left: Vec<String> = families.list().into_iter().map(|(name, _)| name).collect();
        assert_eq!(left, ["latency", "rare"]);
    }
}
