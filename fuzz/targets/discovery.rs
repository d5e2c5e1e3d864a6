//! What files and servers say of targets: lists in YAML and JSON, kubeconfigs, answers of AWS and
//! of name servers, files of keys. All of it is taken or refused.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use server::{config, discovery};

/// The modules themselves: the server around them takes long to compile.
#[path = "../../src"]
#[allow(dead_code, unreachable_pub, unused_imports)]
mod server {
    pub mod config;
    pub mod discovery {
        pub mod aws {
            mod keys;
            mod xml;

            pub fn read_xml(text: &str) {
                if let Ok(root) = xml::Element::read(text) {
                    for reservation in root.items("reservationSet") {
                        assert_ne!(reservation.text(&["ownerId"]), Some(""));
                    }
                }
            }

            pub fn read_keys(text: &str) {
                if let Some(keys) = keys::profile_keys(text, "default") {
                    assert!(text.contains(&keys.access_key));
                }
                if let Err(error) = keys::offered(text, "here") {
                    assert!(error.0.starts_with("what here offers is not usable: "));
                }
            }
        }
        pub mod dns {
            pub mod resolve {
                mod message;

                use crate::config::RecordKind;

                /// Whatever the bytes, what is taken of them is of the kind that was asked for.
                pub fn read(bytes: &[u8]) {
                    let id = bytes.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
                    for kind in [RecordKind::A, RecordKind::Aaaa, RecordKind::Srv, RecordKind::Mx] {
                        let heard = message::read(bytes, id, "a.b", kind);
                        let message::Heard::Said(Ok(message::Said::Records(records))) = heard
                        else {
                            continue;
                        };
                        for record in records {
                            let is_of_kind = match &record {
                                message::Record::Address(address) => {
                                    address.is_ipv4() == (kind == RecordKind::A)
                                }
                                message::Record::Service { .. } => kind == RecordKind::Srv,
                                message::Record::Host(_) => kind == RecordKind::Mx,
                            };
                            assert!(is_of_kind, "{kind:?} {record:?}");
                        }
                    }
                }
            }
        }

        #[derive(Debug)]
        pub struct DiscoveryError(pub String);
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((kind, bytes)) = input.split_first() else { return };
    if kind % 6 == 5 {
        return discovery::dns::resolve::read(bytes);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match kind % 6 {
        0 => groups(config::read_target_file(Path::new("t.yml"), text)),
        1 => groups(config::read_target_file(Path::new("t.json"), text)),
        2 => drop(config::read_kubeconfig(Path::new("k"), text)),
        3 => discovery::aws::read_xml(text),
        _ => discovery::aws::read_keys(text),
    }
});

fn groups(read: Result<Vec<config::StaticGroup>, config::ConfigErrors>) {
    match read {
        Ok(groups) => {
            for group in groups {
                assert!(
                    group.labels.iter().all(|(name, value)| !name.is_empty() && !value.is_empty())
                );
            }
        }
        Err(errors) => assert!(!errors.0.is_empty()),
    }
}
