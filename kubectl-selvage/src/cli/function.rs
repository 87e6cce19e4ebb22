//! Arguments of the commands that make, publish and call functions.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use http::{HeaderName, HeaderValue, Method};
use oci_client::Reference;

use super::System;

#[derive(Args, Clone, Debug)]
pub(crate) struct InvokeArgs {
    /// Name of the EdgeFunction
    #[arg(value_parser = super::name_of_function)]
    pub(crate) name: String,
    /// Path with query. Default: the first path of the route
    pub(crate) path: Option<String>,
    /// Host of the request. Default: the first host of the accepted routes
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,
    /// Method. Default: GET, or POST with data
    #[arg(short = 'X', long = "request", value_name = "METHOD")]
    pub(crate) method: Option<Method>,
    /// Header field, such as 'accept: text/html'; repeatable
    #[arg(short = 'H', long = "header", value_name = "FIELD", value_parser = header)]
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// Body of a form, as text, or as @FILE without its line breaks; repeatable, joined by &
    #[arg(short, long, value_name = "DATA", conflicts_with = "data_binary")]
    pub(crate) data: Vec<String>,
    /// Body as it is, as text, as @FILE, or as @- for standard input
    #[arg(long, value_name = "DATA")]
    pub(crate) data_binary: Option<String>,
    /// Print status and header fields before the body
    #[arg(short, long)]
    pub(crate) include: bool,
    /// Print no body and end with 22 if the status is 400 or higher
    #[arg(short, long)]
    pub(crate) fail: bool,
    /// Send the request to this node, which passes it on if another one has the function. Default: the first node by name
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Option<String>,
    /// Let this revision serve the request, whatever its weight is: candidate, stable, or its name. Default: by the weights
    #[arg(long, value_name = "REVISION")]
    pub(crate) revision: Option<String>,
    /// Time limit of the whole request; 0s: none
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = super::duration)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) system: System,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct PushArgs {
    /// File with the component
    pub(crate) file: PathBuf,
    /// Image to write, such as registry.example/shop/checkout:1.4.0
    #[arg(value_name = "IMAGE", value_parser = tagged)]
    pub(crate) image: Reference,
    /// Use HTTP instead of HTTPS, for a registry on this machine or in a test
    #[arg(long)]
    pub(crate) plain_http: bool,
}

/// Language of a new project.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
    /// Rust, built by cargo
    Rust,
    /// JavaScript without a framework, built by componentize-js
    Js,
    /// Python, built by componentize-py
    Python,
    /// C, built by the compiler of zig, which pip installs, and a tool of Rust
    C,
    /// Go, built by its compiler and a tool of Rust
    Go,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct NewArgs {
    /// Name of the EdgeFunction and of the folder, which must not exist
    #[arg(value_parser = function_name, value_hint = clap::ValueHint::Other)]
    pub(crate) name: String,
    /// Language of the function
    #[arg(short, long)]
    pub(crate) lang: Language,
}

/// Parses a header field. An empty value is allowed.
fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text
        .split_once(':')
        .ok_or("a header field has a colon, such as 'accept: text/html'")?;
    let name = name.trim().parse::<HeaderName>();
    let value = HeaderValue::from_str(value.trim());
    Ok((
        name.map_err(|error| error.to_string())?,
        value.map_err(|error| error.to_string())?,
    ))
}

/// Parses an image reference that can be written to: one without a digest.
fn tagged(text: &str) -> Result<Reference, String> {
    let image: Reference = text.parse().map_err(|error| {
        format!("{error}: write an image such as registry.example/shop/checkout:1.4.0")
    })?;
    if image.digest().is_some() {
        return Err("the registry computes the digest: write a tag alone".to_owned());
    }
    Ok(image)
}

/// Checks a name that is also the first label of a host and the name of a package.
fn function_name(text: &str) -> Result<String, String> {
    let is_label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let valid = (1..=40).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.ends_with('-')
        && text.chars().all(is_label);
    if valid {
        Ok(text.to_owned())
    } else {
        Err("a name has 1 to 40 of the characters a-z, 0-9 and -, and starts with a letter".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_fields_are_names_and_values() {
        let (name, value) = header("X-Trace:  a: b ").unwrap();
        assert_eq!((name.as_str(), value.as_bytes()), ("x-trace", &b"a: b"[..]));
        assert_eq!(header("x-empty:").unwrap().1, "");
        for wrong in ["accept", "a b: c", ": c", "a: b\nc"] {
            assert!(header(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_image_to_push_has_no_digest() {
        assert_eq!(tagged("r.example/a/b:1").unwrap().tag(), Some("1"));
        let digest = format!("r.example/a/b@sha256:{}", "0".repeat(64));
        assert!(tagged(&digest).unwrap_err().contains("write a tag alone"));
        assert!(tagged("R/UPPER CASE").is_err());
    }

    #[test]
    fn names_of_projects_are_labels() {
        for name in ["a", "shop-2"] {
            assert_eq!(function_name(name).unwrap(), name);
        }
        for name in ["", "-a", "a-", "2a", "A", "a.b", "../a", &"a".repeat(41)] {
            assert!(function_name(name).is_err(), "{name}");
        }
    }
}
