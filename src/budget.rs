//! The series budget: which series an endpoint may be sent, so that the account behind it never
//! counts more of them than it allows.
//!
//! A series counts for 20 minutes after its last arrival at the server. So sending is governed by
//! leases ([`ledger`]): a series is sent only while it holds one, a lease is granted before the
//! first byte leaves, survives a restart, and comes back only when the server has certainly
//! forgotten the series. `doubt` says what a ledger is worth that may not list everything. [`limits`] says how many there are, [`policy`] who gets them, or [`ranking`] where nothing is said,
//! [`points`] how often they are sent, [`admission`] puts all that together for one endpoint, [`pool`] for those of one account, [`full`] reacts when the server refuses nevertheless, and
//! [`report`] explains all of it.

pub mod admission;
pub mod beside;
mod doubt;
pub mod feedback;
pub mod figures;
pub mod full;
pub mod group;
pub mod history;
pub mod ledger;
pub mod limits;
mod month;
pub mod points;
pub mod policy;
pub mod pool;
pub mod ranking;
pub mod report;
pub mod share;
pub mod symbols;
