use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use kube::KubeSchema;

use crate::enumeration::words;
use crate::local_reference::LocalReference;
use crate::schema::{list, rule, rule_saying, text};

/// Requests that a function answers: those with one of the hosts, one of the paths, one of the methods and all of the
/// headers.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// Host names, 1 to 16. A name is exact (shop.example) or has one wildcard as its whole first label
    /// (*.shop.example matches one or more labels). `*` matches every host and must be allowed by the administrator
    /// of the platform. The first function that names a host claims it for its namespace.
    #[schemars(schema_with = "hosts")]
    pub hosts: Vec<String>,

    /// Path conditions, at most 16; one of them must hold. Default: PathPrefix /.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub paths: Vec<PathMatch>,

    /// HTTP methods in upper case: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH. Default: all methods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "methods")]
    pub methods: Vec<String>,

    /// Header conditions, at most 16; all of them must hold. Header names match in any case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub headers: Vec<HeaderMatch>,

    /// Rewrites the path before the component sees the request. Default: the path is passed unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<Rewrite>,

    /// HTTPS with a certificate of this namespace. Default: nodes serve the hosts with the certificates of the cluster, which the
    /// administrator of the platform provides, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<RouteTls>,
}

/// Certificate with which nodes serve the hosts of a route over HTTPS.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteTls {
    /// Secret of this namespace with the certificate chain in the key tls.crt and the private key in the key tls.key, as Secrets of type
    /// kubernetes.io/tls have them. It is used for those hosts of the route that it is valid for, before any certificate of the
    /// cluster. A renewed certificate is used within seconds, without a rollout. A function names at most 16 such Secrets. The
    /// namespace must grant its Secrets to Selvage.
    pub secret_ref: LocalReference,
}

words! {
    /// How a path condition compares.
    PathMatchType {
        /// The whole path is equal.
        Exact = "Exact",
        /// The leading segments are equal: /a matches /a and /a/b, but not /ab.
        PathPrefix = "PathPrefix",
    }
}

/// Condition on the path of a request.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PathMatch {
    /// Type of comparison. PathPrefix (default) compares leading segments: /a matches /a and /a/b, but not /ab. Exact
    /// compares the whole path.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub match_type: Option<PathMatchType>,

    /// Path to compare with. It starts with /, has no query and at most 1024 bytes.
    #[schemars(schema_with = "path")]
    pub value: String,
}

words! {
    /// How a header condition compares.
    HeaderMatchType {
        /// The whole value is equal.
        Exact = "Exact",
        /// The header is present, with any value.
        Present = "Present",
        /// The whole value matches a regular expression.
        RegularExpression = "RegularExpression",
    }
}

/// Condition on one header of a request.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("(has(self.type) && self.type == 'Present') != has(self.value)")
    .message("write value, except for type Present, which has none"))]
#[serde(rename_all = "camelCase")]
pub struct HeaderMatch {
    /// Name of the header, at most 256 bytes.
    #[schemars(schema_with = "header_name")]
    pub name: String,

    /// Type of comparison. Exact (default) compares the whole value. Present accepts any value. RegularExpression
    /// matches the whole value against an expression in RE2 syntax.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub match_type: Option<HeaderMatchType>,

    /// Value or regular expression to compare with, at most 1024 bytes. Not allowed with type Present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub value: Option<String>,
}

/// Change to the path before the component sees it.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rewrite {
    /// Path that replaces the prefix that matched. For example, / turns /checkout/cart into /cart when the route
    /// matches /checkout.
    #[schemars(schema_with = "path")]
    pub prefix: String,
}

const HOST: &str =
    r"^(\*\.)?[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$";

/// A host name, or one with a wildcard.
pub(crate) fn host(_: &mut SchemaGenerator) -> Schema {
    let cases = [
        (
            "self.contains('/')",
            "a host has no scheme and no path: write shop.example",
        ),
        (
            "self.contains('[')",
            "an IP address is not a host name: write a host name",
        ),
        (
            "self.contains(':')",
            "a host has no port: write shop.example; requests to any port match",
        ),
        ("self != self.lowerAscii()", "write a host in lower case"),
        ("self.contains('_')", "a host has no underscore"),
        ("self.endsWith('.')", "a host does not end with a dot"),
        (
            "self.contains('*')",
            "a host has one wildcard at most, as its whole first label: *.shop.example",
        ),
        (
            r"self.matches(r'(^|\.)(0x[0-9a-f]*|[0-9]+)$')",
            "the last label of a host must not be a number: an IP address is not a host name",
        ),
    ];
    let otherwise = "a host has labels of letters, digits and '-' with dots between them, each label at most 63 characters";
    let mut chain = String::new();
    for (case, message) in cases {
        chain.push_str(&format!("{case} ? \"{message}\" : "));
    }
    chain.push_str(&format!("\"{otherwise}\""));
    text(
        1,
        253,
        &[rule_saying(
            format!(
                r"self == '*' || (self.matches(r'{HOST}') && !self.matches(r'(^|\.)(0x[0-9a-f]*|[0-9]+)$'))"
            ),
            chain,
            otherwise,
        )],
    )
}

fn hosts(generator: &mut SchemaGenerator) -> Schema {
    list("set", 1, 16, &host(generator))
}

/// The path of a match or a rewrite.
pub(crate) fn path(_: &mut SchemaGenerator) -> Schema {
    let cases = [
        ("!self.startsWith('/')", "a path begins with /"),
        (
            "self.contains('?')",
            "a path has no query: write the part before ?",
        ),
        (
            "self.contains('#')",
            "a path has no fragment: write the part before #",
        ),
        (
            "self.contains('//')",
            "a path has no empty segment: write / once",
        ),
        (
            r"self.matches(r'/\.\.?(/|$)')",
            "a path has no segment . or ..",
        ),
        (
            "self.matches(r'%(2[fF]|5[cC]|00)')",
            "a path has no encoded slash, backslash or zero byte",
        ),
    ];
    let otherwise =
        "a path has letters, digits and -._~!$&'()*+,;=:@%/ only: encode everything else";
    let mut chain = String::new();
    let mut all = String::new();
    for (case, message) in cases {
        chain.push_str(&format!("{case} ? \"{message}\" : "));
        all.push_str(&format!("!({case}) && "));
    }
    chain.push_str(&format!("\"{otherwise}\""));
    all.push_str(r#"self.matches(r"^/[-A-Za-z0-9._~!$&'()*+,;=:@%/]*$")"#);
    text(1, 1024, &[rule_saying(all, chain, otherwise)])
}

/// The name of a header.
pub(crate) fn header_name(_: &mut SchemaGenerator) -> Schema {
    text(
        1,
        256,
        &[rule(
            r##"self.matches(r"^[-A-Za-z0-9!#$%&'*+.^_`|~]+$")"##,
            "a header name has letters, digits and !#$%&'*+-.^_`|~ only",
        )],
    )
}

/// Methods that a node serves.
pub(crate) fn methods(_: &mut SchemaGenerator) -> Schema {
    list(
        "set",
        0,
        7,
        &schemars::json_schema!({
            "type": "string",
            "enum": ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]
        }),
    )
}
