use k8s_openapi::ByteString;
use kube::KubeSchema;
use schemars::{Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::local_reference::LocalReference;
use crate::schema::{rule, text};

/// Source of a component.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.image) != has(self.inline)")
    .message("write exactly one of image and inline"))]
#[x_kube(validation = Rule::new("has(self.image) || !has(self.imagePullSecrets)")
    .message("imagePullSecrets belong to image: remove them or write image"))]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// OCI artifact that holds the component, for example registry.example/shop/checkout:1.4.0 or a reference with
    /// @sha256:..., at most 512 bytes. A tag is resolved to its digest once, when this field changes; moving the tag
    /// in the registry changes nothing. A value from which a kept EdgeRevision was created keeps the digest of that
    /// revision, and no registry is queried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "image")]
    pub image: Option<String>,

    /// Secrets of this namespace with registry credentials (type kubernetes.io/dockerconfigjson), at most 8, tried in
    /// this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub image_pull_secrets: Vec<LocalReference>,

    /// Bytes of the component in base64, at most 512 KiB decoded. Meant for trying Selvage without a registry. Above
    /// 180 KiB use `kubectl apply --server-side`, because an annotation holds at most 256 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "inline")]
    pub inline: Option<ByteString>,
}

/// Registry with optional port, path, then tag, digest or both.
const IMAGE: &str = concat!(
    r"^([a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?(\.[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?)*(:[0-9]{1,5})?|\[[0-9a-f:]+\](:[0-9]{1,5})?)",
    r"(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)+",
    r"(:[A-Za-z0-9_][-A-Za-z0-9_.]{0,127})?(@sha256:[0-9a-f]{64})?$"
);

fn image(_: &mut SchemaGenerator) -> Schema {
    text(
        1,
        512,
        &[
            rule(
                "!self.contains('://')",
                "write the image without a scheme: registry.example/shop/checkout:1.4.0",
            ),
            rule(
                format!("self.contains('://') || self.matches(r'{IMAGE}')"),
                "write the image as registry/name:tag or registry/name@sha256:<64 hex digits>; the registry is always written",
            ),
            rule(
                format!(
                    "!self.matches(r'{IMAGE}') || self.contains('@') || self.substring(self.lastIndexOf('/')).contains(':')"
                ),
                "write a tag or a digest: there is no default tag",
            ),
        ],
    )
}

pub(crate) fn inline(_: &mut SchemaGenerator) -> Schema {
    // not format: byte, which the API server reads as the URL-safe alphabet and refuses '+' and '/'
    text(
        4,
        699_052,
        &[rule(
            r"self.matches(r'^[A-Za-z0-9+/]*={0,2}$')",
            "write the bytes of the component as base64 on one line, with + and / and = (base64 -w0)",
        )],
    )
}
