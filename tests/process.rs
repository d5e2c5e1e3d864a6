//! Programs that run beside the tests.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Ports that no system gives to those who ask for any: one of those may be a connection's by the
/// time that the program listens.
const PORTS: std::ops::Range<u32> = 20_000..32_000;

/// An address on which nobody listens, another one each time.
pub(crate) fn free_address() -> String {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let count = PORTS.end - PORTS.start;
    // Other processes may run the same tests.
    let first = std::process::id().wrapping_mul(97);
    let is_free = |address: &String| TcpListener::bind(address).is_ok();
    let mut addresses = (0..count).map(|_| {
        let offset = first.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % count;
        format!("127.0.0.1:{}", PORTS.start + offset)
    });
    addresses.find(is_free).expect("a port is free")
}

/// A process that ends with the test.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
        Self(quiet.spawn().expect("the program starts"))
    }

    /// One of which what it says is in `log`.
    pub(crate) fn telling(command: &mut Command, log: &Path) -> Self {
        let log = File::create(log).expect("a folder of ours");
        let quiet = command.stdout(Stdio::null()).stderr(log);
        Self(quiet.spawn().expect("the program starts"))
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.0.try_wait().expect("a child of ours").is_some()
    }

    pub(crate) fn kill_9(mut self) {
        self.0.kill().expect("still running");
        self.0.wait().expect("a child of ours");
    }
}

impl Running {
    /// Asks the program to stop, and waits until it has.
    pub(crate) fn terminate(mut self) {
        let id = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("still running");
        let status = self.0.wait().expect("a child of ours");
        assert!(status.success(), "a stop in order ends with {status}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|status| status.is_none()) {
            let killed = self.0.kill().and_then(|()| self.0.wait().map(drop));
            killed.expect("a child of ours can be killed");
        }
    }
}
