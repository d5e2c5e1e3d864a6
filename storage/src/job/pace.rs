//! Whether a job goes on with its next step.

use crate::db::Inner;
use crate::error::JobError;

/// How much a job needs the room that it takes on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// It ends in more room than before, or somebody waits for it.
    Needed,
    /// Nobody misses what it writes: it gives way to appends that a full disk refuses.
    Spare,
}

/// Asked before every step of a job.
pub(crate) struct Pace<'a> {
    db: &'a Inner,
    go_on: &'a mut dyn FnMut() -> bool,
    /// Refused appends before it began, where it gives way to others.
    refused: Option<u64>,
    closes: bool,
}

impl<'a> Pace<'a> {
    /// That of a job which ends when `go_on` says no, and when the database is to be closed.
    pub(crate) fn new(db: &'a Inner, room: Room, go_on: &'a mut dyn FnMut() -> bool) -> Self {
        let refused = (room == Room::Spare).then(|| db.refused_full());
        Self { db, go_on, refused, closes: false }
    }

    /// That of what closing the database itself does.
    pub(crate) fn of_closing(db: &'a Inner, go_on: &'a mut dyn FnMut() -> bool) -> Self {
        Self { db, go_on, refused: None, closes: true }
    }

    /// How much the job needs its room.
    pub(crate) fn room(&self) -> Room {
        if self.refused.is_some() { Room::Spare } else { Room::Needed }
    }

    /// Fails where the job is to end.
    pub(crate) fn step(&mut self) -> Result<(), JobError> {
        if (!self.closes && self.db.is_stopping()) || !(self.go_on)() {
            return Err(JobError::Interrupted);
        }
        match self.refused {
            Some(before) if self.db.refused_full() != before => Err(JobError::GaveWay),
            _ => Ok(()),
        }
    }
}
