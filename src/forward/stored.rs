//! The store's log as the source of a forwarder.

use stint_storage::{CursorEvent, Db, HoldError, WalHold, WalPosition};

use super::cursor::Saved;
use super::source::{Event, Position, Source, SourceError, StoredBatch};

/// Holds `db`'s log under an endpoint's name and reads it from where the last run stopped. A cursor
/// that cannot be read, or that points behind the end because the store was replaced, means the
/// start of what is still there.
pub fn open(db: &Db, name: &str, saved: &Saved) -> Result<Box<dyn Source>, HoldError> {
    let from = match saved {
        Saved::Nothing => None,
        Saved::Damaged(_) => Some(WalPosition::default()),
        Saved::At(position) => {
            let position = WalPosition { segment: position.segment, offset: position.offset };
            if position > db.wal_end() {
                tracing::warn!(
                    endpoint = name,
                    "the cursor points behind the end of the log; everything in the log is sent"
                );
                Some(WalPosition::default())
            } else {
                Some(position)
            }
        }
    };
    Ok(Box::new(Stored { hold: db.hold(name, from)? }))
}

struct Stored {
    hold: WalHold,
}

fn position(position: WalPosition) -> Position {
    Position { segment: position.segment, offset: position.offset }
}

impl Source for Stored {
    fn next(&mut self) -> Result<Event, SourceError> {
        let event = self.hold.next_event().map_err(|error| SourceError(error.to_string()))?;
        Ok(match event {
            CursorEvent::Batch(batch) => Event::Batch(StoredBatch {
                rows: batch.rows,
                exemplars: batch.exemplars,
                metadata: batch.metadata,
                orphans: batch.orphans,
                position_after: position(batch.position_after),
            }),
            CursorEvent::Lost { from, to, reason } => {
                Event::Lost { to: position(to), reason: format!("{from} to {to}: {reason}") }
            }
            CursorEvent::CaughtUp => Event::CaughtUp,
        })
    }

    fn position(&self) -> Position {
        position(self.hold.position())
    }

    fn release(&mut self, until: Position) {
        self.hold.release_until(WalPosition { segment: until.segment, offset: until.offset });
    }

    fn lag_bytes(&self) -> u64 {
        self.hold.lag_bytes()
    }
}
