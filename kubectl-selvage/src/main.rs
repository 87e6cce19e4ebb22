//! The program `kubectl-selvage`, which kubectl runs as `kubectl selvage`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    kubectl_selvage::run()
}
