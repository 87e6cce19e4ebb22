//! Limits on the file descriptors of a program under test.

use std::process::Child;

/// Returns the soft and the hard limit, as the kernel prints them.
pub(crate) fn descriptor_limits(child: &Child) -> [String; 2] {
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    let files = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let mut limits = files.unwrap().split_whitespace().map(str::to_owned);
    [limits.next().unwrap(), limits.next().unwrap()]
}
