//! The filters cannot be removed again, so each attempt runs in a process of its own.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::net::UdpSocket;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Output};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use super::*;

const ATTEMPT: &str = "SELVAGE_TEST_ATTEMPT";

/// Runs this attempt of `alone_in_the_sandbox`.
fn confined(attempt: &str) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "compile::sandbox::tests::alone_in_the_sandbox"])
        .args(["--ignored", "--nocapture"])
        .env(ATTEMPT, attempt)
        .output()
        .unwrap()
}

/// HG-30: what only an attacker does ends the process by a signal that is distinguished from all others.
#[test]
fn hg_30_forbidden_system_calls_kill_the_compiler_process() {
    for attempt in [
        "socket", "program", "exec", "thread", "signal", "process", "pair",
    ] {
        let output = confined(attempt);
        let signal = output.status.signal();
        assert_eq!(signal, Some(Signal::SYS.as_raw()), "{attempt}: {output:?}");
    }
}

/// HG-30: what the C library does by itself fails and does not end the process.
#[test]
fn hg_30_files_cannot_be_opened_and_the_process_continues() {
    let output = confined("open");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn work_with_memory_and_threads_continues_in_the_sandbox() {
    let output = confined("work");
    assert!(output.status.success(), "{output:?}");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("the sum is 499500"), "{stdout}");
}

/// The parent distinguishes an abort from an attack.
#[test]
fn an_abort_is_not_mistaken_for_a_forbidden_call() {
    let output = confined("abort");
    let signal = output.status.signal();
    assert_eq!(signal, Some(Signal::ABORT.as_raw()), "{output:?}");
}

#[test]
#[ignore = "run by the tests above in a process of its own"]
fn alone_in_the_sandbox() {
    let attempt = std::env::var(ATTEMPT).unwrap();
    let parent = Pid::from_raw(std::os::unix::process::parent_id().cast_signed()).unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build();
    let pool = pool.unwrap();
    // like the pool of the compiler process, it has started before the filter exists
    pool.broadcast(|_| ());
    deny_files().unwrap();
    assert!(filter_system_calls().unwrap());
    match attempt.as_str() {
        "socket" => drop(UdpSocket::bind("127.0.0.1:0")),
        "pair" => drop(std::os::unix::net::UnixStream::pair()),
        "program" => drop(Command::new("/bin/true").status()),
        "exec" => drop(Command::new("/bin/true").exec()),
        "thread" => drop(std::thread::Builder::new().spawn(|| ())),
        // no signal is sent, even if the call were allowed
        "signal" => {
            let _ = rustix::process::test_kill_process(parent);
        }
        "process" => drop(pidfd_open(parent, PidfdFlags::empty())),
        "abort" => std::process::abort(),
        "open" => {
            // with and without a file, for reading and for writing
            for path in ["/dev/null", "/nonexistent", "/proc/self/maps"] {
                let error = File::open(path).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{path}");
            }
            let error = File::create("/tmp/selvage-sandbox").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        }
        "work" => {
            // large enough that the allocator maps and returns the memory
            let blocks: Vec<Vec<u8>> = (0..64).map(|_| vec![1; 4 << 20]).collect();
            assert_eq!(blocks.iter().map(Vec::len).sum::<usize>(), 256 << 20);
            drop(blocks);
            let sum: u64 = pool.install(|| {
                use rayon::prelude::*;
                (0..1_000_u64).into_par_iter().sum()
            });
            writeln!(std::io::stdout(), "the sum is {sum}").unwrap();
        }
        unknown => panic!("{unknown}"),
    }
}
