//! Tests of the program `node-shim dev`.

mod cache;
mod fields;
mod program;
mod refusals;
mod rollout;
mod swap;

use crate::support::component::guest;

pub(crate) use program::{Dev, Project, get_from};

/// Returns a component that responds with 200 and a text.
fn answering(text: &str) -> Vec<u8> {
    let length = text.len();
    guest(
        &format!("(data (i32.const 4096) \"{text}\")"),
        &format!(
            "(call $answer (local.get $out) (i32.const 200) (i32.const 4096) (i32.const {length}))"
        ),
    )
}

/// Returns the manifest of one function whose component is `c.wasm`. Fields that are added begin in line 11, or in line 10
/// when they have limits. The default CPU limit is short for unoptimised hosts.
pub(crate) fn one(more: &str) -> String {
    annotated("selvage.dev/component: c.wasm", more)
}

/// Returns the manifest of one function with annotations.
fn annotated(annotations: &str, more: &str) -> String {
    let limits = if more.contains("limits:") {
        ""
    } else {
        "  limits: { cpu: 5s }\n"
    };
    format!(
        "apiVersion: selvage.dev/v1alpha1
kind: EdgeFunction
metadata:
  name: one
  annotations:
    {annotations}
spec:
  source: {{ image: r.example/one:1 }}
  routes: [{{ hosts: [one.example] }}]
{limits}{more}"
    )
}
