//! Keeping to what the account says of itself.

use std::time::Duration;

use stint_model::Timestamp;

use super::{Admission, growth_of};
use crate::budget::feedback::{Feedback, Said};
use crate::budget::group::Key;

impl Admission {
    /// The account has answered: from now on its limits hold, and others' series leave less. What is
    /// sent beyond that is sent no more, least important first.
    pub fn hear(&mut self, said: Said, now: Duration, wall: Timestamp) {
        let Some(configured) = &self.limits else { return };
        let feedback = self.feedback.get_or_insert_with(|| Feedback::new(configured.clone(), now));
        let held = self.ledger.live().saturating_add(self.seat.others());
        let limits = feedback.hear(said, held, now);
        self.growth.max = Some(growth_of(&limits));
        self.points.set(limits.points_per_minute, now);
        if self.limits.as_ref() != Some(&limits) {
            self.limits = Some(limits);
            self.pending.look_soon();
        }
        self.give_back(now, wall);
    }

    /// The server has told which series it counts, which may be more than the ledger lists. Nothing is
    /// unknown any more when what an earlier run had on its way has arrived, after `in_flight_max`, and the
    /// ledger was written.
    pub fn recover(&mut self, keys: &[Key], in_flight_max: Duration, now: Duration) {
        let class = self.policy.classes().len().saturating_sub(1) as u16;
        self.ledger.recover(keys, class, now);
        self.ledger.want_checkpoint();
        self.pending.look_soon();
        // Not before the ledger lists them durably.
        self.is_told |= now.saturating_sub(self.started) >= in_flight_max;
    }

    /// The account was asked and has not answered.
    pub fn unheard(&mut self, problem: String) {
        let Some(configured) = &self.limits else { return };
        let began = || Feedback::new(configured.clone(), self.started);
        self.feedback.get_or_insert_with(began).failed(problem);
    }
}
