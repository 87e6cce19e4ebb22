use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Another object of the same namespace.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalReference {
    /// Its name.
    #[schemars(schema_with = "crate::schema::object_name")]
    pub name: String,
}
