//! Webhooks for tests.

use crate::config::Webhook;
use crate::config::tests_support::webhooks;

/// A webhook named `hook` with these further keys.
pub(super) fn webhook(keys: &str) -> Webhook {
    webhooks(&format!("[[notify.webhook]]\nname = 'hook'\nurl = 'http://h/x'\n{keys}\n")).remove(0)
}
