//! Lists of series.

use std::collections::HashSet;

use super::{Index, Metric, section};
use crate::tsdb::Damage;
use crate::tsdb::cursor::Cursor;

impl<'a> Index<'a> {
    /// The series of a metric, in order of their labels, as numbers for [`Index::series`].
    pub fn series_of(&self, metric: &Metric<'_>) -> Result<Series<'a>, Damage> {
        self.list(metric.postings)
    }

    /// The series that have no metric name.
    pub fn series_without_metric(&self) -> Result<Vec<u32>, Damage> {
        let Some(all) = self.all else { return Ok(Vec::new()) };
        let all = self.list(all)?;
        let mut named = 0;
        for metric in self.metrics() {
            named += self.series_of(metric)?.len();
        }
        if named == all.len() {
            return Ok(Vec::new());
        }
        let mut others: HashSet<u32> = all.clone().collect();
        for metric in self.metrics() {
            for series in self.series_of(metric)? {
                others.remove(&series);
            }
        }
        Ok(all.filter(|series| others.contains(series)).collect())
    }

    fn list(&self, at: usize) -> Result<Series<'a>, Damage> {
        let (at, list) = section(self.bytes, at)?;
        let mut cursor = Cursor::new(list);
        let count = cursor.be_u32()? as usize;
        if cursor.remaining() / 4 != count {
            return Err(Damage::new(at, "a list of series of another length"));
        }
        Ok(Series { list: cursor.rest() })
    }
}

/// Numbers of series.
#[derive(Clone, Debug)]
pub struct Series<'a> {
    list: &'a [u8],
}

impl Series<'_> {
    /// How many are left.
    pub fn len(&self) -> usize {
        self.list.len() / 4
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Iterator for Series<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let (number, rest) = self.list.split_first_chunk::<4>()?;
        self.list = rest;
        Some(u32::from_be_bytes(*number))
    }
}
