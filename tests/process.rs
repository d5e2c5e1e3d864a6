//! Programs that run beside the tests.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

/// An address on which nobody listens.
pub(crate) fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    listener.local_addr().expect("bound").to_string()
}

/// A process that ends with the test.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
        Self(quiet.spawn().expect("the program starts"))
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
