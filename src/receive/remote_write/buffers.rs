//! What a request needs of memory.

use stint_model::{Row, Sample};

use super::request::Incoming;
use crate::receive::spare;

/// What one request needs.
#[derive(Default)]
pub(super) struct Buffers {
    /// Not emptied, so that it need not be zeroed again.
    pub(super) message: Vec<u8>,
    series: Vec<Incoming<'static>>,
    pub(super) samples: Vec<Sample>,
    pub(super) rows: Vec<Row>,
}

impl Buffers {
    /// Room for series.
    pub(super) fn take_series<'a>(&mut self) -> Vec<Incoming<'a>> {
        emptied(std::mem::take(&mut self.series))
    }

    /// Takes what a request had.
    pub(super) fn give_back(&mut self, series: Vec<Incoming<'_>>, samples: Vec<Sample>) {
        self.series = emptied(series);
        self.samples = samples;
        self.samples.clear();
    }
}

impl spare::Buffers for Buffers {
    fn message_bytes(&self) -> usize {
        self.message.capacity()
    }

    fn rows(&self) -> usize {
        self.series.capacity().max(self.samples.capacity()).max(self.rows.capacity())
    }
}

/// The same memory without what was in it.
fn emptied<'b>(series: Vec<Incoming<'_>>) -> Vec<Incoming<'b>> {
    series.into_iter().map_while(|_| None).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_for_series_stays_the_same() {
        let mut buffers = Buffers { series: Vec::with_capacity(500), ..Buffers::default() };
        let series = buffers.take_series();
        assert_eq!(series.capacity(), 500);
        buffers.give_back(series, Vec::new());
        assert_eq!(buffers.series.capacity(), 500);
    }
}
