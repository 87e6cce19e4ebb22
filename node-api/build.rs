//! Generates the protocol types. protox parses the files in Rust, so no protoc is needed.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let set = protox::compile(["selvage/node/v1/node.proto"], ["proto"])?;
    // a secret's value must not appear in logs; the crate writes this Debug by hand
    let mut config = tonic_prost_build::Config::new();
    config.skip_debug([
        "selvage.node.v1.SecretValue",
        "selvage.node.v1.CertificatePair",
        "selvage.node.v1.HopKey",
    ]);
    tonic_prost_build::configure().compile_fds_with_config(set, config)?;
    Ok(())
}
