//! Memory of requests that are done, for those to come: a request takes about a megabyte in a few
//! pieces, and getting those anew each time costs as much as reading it.

use parking_lot::Mutex;

/// Buffers that are kept. Where more requests are received at once, the others get new ones.
const KEPT_MAX: usize = 4;
/// Buffers for longer messages are not kept.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Nor are those for more series or samples.
const ROWS_MAX: usize = 32 << 10;

/// What one request needs, and another may use after it.
pub(super) trait Buffers: Default {
    /// Room for the message, in bytes.
    fn message_bytes(&self) -> usize;
    /// Room for the most things of one kind.
    fn rows(&self) -> usize;
}

/// Buffers that nobody uses.
#[derive(Default)]
pub(super) struct Spare<B>(Mutex<Vec<B>>);

impl<B: Buffers> Spare<B> {
    /// Buffers for one request.
    pub(super) fn take(&self) -> B {
        self.0.lock().pop().unwrap_or_default()
    }

    /// Keeps them for another one, unless they are large or enough are kept.
    pub(super) fn keep(&self, buffers: B) {
        if buffers.message_bytes() > MESSAGE_BYTES_MAX || buffers.rows() > ROWS_MAX {
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

    #[derive(Default)]
    struct Two(usize, usize);

    impl Buffers for Two {
        fn message_bytes(&self) -> usize {
            self.0
        }

        fn rows(&self) -> usize {
            self.1
        }
    }

    #[test]
    fn a_few_buffers_are_kept_and_no_large_ones() {
        let spare = Spare::default();
        spare.keep(Two(MESSAGE_BYTES_MAX + 1, 1));
        spare.keep(Two(1, ROWS_MAX + 1));
        assert_eq!(spare.take().0, 0);
        for _ in 0..KEPT_MAX + 3 {
            spare.keep(Two(1000, 10));
        }
        assert_eq!(spare.0.lock().len(), KEPT_MAX);
        assert_eq!(spare.take().0, 1000);
    }
}
