//! `node-shim dev` as users run it.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use e2e::{
    cluster::{Purpose, install},
    selvage,
};

/// The manifest is that of the page about functions: its build runs, and the function answers.
#[test]
fn a_manifest_is_built_and_served_without_a_cluster() {
    install(&[Purpose::Tests]).unwrap();
    let manifest = selvage::root().join("examples/hello/function.yaml");
    let mut child = Command::new(selvage::dist().join("node-shim"))
        .args(["dev", "--addr", "127.0.0.1:0"])
        .arg(manifest)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("run `make dist` first: {error}"));
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut shown = Vec::new();
    let address = lines.map_while(Result::ok).find_map(|line| {
        let after = line.strip_prefix("Serving on ").map(str::to_owned);
        shown.push(line);
        Some(after?.split_once(';')?.0.to_owned())
    });
    let answer = address.map(|address| {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--noproxy", "*", "--max-time", "60", &address]);
        curl.output().unwrap().stdout
    });
    let _ = child.kill();
    let _ = child.wait();
    let answer = answer.unwrap_or_else(|| panic!("{shown:#?}"));
    assert_eq!(String::from_utf8_lossy(&answer), "hello from v1\n");
}
