//! Questions and answers as they go over the network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use simple_dns::rdata::{OPT, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, Question, RCODE, TYPE};

use crate::config::RecordKind;

/// The longest datagram that is asked for: what crosses most networks in one piece.
pub(super) const DATAGRAM_MAX: u16 = 1232;
/// The most records that are taken of one answer.
const RECORDS_MAX: usize = 10_000;

/// What an answer holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Record {
    Address(IpAddr),
    /// The target without a final dot.
    Service {
        target: String,
        port: u16,
    },
    /// A host without a final dot.
    Host(String),
}

/// What one server said of one name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    Records(Vec<Record>),
    NoSuchName,
}

const fn record_type(kind: RecordKind) -> TYPE {
    match kind {
        RecordKind::A => TYPE::A,
        RecordKind::Aaaa => TYPE::AAAA,
        RecordKind::Mx => TYPE::MX,
        RecordKind::Ns => TYPE::NS,
        RecordKind::Srv => TYPE::SRV,
    }
}

/// The question for what `name` has of this kind.
///
/// # Errors
/// There can be no such name.
pub(super) fn query(id: u16, name: &str, kind: RecordKind) -> Result<Vec<u8>, String> {
    if name.split('.').any(str::is_empty) {
        return Err(format!("{name:?} has an empty part"));
    }
    let wrong = |error| format!("{name:?} cannot be asked for: {error}");
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let kind = QTYPE::TYPE(record_type(kind));
    let name = Name::new(name).map_err(wrong)?;
    packet.questions.push(Question::new(name, kind, CLASS::IN.into(), false));
    *packet.opt_mut() =
        Some(OPT { opt_codes: Vec::new(), udp_packet_size: DATAGRAM_MAX, version: 0 });
    packet.build_bytes_vec().map_err(wrong)
}

/// What became of a datagram.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Said(Result<Said, String>),
    Truncated,
    /// It does not answer the question.
    Foreign,
}

/// What `answer` says to the question `id`.
pub(super) fn read(answer: &[u8], id: u16, name: &str, kind: RecordKind) -> Heard {
    // The identifier stands at the very beginning, in whatever comes behind it.
    if answer.get(..2) != Some(&id.to_be_bytes()[..]) {
        return Heard::Foreign;
    }
    if let Some(flags) = answer.get(2)
        && flags & 0b10 != 0
    {
        return Heard::Truncated;
    }
    let packet = match Packet::parse(answer) {
        Ok(packet) => packet,
        Err(error) => return Heard::Said(Err(format!("the answer is not readable: {error}"))),
    };
    let asked = packet.questions.first().map(|question| question.qname.to_string());
    if !packet.has_flags(PacketFlag::RESPONSE)
        || asked.is_some_and(|asked| !asked.eq_ignore_ascii_case(name))
    {
        return Heard::Foreign;
    }
    Heard::Said(match packet.rcode() {
        RCODE::NoError => Ok(Said::Records(records(&packet, kind))),
        RCODE::NameError => Ok(Said::NoSuchName),
        other => Err(format!("the server says {other:?}")),
    })
}

/// Those of the kind that was asked for; on the way to them there may be aliases.
fn records(packet: &Packet<'_>, kind: RecordKind) -> Vec<Record> {
    let record = |data: &RData<'_>| match (data, kind) {
        (RData::A(a), RecordKind::A) => Some(Record::Address(Ipv4Addr::from(a.address).into())),
        (RData::AAAA(a), RecordKind::Aaaa) => {
            Some(Record::Address(Ipv6Addr::from(a.address).into()))
        }
        (RData::MX(mx), RecordKind::Mx) => Some(Record::Host(mx.exchange.to_string())),
        (RData::NS(ns), RecordKind::Ns) => Some(Record::Host(ns.0.to_string())),
        (RData::SRV(srv), RecordKind::Srv) => {
            Some(Record::Service { target: srv.target.to_string(), port: srv.port })
        }
        _ => None,
    };
    packet.answers.iter().filter_map(|answer| record(&answer.rdata)).take(RECORDS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_answer_is_told_apart() {
        let question = query(7, "a.b", RecordKind::A).unwrap();
        let heard = |bytes: &[u8]| read(bytes, 7, "a.b", RecordKind::A);
        assert_eq!(heard(&question), Heard::Foreign, "the question itself");
        let mut answer = question.clone();
        answer[2] |= 0x80;
        assert_eq!(heard(&answer), Heard::Said(Ok(Said::Records(vec![]))));
        assert_eq!(read(&answer, 8, "a.b", RecordKind::A), Heard::Foreign);
        assert_eq!(read(&answer, 7, "a.c", RecordKind::A), Heard::Foreign);
        answer[3] |= 3;
        assert_eq!(heard(&answer), Heard::Said(Ok(Said::NoSuchName)));
        answer[3] ^= 1;
        assert!(matches!(heard(&answer), Heard::Said(Err(_))));
        answer[2] |= 2;
        assert_eq!(heard(&answer), Heard::Truncated);
        assert!(matches!(heard(&[0, 7, 0x80]), Heard::Said(Err(_))));
        for name in [&"x".repeat(64), "a..b"] {
            assert!(query(7, name, RecordKind::A).is_err(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
            counts in any::<[u8; 4]>(),
        ) {
            if bytes.len() > 12 {
                bytes[..4].copy_from_slice(&[0, 7, 0x80, 0]);
                for (at, count) in counts.iter().enumerate() {
                    bytes[4 + 2 * at] = 0;
                    bytes[5 + 2 * at] = count % 4;
                }
            }
            for kind in [RecordKind::A, RecordKind::Srv, RecordKind::Mx] {
                read(&bytes, 7, "a", kind);
            }
        }
    }
}
