//! Keys, and the texts that they come in.

use serde::Deserialize;

use super::super::DiscoveryError;
use crate::config::Secret;

/// What requests are signed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Keys {
    pub(super) access_key: String,
    pub(super) secret_key: Secret,
    /// Of temporary keys.
    pub(super) token: Option<Secret>,
    /// When they end, in milliseconds since 1970; `None` = never.
    pub(super) until: Option<i64>,
}

/// As containers and machines write them.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Offered {
    access_key_id: String,
    secret_access_key: String,
    #[serde(default)]
    token: String,
    #[serde(default)]
    expiration: String,
}

/// Milliseconds since 1970.
pub(super) fn instant(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
}

/// What a container or a machine offers at `place`.
pub(super) fn offered(text: &str, place: &str) -> Result<Keys, DiscoveryError> {
    // What is wrong is told without the text, which may hold a secret.
    let wrong = |what: &str| DiscoveryError(format!("what {place} offers is not usable: {what}"));
    let offered: Offered = serde_json::from_str(text)
        .map_err(|error| wrong(&format!("line {}, column {}", error.line(), error.column())))?;
    let until = match &*offered.expiration {
        "" => None,
        text => Some(instant(text).ok_or_else(|| wrong("its end is no time"))?),
    };
    Ok(Keys {
        access_key: offered.access_key_id,
        secret_key: Secret::new(offered.secret_access_key),
        token: Some(offered.token).filter(|token| !token.is_empty()).map(Secret::new),
        until,
    })
}

/// The keys of `profile` in a shared credentials file.
pub(super) fn profile_keys(text: &str, profile: &str) -> Option<Keys> {
    let (mut inside, mut access, mut secret, mut token) = (false, None, None, None);
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            let name = name.trim();
            inside = name.strip_prefix("profile ").unwrap_or(name).trim() == profile;
        } else if inside
            && !line.starts_with(['#', ';'])
            && let Some((key, value)) = line.split_once('=')
        {
            let value = Some(value.trim().to_owned());
            match key.trim() {
                "aws_access_key_id" => access = value,
                "aws_secret_access_key" => secret = value,
                "aws_session_token" => token = value,
                _ => {}
            }
        }
    }
    Some(Keys {
        access_key: access?,
        secret_key: Secret::new(secret?),
        token: token.map(Secret::new),
        until: None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_keys_of_a_profile_are_found() {
        let text = "[default]\naws_access_key_id=A\naws_secret_access_key = B=\n\n\
                    # [b]\n[profile b]\naws_access_key_id = C\n; aws_session_token = no\n\
                    aws_secret_access_key = D\naws_session_token = T\nregion = x\n[c]\n\
                    aws_access_key_id = E\n";
        let keys = |profile| {
            let keys = profile_keys(text, profile)?;
            let token = keys.token.map(|token| token.reveal().to_owned());
            Some((keys.access_key, keys.secret_key.reveal().to_owned(), token))
        };
        assert_eq!(keys("default"), Some(("A".into(), "B=".into(), None)));
        assert_eq!(keys("b"), Some(("C".into(), "D".into(), Some("T".into()))));
        assert_eq!((keys("c"), keys("d")), (None, None));
    }

    proptest! {
        /// Profiles that are written are read back, whatever stands between them.
        #[test]
        fn a_written_profile_is_read_back(
            access in "[A-Z0-9]{1,20}",
            secret in "[A-Za-z0-9/+=]{1,40}",
            token in proptest::option::of("[A-Za-z0-9/+=]{1,40}"),
            before in "[a-z=#; \\n]{0,40}",
            after in "[a-z=#; \\n]{0,40}",
        ) {
            let token_line =
                token.as_ref().map(|token| format!("aws_session_token={token}\n"));
            let text = format!(
                "{before}\n[ p ]\n aws_access_key_id = {access}\naws_secret_access_key={secret}\n{}\
                 [other]\n{after}",
                token_line.unwrap_or_default()
            );
            let keys = profile_keys(&text, "p").unwrap();
            let expected = Keys {
                access_key: access,
                secret_key: Secret::new(secret),
                token: token.map(Secret::new),
                until: None,
            };
            prop_assert_eq!(keys, expected);
        }

        /// No secret is told, whatever is offered.
        #[test]
        fn what_is_offered_is_taken_or_refused_without_telling_it(
            text in "[{}\":,a-zA-Z0-9 -]{0,60}|\\{\"AccessKeyId\":\"hunter2\",\"SecretAccessKey\":\"hunter2\"[,}].{0,40}",
        ) {
            if let Err(error) = offered(&text, "x") {
                prop_assert!(!error.to_string().contains("hunter2"), "{}", error);
            }
        }
    }
}
