//! A stub resolver that tells a name that does not exist from a server that does not answer.
//!
//! The system's own resolver knows addresses only, and caching ones hide when a record has gone.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

use super::super::DiscoveryError;
use crate::config::RecordKind;
use message::{DATAGRAM_MAX, Heard, Said, query, read};

pub(super) use message::Record;

mod message;

/// How long a server may take, unless the system says something else.
const TIMEOUT: Duration = Duration::from_secs(5);
/// What the system's resolver takes of its file.
const SERVERS_MAX: usize = 3;
const SEARCH_MAX: usize = 16;

/// Whom to ask, and how to complete names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resolver {
    servers: Vec<SocketAddr>,
    /// Domains without dots around them.
    search: Vec<String>,
    /// A name with this many dots is tried as it is first.
    dots: usize,
    timeout: Duration,
}

impl Resolver {
    /// The one that `/etc/resolv.conf` describes. A server's port may stand behind it in the form
    /// `[address]:port`.
    pub(super) fn of(text: &str) -> Self {
        let mut resolver =
            Self { servers: Vec::new(), search: Vec::new(), dots: 1, timeout: TIMEOUT };
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => resolver.servers.extend(words.next().and_then(server)),
                Some("domain") => resolver.search = words.take(1).map(bare).collect(),
                Some("search") => resolver.search = words.take(SEARCH_MAX).map(bare).collect(),
                Some("options") => words.for_each(|option| resolver.option(option)),
                _ => {}
            }
        }
        resolver.search.retain(|domain| !domain.is_empty());
        if resolver.servers.is_empty() {
            resolver.servers.push((Ipv4Addr::LOCALHOST, 53).into());
        }
        resolver.servers.truncate(SERVERS_MAX);
        resolver
    }

    fn option(&mut self, option: &str) {
        match option.split_once(':') {
            Some(("ndots", number)) => self.dots = number.parse().unwrap_or(1).min(15),
            Some(("timeout", seconds)) => {
                let seconds = seconds.parse().unwrap_or(TIMEOUT.as_secs()).clamp(1, 30);
                self.timeout = Duration::from_secs(seconds);
            }
            _ => {}
        }
    }

    /// The full names that `name` may stand for, in the order of trying.
    fn names(&self, name: &str) -> Vec<String> {
        if let Some(full) = name.strip_suffix('.') {
            return vec![full.to_owned()];
        }
        let mut names: Vec<_> =
            self.search.iter().map(|domain| format!("{name}.{domain}")).collect();
        let dots = name.bytes().filter(|byte| *byte == b'.').count();
        let at = if dots >= self.dots { 0 } else { names.len() };
        names.insert(at, name.to_owned());
        names
    }

    /// The records of `name`: none when it does not exist in any domain.
    pub(super) async fn look_up(
        &self,
        name: &str,
        kind: RecordKind,
    ) -> Result<Vec<Record>, DiscoveryError> {
        let mut problem = None;
        for full in self.names(name) {
            match self.ask_any(&full, kind).await {
                Ok(Said::Records(records)) => return Ok(records),
                Ok(Said::NoSuchName) => {}
                Err(error) => problem = Some(error),
            }
        }
        problem.map_or(Ok(Vec::new()), Err)
    }

    /// What the first server says that says anything of use.
    async fn ask_any(&self, name: &str, kind: RecordKind) -> Result<Said, DiscoveryError> {
        let mut problems = Vec::new();
        for server in &self.servers {
            let asked = tokio::time::timeout(self.timeout, ask(*server, name, kind)).await;
            match asked.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
                Ok(said) => return Ok(said),
                Err(problem) => problems.push(format!("{server}: {problem}")),
            }
        }
        let problems = problems.join(", ");
        Err(DiscoveryError(format!("cannot look up {name}: {problems}")))
    }
}

fn bare(domain: &str) -> String {
    domain.trim_matches('.').to_owned()
}

fn server(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some((address, 53).into());
    }
    // As some systems write it for servers with another port.
    let (address, port) = text.strip_prefix('[')?.split_once("]:")?;
    Some((address.parse::<IpAddr>().ok()?, port.parse().ok()?).into())
}

/// Asks `server` over UDP, and over TCP when the answer does not fit.
async fn ask(server: SocketAddr, name: &str, kind: RecordKind) -> Result<Said, String> {
    // Unpredictable, so that nobody else answers.
    let id = RandomState::new().build_hasher().finish() as u16;
    let query = query(id, name, kind)?;
    let io = |error: std::io::Error| error.to_string();
    let local: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((local, 0)).await.map_err(io)?;
    socket.connect(server).await.map_err(io)?;
    socket.send(&query).await.map_err(io)?;
    let mut datagram = [0; DATAGRAM_MAX as usize];
    loop {
        let length = socket.recv(&mut datagram).await.map_err(io)?;
        match read(&datagram[..length], id, name, kind) {
            Heard::Said(said) => return said,
            Heard::Truncated => break,
            // Somebody else's, or late: the right one may still come.
            Heard::Foreign => {}
        }
    }
    let mut stream = TcpStream::connect(server).await.map_err(io)?;
    let length = u16::try_from(query.len()).map_err(|_| "the question is too long".to_owned())?;
    stream.write_all(&[&length.to_be_bytes()[..], &query].concat()).await.map_err(io)?;
    let mut answer = vec![0; usize::from(stream.read_u16().await.map_err(io)?)];
    stream.read_exact(&mut answer).await.map_err(io)?;
    match read(&answer, id, name, kind) {
        Heard::Said(said) => said,
        Heard::Truncated => Err("the answer is truncated, over TCP too".to_owned()),
        Heard::Foreign => Err("the answer is to another question".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_file_is_read() {
        let text = "# nameserver 9.9.9.9\nnameserver 10.0.0.1 ; first\nnameserver ::1\n\
                    nameserver [127.0.0.1]:5353\nnameserver 10.0.0.4\nnameserver x\n\
                    domain gone.example\nsearch svc.local. example.org\n\
                    options ndots:2 timeout:3 rotate ndots:x\n";
        let resolver = Resolver::of(text);
        let servers: Vec<_> = resolver.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.0.0.1:53", "[::1]:53", "127.0.0.1:5353"]);
        assert_eq!(resolver.search, ["svc.local", "example.org"]);
        assert_eq!((resolver.dots, resolver.timeout.as_secs()), (1, 3));
        let silent = Resolver::of("");
        assert_eq!(silent.servers[0].to_string(), "127.0.0.1:53");
        assert_eq!((silent.dots, silent.timeout.as_secs(), silent.search.len()), (1, 5, 0));
    }

    #[test]
    fn names_are_completed() {
        let resolver = Resolver::of("search a.b c\noptions ndots:2\n");
        assert_eq!(resolver.names("x"), ["x.a.b", "x.c", "x"]);
        assert_eq!(resolver.names("x.y.z"), ["x.y.z", "x.y.z.a.b", "x.y.z.c"]);
        assert_eq!(resolver.names("x."), ["x"]);
    }
}
