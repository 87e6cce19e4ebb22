use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Functions of another namespace that may call this one.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Caller {
    /// Namespace of the functions that may call.
    #[schemars(schema_with = "crate::schema::label")]
    pub namespace: String,
    /// Name of the function that may call. Default: all functions of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::label")]
    pub name: Option<String>,
}
