//! Lookups against servers on the loopback.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use simple_dns::rdata::{A, AAAA, MX, NS, RData, SRV};
use simple_dns::{CLASS, Name, Packet, PacketFlag, RCODE, ResourceRecord};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};

use super::super::testing::{metrics, shown_found};
use super::*;
use crate::config::SdConfig;
use crate::config::tests_support::sd_config;

/// Answers by name and type; what is not known does not exist.
type Zone = Arc<dyn Fn(&str, &str) -> Option<Result<Vec<RData<'static>>, RCODE>> + Send + Sync>;

fn answer(question: &[u8], zone: &Zone) -> Vec<u8> {
    let question = Packet::parse(question).unwrap();
    assert!(question.opt().is_some(), "long answers are asked for");
    let asked = &question.questions[0];
    let (name, kind) = (asked.qname.to_string(), format!("{:?}", asked.qtype));
    let mut reply = Packet::new_reply(question.id());
    reply.set_flags(PacketFlag::RESPONSE);
    reply.questions.push(asked.clone());
    match zone(&name, &kind) {
        Some(Ok(records)) => {
            for data in records {
                let name = Name::new_unchecked("alias.of.it").into_owned();
                reply.answers.push(ResourceRecord::new(name, CLASS::IN, 60, data));
            }
        }
        Some(Err(code)) => *reply.rcode_mut() = code,
        None => *reply.rcode_mut() = RCODE::NameError,
    }
    reply.build_bytes_vec().unwrap()
}

/// A server for UDP and TCP on one port.
async fn serve(zone: Zone) -> SocketAddr {
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            break (udp, tcp);
        }
    };
    let address = udp.local_addr().unwrap();
    let over_tcp = Arc::clone(&zone);
    tokio::spawn(async move {
        let mut question = [0; 2048];
        while let Ok((length, from)) = udp.recv_from(&mut question).await {
            let mut reply = answer(&question[..length], &zone);
            if reply.len() > 1232 {
                reply.truncate(12);
                reply[2] |= 2;
                reply[4..12].fill(0);
            }
            // Something that is nobody's answer comes first.
            udp.send_to(&[0, 0, 0x80, 0], from).await.unwrap();
            udp.send_to(&reply, from).await.unwrap();
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let mut question = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut question).await.unwrap();
            let reply = answer(&question, &over_tcp);
            stream.write_u16(reply.len() as u16).await.unwrap();
            stream.write_all(&reply).await.unwrap();
        }
    });
    address
}

/// A file in the form of `resolv.conf`, gone with the value.
struct Conf(PathBuf);

impl Conf {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("stint-{name}-{}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for Conf {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn names(keys: &str, conf: &Conf) -> (DnsNames, crate::metrics::Metrics) {
    let SdConfig::Dns(config) = sd_config(&format!("dns_sd_configs: [{{{keys}}}]")) else {
        panic!("dns is expected");
    };
    let (registry, metrics) = metrics();
    let mut names = DnsNames::new(&config, &metrics);
    names.resolv_conf.clone_from(&conf.0);
    (names, registry)
}

fn name(text: &'static str) -> Name<'static> {
    Name::new_unchecked(text)
}

#[tokio::test]
async fn every_kind_of_record_becomes_targets() {
    let zone: Zone = Arc::new(|name_asked, kind| {
        let srv = |target, port| SRV { priority: 1, weight: 2, port, target: name(target) };
        Some(Ok(match (name_asked, kind) {
            ("_m._tcp.a", "TYPE(SRV)") => {
                vec![RData::SRV(srv("one.a", 90)), RData::SRV(srv("two.a", 91))]
            }
            ("a", "TYPE(A)") => vec![
                RData::CNAME(simple_dns::rdata::CNAME(name("b"))),
                RData::A(A { address: 0x0a00_0001 }),
            ],
            ("a", "TYPE(AAAA)") => vec![RData::AAAA(AAAA { address: 1 })],
            ("a", "TYPE(MX)") => {
                vec![RData::MX(MX { preference: 1, exchange: name("mail.a") })]
            }
            ("a", "TYPE(NS)") => vec![RData::NS(NS(name("ns.a")))],
            _ => return None,
        }))
    });
    let server = serve(zone).await;
    let conf = Conf::new("dns-kinds", &format!("nameserver [{}]:{}\n", server.ip(), server.port()));
    for (keys, expected) in [
        (
            "names: [_m._tcp.a]",
            "__address__=\"one.a:90\"\n  __meta_dns_name=\"_m._tcp.a\"\n  \
             __meta_dns_srv_record_port=\"90\"\n  __meta_dns_srv_record_target=\"one.a.\"\n\
             __address__=\"two.a:91\"\n  __meta_dns_name=\"_m._tcp.a\"\n  \
             __meta_dns_srv_record_port=\"91\"\n  __meta_dns_srv_record_target=\"two.a.\"",
        ),
        ("names: [a], type: a, port: 80", "__address__=\"10.0.0.1:80\"\n  __meta_dns_name=\"a\""),
        ("names: [a], type: AAAA, port: 80", "__address__=\"[::1]:80\"\n  __meta_dns_name=\"a\""),
        (
            "names: [a], type: MX, port: 80",
            "__address__=\"mail.a:80\"\n  __meta_dns_mx_record_target=\"mail.a.\"\n  \
             __meta_dns_name=\"a\"",
        ),
        (
            "names: [a], type: NS, port: 80",
            "__address__=\"ns.a:80\"\n  __meta_dns_name=\"a\"\n  \
             __meta_dns_ns_record_target=\"ns.a.\"",
        ),
        ("names: [none], type: NS, port: 80", ""),
    ] {
        let found = names(keys, &conf).0.refresh().await.unwrap();
        assert_eq!((shown_found(&found), found.unknown.len()), (expected.to_owned(), 0), "{keys}");
    }
}

#[tokio::test]
async fn search_domains_and_other_servers_are_tried_and_failures_tell_their_name() {
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let noted = Arc::clone(&asked);
    let good = serve(Arc::new(move |name, _| {
        noted.lock().push(name.to_owned());
        let one = || Some(Ok(vec![RData::A(A { address: 0x0a00_0001 })]));
        match name {
            "web.b" | "whole" => one(),
            "broken.a" => Some(Err(RCODE::ServerFailure)),
            _ => None,
        }
    }))
    .await;
    let bad = serve(Arc::new(|_, _| Some(Err(RCODE::Refused)))).await;
    let conf = Conf::new(
        "dns-search",
        &format!(
            "nameserver [127.0.0.1]:{}\nnameserver [127.0.0.1]:{}\nsearch a b\n",
            bad.port(),
            good.port()
        ),
    );
    let (mut looked, registry) =
        names("names: [web, whole., broken, gone], type: A, port: 1", &conf);
    let found = looked.refresh().await.unwrap();
    let targets: Vec<_> =
        found.groups.iter().map(|group| (&*group.source, group.targets.len())).collect();
    assert_eq!(targets, [("web", 1), ("whole.", 1), ("gone", 0)]);
    let [(source, error)] = &found.unknown[..] else { panic!("{:?}", found.unknown) };
    assert_eq!(source, "broken");
    assert!(error.to_string().contains("ServerFailure"), "{error}");
    let of_web =
        asked.lock().iter().filter(|name| name.starts_with("web")).cloned().collect::<Vec<_>>();
    assert_eq!(of_web, ["web.a", "web.b"]);
    let text = registry.render();
    for line in
        ["prometheus_sd_dns_lookups_total 4\n", "prometheus_sd_dns_lookup_failures_total 1\n"]
    {
        assert!(text.contains(line), "{line}");
    }
}

#[tokio::test]
async fn an_answer_that_does_not_fit_comes_over_tcp() {
    let server = serve(Arc::new(|_, _| {
        Some(Ok((0..200).map(|at| RData::A(A { address: 0x0a00_0000 + at })).collect()))
    }))
    .await;
    let conf = Conf::new("dns-tcp", &format!("nameserver [127.0.0.1]:{}\n", server.port()));
    let found = names("names: [a], type: A, port: 1", &conf).0.refresh().await.unwrap();
    assert_eq!(found.groups[0].targets.len(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_given_up() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let conf = Conf::new("dns-silent", &format!("nameserver [127.0.0.1]:{port}\n"));
    let found = names("names: [a], type: A, port: 1", &conf).0.refresh().await.unwrap();
    assert!(found.unknown[0].1.to_string().contains("no answer in time"), "{found:?}");
    std::fs::remove_file(&conf.0).unwrap();
    let error = names("names: [a], type: A, port: 1", &conf).0.refresh().await.unwrap_err();
    assert!(error.to_string().contains("cannot read"), "{error}");
}
