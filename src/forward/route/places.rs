//! Routes by series. Each row is looked up once; after that its route is at hand by its place.

use std::cell::Cell;
use std::hash::BuildHasher as _;

use hashbrown::HashTable;
use stint_model::SeriesRef;

use crate::budget::group::KeyHasher;

/// What each series has, by places that stay while it is there.
pub(super) struct Places<R> {
    all: Vec<Option<R>>,
    /// The series of each route by its place, apart from it: what is looked at lies side by side.
    series: Vec<SeriesRef>,
    vacant: Vec<u32>,
    /// Places of the series that have a route.
    index: HashTable<u32>,
    /// The place that was asked for last.
    last: Cell<u32>,
}

/// The place of no route.
pub(super) const NOWHERE: u32 = u32::MAX;
/// The series of a place that nobody is sent to.
const NOBODY: SeriesRef = SeriesRef(u64::MAX);

impl<R> Default for Places<R> {
    fn default() -> Self {
        Self {
            all: Vec::new(),
            series: Vec::new(),
            vacant: Vec::new(),
            index: HashTable::new(),
            last: Cell::default(),
        }
    }
}

impl<R> Places<R> {
    /// How many series have a route.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// The place of a series: mostly that behind the last one, since scrapes come as they came the
    /// first time.
    pub(super) fn place(&self, series: SeriesRef) -> Option<u32> {
        let next = self.last.get().wrapping_add(1);
        let is_next = self.series.get(next as usize) == Some(&series) && series != NOBODY;
        let place = if is_next { next } else { self.find(series)? };
        self.last.set(place);
        Some(place)
    }

    fn find(&self, series: SeriesRef) -> Option<u32> {
        let is = |place: &u32| self.series.get(*place as usize) == Some(&series);
        self.index.find(hash_of(series), is).copied().filter(|_| series != NOBODY)
    }

    pub(super) fn get(&self, place: u32) -> Option<&R> {
        self.all.get(place as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, place: u32) -> Option<&mut R> {
        self.all.get_mut(place as usize)?.as_mut()
    }

    pub(super) fn insert(&mut self, series: SeriesRef, route: R) -> u32 {
        let place = self.vacant.pop().unwrap_or(self.all.len() as u32);
        if let Some(vacant) = self.all.get_mut(place as usize) {
            *vacant = Some(route);
        } else {
            reserve_some(&mut self.all);
            self.all.push(Some(route));
        }
        if self.series.len() < self.all.len() {
            reserve_some(&mut self.series);
            self.series.push(NOBODY);
        }
        if let Some(before) = self.find(series)
            && let Ok(entry) = self.index.find_entry(hash_of(series), |other| *other == before)
        {
            entry.remove();
            self.set_series(before, NOBODY);
        }
        self.set_series(place, series);
        let all = &self.series;
        self.index.insert_unique(hash_of(series), place, |place| {
            all.get(*place as usize).map_or(0, |series| hash_of(*series))
        });
        place
    }

    fn set_series(&mut self, place: u32, series: SeriesRef) {
        if let Some(slot) = self.series.get_mut(place as usize) {
            *slot = series;
        }
    }

    /// Takes out a route that no series has any more.
    pub(super) fn take(&mut self, place: u32) -> Option<R> {
        let route = self.all.get_mut(place as usize)?.take()?;
        self.vacant.push(place);
        Some(route)
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&R) -> bool) {
        let (all, all_series, vacant) = (&mut self.all, &mut self.series, &mut self.vacant);
        self.index.retain(|place| {
            let Some(route) = all.get_mut(*place as usize) else { return false };
            let keeps = route.as_ref().is_some_and(&mut keep);
            if !keeps {
                *route = None;
                vacant.push(*place);
                if let Some(series) = all_series.get_mut(*place as usize) {
                    *series = NOBODY;
                }
            }
            keeps
        });
    }
}

fn hash_of(series: SeriesRef) -> u64 {
    KeyHasher::default().hash_one(series)
}

/// Makes room in what grows for long and is never small: an eighth more, not as much again.
fn reserve_some<T>(items: &mut Vec<T>) {
    if items.len() == items.capacity() {
        items.reserve_exact((items.len() / 8).max(64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_has_its_own_route_whatever_was_asked_for_before() {
        let mut routes = Places::default();
        for series in 0..10 {
            assert_eq!(routes.place(SeriesRef(series)), None);
            routes.insert(SeriesRef(series), series as u32);
        }
        let mark = |routes: &Places<u32>, series| {
            let place = routes.place(SeriesRef(series))?;
            routes.get(place).copied()
        };
        for series in [0, 1, 2, 7, 8, 3, 3, 9, 0] {
            assert_eq!(mark(&routes, series), Some(series as u32), "{series}");
        }
        // A series that got another route is not found at its former place, behind its neighbour.
        let before = routes.place(SeriesRef(5)).unwrap();
        routes.insert(SeriesRef(5), 50);
        assert_eq!((mark(&routes, 4), mark(&routes, 5)), (Some(4), Some(50)));
        assert_eq!(routes.take(before).unwrap(), 5);
        routes.retain(|mark| *mark != 8);
        assert_eq!(
            (mark(&routes, 7), mark(&routes, 8), mark(&routes, 9)),
            (Some(7), None, Some(9))
        );
        // Places that are free are used again.
        routes.insert(SeriesRef(11), 11);
        routes.insert(SeriesRef(8), 80);
        assert_eq!((mark(&routes, 11), mark(&routes, 8)), (Some(11), Some(80)));
        assert_eq!(routes.all.len(), 11);
        assert_eq!(mark(&routes, u64::MAX), None);
    }
}
