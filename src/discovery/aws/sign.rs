//! Signatures of requests, version 4.

use jiff::Timestamp as Instant;
use reqwest::Url;
use ring::digest::{SHA256, digest};
use ring::hmac;

use super::super::DiscoveryError;
use super::keys::Keys;

/// A request that is to be signed. It is a POST without a query.
pub(super) struct Unsigned<'a> {
    pub(super) url: &'a Url,
    pub(super) region: &'a str,
    /// As it stands in signatures.
    pub(super) service: &'a str,
    /// Names in lower case.
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: &'a [u8],
}

impl Unsigned<'_> {
    /// The headers to send besides `host`: those that were given, and what proves who asks at
    /// `now`, milliseconds since 1970.
    pub(super) fn sign(
        self,
        keys: &Keys,
        now: i64,
    ) -> Result<Vec<(&'static str, String)>, DiscoveryError> {
        let wrong = |what: &str| DiscoveryError(format!("cannot sign a request: {what}"));
        let now = Instant::from_millisecond(now).map_err(|error| wrong(&error.to_string()))?;
        let time = now.strftime("%Y%m%dT%H%M%SZ").to_string();
        let day = time.get(..8).unwrap_or_default();
        let host = self.url.host_str().ok_or_else(|| wrong("the URL has no host"))?;
        let host = match self.url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let mut headers = self.headers;
        headers.push(("x-amz-date", time.clone()));
        if let Some(token) = &keys.token {
            headers.push(("x-amz-security-token", token.reveal().to_owned()));
        }
        let mut signed = headers.clone();
        signed.push(("host", host));
        signed.sort();
        let names: Vec<_> = signed.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let lines: Vec<_> =
            signed.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
        let lines = lines.concat();
        let canonical =
            format!("POST\n{}\n\n{lines}\n{names}\n{}", self.url.path(), hash(self.body));
        let scope = format!("{day}/{}/{}/aws4_request", self.region, self.service);
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hash(canonical.as_bytes()));
        let mut key = format!("AWS4{}", keys.secret_key.reveal()).into_bytes();
        for part in [day, self.region, self.service, "aws4_request"] {
            key = mac(&key, part.as_bytes());
        }
        let signature = hex(&mac(&key, text.as_bytes()));
        let access = &keys.access_key;
        headers.push((
            "authorization",
            format!(
                "AWS4-HMAC-SHA256 Credential={access}/{scope}, SignedHeaders={names}, \
                 Signature={signature}"
            ),
        ));
        Ok(headers)
    }
}

fn mac(key: &[u8], text: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text).as_ref().to_vec()
}

fn hash(text: &[u8]) -> String {
    hex(digest(&SHA256, text).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string never fails.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn keys(token: Option<&str>) -> Keys {
        Keys {
            access_key: "AKIDEXAMPLE".to_owned(),
            secret_key: Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
            token: token.map(Secret::new),
            until: None,
        }
    }

    fn authorization(headers: Vec<(&'static str, String)>, body: &[u8], keys: &Keys) -> String {
        let url = Url::parse("https://example.amazonaws.com/").unwrap();
        let unsigned =
            Unsigned { url: &url, region: "us-east-1", service: "service", headers, body };
        let signed = unsigned.sign(keys, 1_440_938_160_000).unwrap();
        let date = signed.iter().find(|(name, _)| *name == "x-amz-date").unwrap();
        assert_eq!(date.1, "20150830T123600Z");
        signed.into_iter().find(|(name, _)| *name == "authorization").unwrap().1
    }

    /// The published examples of the algorithm.
    #[test]
    fn requests_are_signed_as_published() {
        let vanilla = authorization(vec![], b"", &keys(None));
        assert_eq!(
            vanilla,
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=host;x-amz-date, \
             Signature=5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"
        );
        let form = vec![("content-type", "application/x-www-form-urlencoded".to_owned())];
        let form = authorization(form, b"Param1=value1", &keys(None));
        assert!(form.contains("SignedHeaders=content-type;host;x-amz-date, "));
        assert!(form.ends_with("ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"));
        let with_token = authorization(vec![], b"", &keys(Some("T")));
        assert!(with_token.contains("SignedHeaders=host;x-amz-date;x-amz-security-token, "));
    }

    proptest::proptest! {
        /// The signature depends on everything that is sent, and on nothing else.
        #[test]
        fn any_change_changes_the_signature(
            body in ".{0,20}",
            value in "[ -~]{0,20}",
            path in "[a-zA-Z0-9/]{0,10}",
            change in 0..4_u8,
        ) {
            let sign = |path: &str, value: &str, body: &str, now: i64| {
                let url = Url::parse(&format!("https://h:444/{path}")).unwrap();
                let headers = vec![("x-amz-target", value.to_owned())];
                let unsigned = Unsigned {
                    url: &url,
                    region: "r",
                    service: "s",
                    headers,
                    body: body.as_bytes(),
                };
                let signed = unsigned.sign(&keys(None), now).unwrap();
                signed.into_iter().find(|(name, _)| *name == "authorization").unwrap().1
            };
            let now = 1_440_938_160_000;
            let first = sign(&path, &value, &body, now);
            proptest::prop_assert_eq!(&first, &sign(&path, &value, &body, now));
            let other = match change {
                0 => sign(&format!("{path}x"), &value, &body, now),
                1 => sign(&path, &format!("{value}x"), &body, now),
                2 => sign(&path, &value, &format!("{body}x"), now),
                _ => sign(&path, &value, &body, now + 1000),
            };
            proptest::prop_assert_ne!(first, other);
        }
    }
}
