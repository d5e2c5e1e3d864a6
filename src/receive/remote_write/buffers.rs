//! Memory of requests that are done, for those to come: a request takes about a megabyte in a few
//! pieces, and getting those anew each time costs as much as reading it.

use parking_lot::Mutex;
use stint_model::{Row, Sample};

use super::request::Incoming;

/// Buffers that are kept. Where more requests are received at once, the others get new ones.
const KEPT_MAX: usize = 4;
/// Buffers for longer messages are not kept.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Nor are those for more series or samples.
const ROWS_MAX: usize = 32 << 10;

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

/// The same memory without what was in it.
fn emptied<'b>(series: Vec<Incoming<'_>>) -> Vec<Incoming<'b>> {
    series.into_iter().map_while(|_| None).collect()
}

/// Buffers that nobody uses.
#[derive(Default)]
pub(super) struct Spare(Mutex<Vec<Buffers>>);

impl Spare {
    pub(super) fn take(&self) -> Buffers {
        self.0.lock().pop().unwrap_or_default()
    }

    pub(super) fn keep(&self, buffers: Buffers) {
        let rows = buffers.series.capacity().max(buffers.samples.capacity());
        if buffers.message.capacity() > MESSAGE_BYTES_MAX
            || rows.max(buffers.rows.capacity()) > ROWS_MAX
        {
            return;
        }
        let mut spare = self.0.lock();
        if spare.len() < KEPT_MAX {
            spare.push(buffers);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_buffers_are_kept_and_no_large_ones() {
        let spare = Spare::default();
        let with = |bytes: usize, rows: usize| Buffers {
            message: Vec::with_capacity(bytes),
            rows: Vec::with_capacity(rows),
            ..Buffers::default()
        };
        spare.keep(with(MESSAGE_BYTES_MAX + 1, 1));
        spare.keep(with(1, ROWS_MAX + 1));
        assert_eq!(spare.take().message.capacity(), 0);
        for _ in 0..KEPT_MAX + 3 {
            spare.keep(with(1000, 10));
        }
        assert_eq!(spare.0.lock().len(), KEPT_MAX);
        assert_eq!(spare.take().message.capacity(), 1000);
    }

    #[test]
    fn room_for_series_stays_the_same() {
        let mut buffers = Buffers { series: Vec::with_capacity(500), ..Buffers::default() };
        let series = buffers.take_series();
        assert_eq!(series.capacity(), 500);
        buffers.give_back(series, Vec::new());
        assert_eq!(buffers.series.capacity(), 500);
    }
}
