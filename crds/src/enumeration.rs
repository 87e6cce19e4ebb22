//! Words of the API as Rust enums that do not break when a newer API knows more words.

/// Declares an enum of API words. A word that this program does not know is read as `Unknown`, so that an
/// object written for a newer version is still an object; `Unknown` is no value of the schema.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $word:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
        )]
        pub enum $name {
            $($(#[$doc])* #[serde(rename = $text)] $word,)+
            /// A word of a newer version; never written.
            #[serde(other)]
            Unknown,
        }

        impl $name {
            /// Every word of the schema, in its order.
            pub const ALL: &[Self] = &[$(Self::$word),+];

            /// The word as it is written.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$word => $text,)+
                    Self::Unknown => "Unknown",
                }
            }
        }

        // by hand, because a derived schema has a description, which would take the place of the field's
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
        /// For the test.
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
