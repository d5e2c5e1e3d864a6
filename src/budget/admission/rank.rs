//! Classes by use: where none are configured, what rules read and what is looked at comes before the
//! rest.

use std::collections::HashMap;
use std::sync::Arc;

use stint_model::Labels;

use super::{Admission, GroupIndex};
use crate::budget::ranking::{Ranking, Weight};

/// How much metrics matter.
#[derive(Debug)]
pub(super) struct Ranks {
    ranking: Option<Arc<Ranking>>,
    /// What was found for metric families that there are.
    known: HashMap<Box<str>, Weight>,
    /// How much they are asked for.
    asked: HashMap<Box<str>, u64>,
}

impl Ranks {
    pub(super) fn new(ranking: Option<Arc<Ranking>>) -> Self {
        Self { ranking, known: HashMap::new(), asked: HashMap::new() }
    }

    fn weight(&mut self, family: &str) -> Weight {
        if let Some(known) = self.known.get(family) {
            return *known;
        }
        let weight = self.ranking.as_ref().map_or(Weight::Rest, |ranking| ranking.weight(family));
        self.known.insert(family.into(), weight);
        weight
    }

    /// How much a family is asked for.
    pub(super) fn asked(&mut self, family: &str) -> u64 {
        let Some(ranking) = &self.ranking else { return 0 };
        if let Some(known) = self.asked.get(family) {
            return *known;
        }
        let asked = ranking.asked(family);
        self.asked.insert(family.into(), asked);
        asked
    }
}

impl Admission {
    /// The class of a series of a metric family.
    pub(super) fn class_of(&mut self, labels: &Labels, family: &str) -> u16 {
        let class = self.policy.class_of(labels);
        match self.policy.class_by_use(Weight::Rest) {
            Some(rest) if rest == class => {
                let weight = self.ranks.weight(family);
                self.policy.class_by_use(weight).unwrap_or(class)
            }
            _ => class,
        }
    }

    /// The number of the class of a group.
    pub fn class_of_group(&self, index: GroupIndex) -> Option<u16> {
        self.groups.get(index).map(|group| group.class)
    }

    /// Puts metrics into other classes whose use has changed. What is sent goes on; who comes first
    /// matters where slots are given out or taken back.
    pub fn rank(&mut self, ranking: Arc<Ranking>) {
        self.ranks = Ranks::new(Some(ranking));
        self.groups.disorder();
        let Some(rest) = self.policy.class_by_use(Weight::Rest) else { return };
        let first = self.policy.class_by_use(Weight::Rules).unwrap_or(rest);
        let by_use: Vec<(GroupIndex, u16, Arc<str>)> = self
            .groups
            .numbered()
            .filter(|(_, group)| group.class >= first)
            .map(|(index, group)| (index, group.class, self.groups.family(group)))
            .collect();
        for (index, was, family) in by_use {
            let weight = self.ranks.weight(&family);
            let class = self.policy.class_by_use(weight).unwrap_or(rest);
            if class == was {
                continue;
            }
            self.groups.reclass(index, class);
            let members = self.groups.get(index).into_iter().flat_map(|group| &group.members);
            for member in members {
                self.ledger.reclass(member.key(), class);
            }
        }
        self.pending.look_soon();
    }
}
