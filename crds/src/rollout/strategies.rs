use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::enumeration::words;
use crate::schema::list;

/// Settings of strategy BlueGreen.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlueGreen {
    /// Hosts on which the candidate answers before the switch, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "preview_hosts")]
    pub preview_hosts: Vec<String>,

    /// When false, the switch waits for an approval. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_promote: Option<bool>,

    /// Share of requests that stable keeps after the switch, 0% to 50%. With 0% (the default) the candidate is
    /// compared with nothing, so that an outage which affects both revisions may switch back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::share::<0, 5_000>")]
    pub holdback: Option<String>,
}

words! {
    /// What happens when the time of a comparison ends.
    Then {
        /// The rollout waits for a person.
        Hold = "Hold",
        /// The candidate is promoted if everything is good.
        Promote = "Promote",
    }
}

/// Settings of strategy ABTest.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AbTest {
    /// Requests that take part: those that match any of these entries, 1 to 16. All other requests stay on stable.
    #[serde(rename = "match")]
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub matches: Vec<AbMatch>,

    /// Share of the matching requests that the candidate answers. Default 50%, 0.01% to 100%. With 100% nothing is
    /// compared, only shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::share::<1, 10_000>")]
    pub split: Option<String>,

    /// Duration of the test. Default 24h, 1m to 2160h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration::<60_000, 7_776_000_000>")]
    pub duration: Option<String>,

    /// What happens when the time ends. Hold (default) waits for the action promote. Promote promotes the candidate
    /// if everything is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<Then>,
}

/// Condition that a request meets when all of these fields match.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.headers) || has(self.cookies) || has(self.query) || has(self.claims)")
    .message("write at least one of headers, cookies, query and claims"))]
#[serde(rename_all = "camelCase")]
pub struct AbMatch {
    /// Headers that the request must have, at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub headers: Vec<NamedMatch>,
    /// Cookies that the request must have, at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub cookies: Vec<NamedMatch>,
    /// Query parameters that the request must have, at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub query: Vec<NamedMatch>,
    /// Claims of a token whose signature the node verified, at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub claims: Vec<NamedMatch>,
}

/// Name and the value that it must have.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamedMatch {
    /// Name of the header, cookie, parameter or claim, at most 256 bytes.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Whole value, at most 1024 bytes. Absent: any value matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub value: Option<String>,
}

/// Settings of strategy Shadow.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shadow {
    /// Share of requests that are copied. Default 10%, 0.01% to 100%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::share::<1, 10_000>")]
    pub share: Option<String>,
    /// Methods of requests that may be sent twice. Default GET and HEAD.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::function::methods")]
    pub methods: Vec<String>,
    /// Largest body that is copied. Default 64Ki, 0 to 1Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::quantity::<0, 1_048_576>")]
    pub max_body: Option<String>,
    /// Duration of the copying. Default 30m, 1m to 2160h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration::<60_000, 7_776_000_000>")]
    pub duration: Option<String>,
    /// Minimum number of copied requests. Default 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub min_requests: Option<u32>,
}

words! {
    /// Property that identifies a client.
    AffinityType {
        /// The value of a header.
        Header = "Header",
        /// The value of a cookie.
        Cookie = "Cookie",
        /// The IP address.
        ClientIp = "ClientIP",
    }
}

/// Assignment of a client to one revision.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("(self.type == 'ClientIP') != has(self.name)")
    .message("write the name of the header or cookie; ClientIP has none"))]
#[x_kube(validation = Rule::new("!has(self.generate) || !self.generate || self.type == 'Cookie'")
    .message("only a cookie can be generated: use type Cookie or remove generate"))]
#[serde(rename_all = "camelCase")]
pub struct Affinity {
    /// Property that identifies a client: Header, Cookie or ClientIP.
    #[serde(rename = "type")]
    pub affinity_type: AffinityType,
    /// Name of the header or cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::function::header_name")]
    pub name: Option<String>,
    /// When true, a client without the cookie receives one with a random value. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generate: Option<bool>,
}

fn preview_hosts(generator: &mut SchemaGenerator) -> Schema {
    list("set", 0, 16, &crate::function::host(generator))
}
