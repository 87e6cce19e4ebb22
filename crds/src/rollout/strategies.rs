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

    /// False: the switch waits for an approval. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_promote: Option<bool>,

    /// What stable keeps after the switch, 0% to 50%. Default 0%: then a candidate is compared with nothing, and an
    /// outage of both may switch back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::share::<0, 5_000>")]
    pub holdback: Option<String>,
}

words! {
    /// What happens when the time of a comparison is over.
    Then {
        /// It waits for a person.
        Hold = "Hold",
        /// It promotes when everything is good.
        Promote = "Promote",
    }
}

/// Settings of strategy ABTest.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AbTest {
    /// Requests that take part: those that match any entry, 1 to 16. All others stay on stable.
    #[serde(rename = "match")]
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub matches: Vec<AbMatch>,

    /// Part of them that the candidate answers. Default 50%, 0.01% to 100%. At 100% nothing is compared, only shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::share::<1, 10_000>")]
    pub split: Option<String>,

    /// How long. Default 24h, 1m to 2160h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration::<60_000, 7_776_000_000>")]
    pub duration: Option<String>,

    /// Hold (default): waits for promote. Promote: promotes when everything is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<Then>,
}

/// Requests in which all of these hold.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.headers) || has(self.cookies) || has(self.query) || has(self.claims)")
    .message("write at least one of headers, cookies, query and claims"))]
#[serde(rename_all = "camelCase")]
pub struct AbMatch {
    /// Headers, at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub headers: Vec<NamedMatch>,
    /// Cookies, at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub cookies: Vec<NamedMatch>,
    /// Query parameters, at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub query: Vec<NamedMatch>,
    /// Claims of a token whose signature the node verified, at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub claims: Vec<NamedMatch>,
}

/// A name, and the value it must have.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamedMatch {
    /// Its name, at most 256 bytes.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// The whole value, at most 1024 bytes. Absent: it only has to be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub value: Option<String>,
}

/// Settings of strategy Shadow.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shadow {
    /// Part of the requests that is copied. Default 10%, 0.01% to 100%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::share::<1, 10_000>")]
    pub share: Option<String>,
    /// Methods that may be sent twice. Default GET and HEAD.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::function::methods")]
    pub methods: Vec<String>,
    /// Larger bodies are not copied. Default 64Ki, 0 to 1Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::quantity::<0, 1_048_576>")]
    pub max_body: Option<String>,
    /// How long. Default 30m, 1m to 2160h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::duration::<60_000, 7_776_000_000>")]
    pub duration: Option<String>,
    /// At least this many copies. Default 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub min_requests: Option<u32>,
}

words! {
    /// What identifies a client.
    AffinityType {
        /// A header.
        Header = "Header",
        /// A cookie.
        Cookie = "Cookie",
        /// The address.
        ClientIp = "ClientIP",
    }
}

/// Keeps a client on one revision.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("(self.type == 'ClientIP') != has(self.name)")
    .message("write the name of the header or cookie; ClientIP has none"))]
#[x_kube(validation = Rule::new("!has(self.generate) || !self.generate || self.type == 'Cookie'")
    .message("only a cookie can be generated: use type Cookie or remove generate"))]
#[serde(rename_all = "camelCase")]
pub struct Affinity {
    /// Header, Cookie or ClientIP.
    #[serde(rename = "type")]
    pub affinity_type: AffinityType,
    /// Name of the header or cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::function::header_name")]
    pub name: Option<String>,
    /// True: a client without the cookie gets one with a random value. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generate: Option<bool>,
}

fn preview_hosts(generator: &mut SchemaGenerator) -> Schema {
    list("set", 0, 16, &crate::function::host(generator))
}
