//! Metadata of what is forwarded, in requests of its own: the 1.0 message has it nowhere else.

use stint_model::Metadata;
use stint_wire::remote_write::Version;

use super::encode;
use super::retry::{Verdict, classify};
use super::send::Sender;
use super::status::Failure;
use super::transport::{Request, TransportError};

impl Sender {
    /// Sends the metadata of what is forwarded. One attempt: the next one comes anyway.
    pub(super) async fn send_metadata(&self, entries_max: usize) {
        let wanted: Vec<(String, Metadata)> = {
            let families = self.families.lock();
            let admission = self.admission.lock();
            let sent = admission.families();
            let is_sent = |family: &str| {
                sent.contains(family)
                    || ["_total", "_info"]
                        .iter()
                        .any(|end| sent.contains(format!("{family}{end}").as_str()))
                    || ["_count", "_sum"].iter().any(|end| {
                        family.strip_suffix(end).is_some_and(|family| sent.contains(family))
                    })
            };
            families
                .iter()
                .filter(|(family, _)| is_sent(family))
                .map(|(family, metadata)| (family.clone(), metadata.clone()))
                .collect()
        };
        for part in wanted.chunks(entries_max.max(1)) {
            let pairs = part.iter().map(|(family, metadata)| (family.as_str(), metadata));
            let Some(body) = encode::metadata(pairs) else { continue };
            let bytes = body.len() as u64;
            let request = Request { body, version: Version::V1, attempt: 0 };
            let outcome = self.transport.send(request).await;
            let has_left = !matches!(outcome, Err(TransportError::NotSent(_)));
            let problem = match outcome {
                Ok(response) => match classify(&response) {
                    Verdict::Stored | Verdict::Deduplicated => None,
                    _ => Some(format!("http {}: {}", response.status, response.body)),
                },
                Err(error) => Some(error.to_string()),
            };
            let mut status = self.status.lock();
            if has_left {
                status.counters.metadata_bytes += bytes;
            }
            match problem {
                None => status.counters.metadata += part.len() as u64,
                Some(message) => {
                    tracing::warn!(endpoint = %self.name, "sending metadata failed: {message}");
                    status.counters.metadata_failed += part.len() as u64;
                    status.last_error = Some(Failure { at: self.clock.now(), message });
                }
            }
        }
    }
}
