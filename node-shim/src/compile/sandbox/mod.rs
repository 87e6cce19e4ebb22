//! Confinement of the compiler process, which parses bytes of tenants and may have defects that they exploit.
//!
//! Before it reads any input, the process has its descriptors, its threads and its compiler, and needs nothing else from
//! the system. It then gives up access to files (Landlock, if the kernel has it) and installs two seccomp filters, of
//! which the kernel applies the stricter one:
//!
//! * System calls that compilation uses are allowed. Others fail with `EPERM`. The C library makes some of these calls by
//!   itself and continues without them: its allocator, for example, opens `/proc/sys/vm/overcommit_memory` when it returns
//!   memory. An open file, executable memory or a signal to another process is therefore an error, not the end.
//! * Calls that only a process under foreign control makes kill the process: network, other programs, new processes or
//!   threads, other processes. The death by `SIGSYS` is reported as a failure of its own, so that an attack is noticed.

use std::collections::BTreeMap;
use std::io;

use landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetError, RulesetStatus, Scope,
};
use rustix::io::Errno;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter_all_threads,
};

/// Newest version of Landlock whose restrictions are requested. Older kernels apply those that they have.
const LANDLOCK: ABI = ABI::V6;

/// System calls that are allowed with any arguments.
const ALLOWED: [i64; 29] = [
    // the descriptors that the process was started with
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_lseek,
    libc::SYS_close,
    // memory
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // threads that exist, also those that have just been started; time and random numbers
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_getrandom,
    // signals to the process itself, and its end
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// System calls that kill the process.
const FORBIDDEN: [i64; 36] = [
    // network
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    // programs, processes and threads
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_unshare,
    libc::SYS_setns,
    // other processes
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    // interfaces of the kernel that other attacks start from
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
];

/// Calls of the same kind that only x86-64 has.
#[cfg(target_arch = "x86_64")]
const FORBIDDEN_HERE: [i64; 2] = [libc::SYS_fork, libc::SYS_vfork];
#[cfg(not(target_arch = "x86_64"))]
const FORBIDDEN_HERE: [i64; 0] = [];

/// Why the process could not be confined.
#[derive(Debug, thiserror::Error)]
pub(super) enum SandboxError {
    /// The kernel has Landlock and refused the rules.
    #[error("the compiler process cannot give up access to files: {0}")]
    Files(#[from] RulesetError),
    /// The filter does not compile, for example because the architecture is not supported.
    #[error("the filter of the compiler process's system calls is invalid: {0}")]
    Filter(#[from] seccompiler::BackendError),
    /// The kernel refused the filter.
    #[error("the compiler process cannot restrict its system calls: {0}")]
    SystemCalls(seccompiler::Error),
}

/// Denies this thread, and those that it starts later, access to all files, TCP ports and processes outside. Returns false
/// when the kernel does not have Landlock.
pub(super) fn deny_files() -> Result<bool, SandboxError> {
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?
        .restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

/// Installs the filters for all threads of the process. Returns false when the kernel does not have seccomp.
pub(super) fn filter_system_calls() -> Result<bool, SandboxError> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    for filter in [forbidden(architecture)?, allowed(architecture)?] {
        match apply_filter_all_threads(&filter) {
            Ok(()) => {}
            Err(seccompiler::Error::Seccomp(error)) if is_missing(&error) => return Ok(false),
            Err(error) => return Err(SandboxError::SystemCalls(error)),
        }
    }
    Ok(true)
}

fn is_missing(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::NOSYS)
}

/// Returns the filter that kills the process for forbidden calls.
fn forbidden(architecture: TargetArch) -> Result<BpfProgram, seccompiler::BackendError> {
    let calls = FORBIDDEN.into_iter().chain(FORBIDDEN_HERE);
    let rules = calls.map(|call| (call, Vec::new())).collect();
    SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::KillProcess,
        architecture,
    )?
    .try_into()
}

/// Returns the filter that lets all calls fail but those that are allowed.
fn allowed(architecture: TargetArch) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    // native code is written to memory that cannot be executed
    let executable = u64::from(libc::PROT_EXEC.unsigned_abs());
    let not_executable = SeccompCondition::new(
        2,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::MaskedEq(executable),
        0,
    )?;
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![SeccompRule::new(vec![not_executable.clone()])?]);
    }
    // a panic that cannot unwind aborts, which is a signal of the process to itself
    let own = u64::from(std::process::id());
    let to_itself = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, own)?;
    rules.insert(libc::SYS_tgkill, vec![SeccompRule::new(vec![to_itself])?]);
    let denied = Errno::PERM.raw_os_error().unsigned_abs();
    SeccompFilter::new(
        rules,
        SeccompAction::Errno(denied),
        SeccompAction::Allow,
        architecture,
    )?
    .try_into()
}

#[cfg(test)]
mod tests;
