//! The `stint` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    stint::cli::main()
}
