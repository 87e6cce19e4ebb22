//! Enumerations of the API that tolerate values of newer API versions.

/// Declares an enumeration of the API. A value that this program does not define is read as `Unknown`, so that an
/// object written for a newer version can still be read. `Unknown` is not part of the schema.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $word:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
        )]
        pub enum $name {
            $($(#[$doc])* #[serde(rename = $text)] $word,)+
            /// Value of a newer API version. Never written.
            #[serde(other)]
            Unknown,
        }

        impl $name {
            /// All values of the schema, in its order.
            pub const ALL: &[Self] = &[$(Self::$word),+];

            /// Returns the value as it is written in the API.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$word => $text,)+
                    Self::Unknown => "Unknown",
                }
            }
        }

        // Not derived: a derived schema has a description, which would replace that of the field.
        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "enum": [$($text),+] })
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
pub(crate) use words;

#[cfg(test)]
mod tests {
    words! {
        /// Enumeration for the tests.
        Mood { Good = "Good", VeryBad = "very-bad" }
    }

    #[test]
    fn unknown_words_are_tolerated_and_known_ones_exact() {
        let read = |text: &str| serde_json::from_str::<Mood>(text).unwrap();
        assert_eq!(read("\"Good\""), Mood::Good);
        assert_eq!(read("\"very-bad\""), Mood::VeryBad);
        assert_eq!(read("\"Splendid\""), Mood::Unknown);
        assert_eq!(
            serde_json::to_string(&Mood::VeryBad).unwrap(),
            "\"very-bad\""
        );
        assert_eq!(Mood::ALL.len(), 2);
    }

    #[test]
    fn the_schema_has_no_unknown() {
        let schema = serde_json::to_string(&schemars::schema_for!(Mood)).unwrap();
        assert!(
            schema.contains("very-bad") && !schema.contains("Unknown"),
            "{schema}"
        );
    }
}
