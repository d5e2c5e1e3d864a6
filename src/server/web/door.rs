//! Who may enter: users and the bcrypt hashes of their passwords.
//!
//! A hash takes tens of milliseconds by design. It is computed away from the threads that serve
//! requests, a few at a time, and what came out is remembered under a keyed digest, so that no
//! password stays in memory and looking one up tells nothing about it.

use std::collections::HashSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use ring::hmac;
use ring::rand::SystemRandom;
use tokio::sync::Semaphore;

use crate::config::Secret;

/// How many hashes are computed at the same time, by all that knock.
const HASHES_AT_ONCE: usize = 2;
/// How many answers of each kind are remembered.
const REMEMBERED_MAX: usize = 256;

/// A name and a password, as they stand in a request.
#[derive(PartialEq, Eq)]
pub(super) struct Credentials {
    user: Vec<u8>,
    password: Vec<u8>,
}

impl Credentials {
    /// Those in the value of an `Authorization` header; `None` when it holds none.
    pub(super) fn read(header: &[u8]) -> Option<Self> {
        let (scheme, encoded) = header.split_at_checked(6)?;
        if !scheme.eq_ignore_ascii_case(b"basic ") {
            return None;
        }
        let decoded = STANDARD.decode(encoded.trim_ascii()).ok()?;
        let colon = decoded.iter().position(|byte| *byte == b':')?;
        let (user, password) = (decoded.get(..colon)?, decoded.get(colon + 1..)?);
        Some(Self { user: user.to_vec(), password: password.to_vec() })
    }
}

type Digest = [u8; 32];

/// What is remembered of answers.
#[derive(Default)]
struct Remembered {
    right: HashSet<Digest>,
    /// Kept apart, so that nobody who tries passwords pushes out those who know theirs.
    wrong: HashSet<Digest>,
}

/// Decides who may enter.
pub(super) struct Door {
    users: Vec<(String, Secret)>,
    key: hmac::Key,
    remembered: Mutex<Remembered>,
    hashing: Arc<Semaphore>,
}

impl Door {
    /// # Errors
    /// The system has no random numbers.
    pub(super) fn new(users: Vec<(String, Secret)>) -> Result<Self, String> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| "the system gives no random numbers".to_owned())?;
        let hashing = Arc::new(Semaphore::new(HASHES_AT_ONCE));
        Ok(Self { users, key, remembered: Mutex::default(), hashing })
    }

    /// Whether nobody is asked.
    pub(super) fn is_open(&self) -> bool {
        self.users.is_empty()
    }

    /// Whether the user exists and the password is theirs. An unknown user takes as long as a wrong
    /// password.
    pub(super) async fn admits(&self, credentials: Credentials) -> bool {
        let known = self.users.iter().find(|(name, _)| name.as_bytes() == credentials.user);
        let Some((_, hash)) = known.or(self.users.first()) else { return true };
        let digest = self.digest(&credentials);
        {
            let remembered = self.remembered.lock();
            if remembered.right.contains(&digest) {
                return true;
            }
            if remembered.wrong.contains(&digest) {
                return false;
            }
        }
        let (hash, password) = (hash.clone(), credentials.password);
        let hashing = Arc::clone(&self.hashing);
        let Ok(turn) = hashing.acquire_owned().await else { return false };
        let verified = tokio::task::spawn_blocking(move || {
            let verified = bcrypt::verify(password, hash.reveal());
            drop(turn);
            verified
        });
        // What was accepted as a hash can be compared; nobody enters if it cannot.
        let is_right = matches!(verified.await, Ok(Ok(true))) && known.is_some();
        let mut remembered = self.remembered.lock();
        let set = if is_right { &mut remembered.right } else { &mut remembered.wrong };
        if set.len() >= REMEMBERED_MAX {
            set.clear();
        }
        set.insert(digest);
        is_right
    }

    fn digest(&self, credentials: &Credentials) -> Digest {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&(credentials.user.len() as u64).to_be_bytes());
        context.update(&credentials.user);
        context.update(&credentials.password);
        let mut digest = [0; 32];
        for (to, from) in digest.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(user: &str, password: &str) -> Credentials {
        Credentials { user: user.into(), password: password.into() }
    }

    fn door() -> Door {
        let hash = |password: &str| Secret::new(bcrypt::hash(password, 4).unwrap());
        Door::new(vec![("ann".into(), hash("one")), ("bob".into(), hash("two"))]).unwrap()
    }

    #[test]
    fn credentials_are_read_as_browsers_send_them() {
        let read = |text: &str| Credentials::read(text.as_bytes());
        assert!(read("Basic YW5uOm9uZTp4") == Some(credentials("ann", "one:x")));
        assert!(read("bAsIc YW5uOg==") == Some(credentials("ann", "")));
        for wrong in ["", "Basic", "Basic ", "Basic !", "Bearer YW5uOm9uZQ==", "Basic YW5u"] {
            assert!(read(wrong).is_none(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn only_the_own_password_opens() {
        let door = door();
        for _ in 0..2 {
            assert!(door.admits(credentials("ann", "one")).await);
            assert!(door.admits(credentials("bob", "two")).await);
            // The password of the user whose hash stands in for those of unknown ones.
            for (user, password) in [("ann", "two"), ("eve", "one"), ("", ""), ("annon", "e")] {
                assert!(!door.admits(credentials(user, password)).await, "{user} {password}");
            }
        }
    }

    #[tokio::test]
    async fn answers_are_remembered_and_not_without_bound() {
        let door = door();
        assert!(door.admits(credentials("ann", "one")).await);
        for number in 0..=REMEMBERED_MAX {
            assert!(!door.admits(credentials("ann", &number.to_string())).await);
        }
        assert_eq!(door.remembered.lock().wrong.len(), 1);
        // Nothing is left to compute with: what is known needs no hash.
        door.hashing.close();
        assert!(door.admits(credentials("ann", "one")).await);
        assert!(!door.admits(credentials("bob", "two")).await);
    }
}
