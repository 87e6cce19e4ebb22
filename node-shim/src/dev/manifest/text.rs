//! Texts of a manifest with a form. They are checked while they are read, so that an error has the line of the value.

use std::fmt;
use std::marker::PhantomData;

use node_api::text::{Duration, Number, Percentage, Quantity};
use serde::de::{Deserialize, Deserializer, Error, Visitor};

use super::rules;

/// Deserializes a text and converts it.
fn text<'de, D, T>(deserializer: D, read: fn(&str) -> Result<T, String>) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
{
    // any: a value without quotes that YAML reads as a number is no text for the API server either
    deserializer.deserialize_any(TextVisitor(read, PhantomData))
}

struct TextVisitor<T>(fn(&str) -> Result<T, String>, PhantomData<T>);

impl<T> TextVisitor<T> {
    /// Refuses a value without quotes. Quotes are advised only where they are enough: 64 has no unit, quoted or not.
    fn unquoted<E: Error>(self, value: impl fmt::Display) -> Result<T, E> {
        Err(E::custom(match (self.0)(&value.to_string()) {
            Ok(_) => format!("{value} is not a text: write it in quotes, \"{value}\""),
            Err(why) => format!("{value}: {why}"),
        }))
    }
}

impl<T> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).map_err(|why| E::custom(format!("{text:?}: {why}")))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<T, E> {
        self.unquoted(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<T, E> {
        self.unquoted(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<T, E> {
        self.unquoted(value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<T, E> {
        self.unquoted(value)
    }
}

/// Declares a text with a form.
macro_rules! texts {
    ($($(#[$meta:meta])* $name:ident = $read:path),+ $(,)?) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) struct $name(pub(super) String);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                text(deserializer, $read).map(Self)
            }
        }
    )+};
}

texts! {
    /// A text that is used as it is. A number or a boolean without quotes is refused.
    Text = rules::any,
    /// Host of a route.
    Host = rules::host,
    /// Path of a route.
    Path = rules::path,
    /// Method of a route.
    Method = rules::method,
    /// Name of a header.
    HeaderName = rules::header_name,
    /// Name of an environment variable.
    VariableName = rules::variable_name,
    /// Name that is a DNS label.
    Label = rules::label,
    /// Label of a key-value store.
    StoreLabel = rules::store_label,
    /// Entry of `spec.egress.allow`, in canonical form.
    Target = rules::target,
    /// Name of a function.
    Name = rules::name,
}

/// Duration between `MIN` and `MAX` milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span<const MIN: u64, const MAX: u64>(pub(super) u64);

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Span<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = |text: &str| match text.parse::<Duration>().map(Duration::as_millis) {
            Ok(millis) if (MIN..=MAX).contains(&millis) => Ok(Self(millis)),
            Ok(_) => Err(format!(
                "write a duration from {} to {}",
                Duration::from_millis(MIN),
                Duration::from_millis(MAX)
            )),
            Err(_) => Err("write a duration such as 250ms, 5s, 1m30s or 2h".to_owned()),
        };
        text(deserializer, read)
    }
}

/// Size between `MIN` and `MAX` bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size<const MIN: u64, const MAX: u64>(pub(super) u64);

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Size<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = |text: &str| match text.parse::<Quantity>().map(Quantity::as_bytes) {
            Ok(bytes) if (MIN..=MAX).contains(&bytes) => Ok(Self(bytes)),
            Ok(_) => Err(format!(
                "write a size from {} to {}",
                Quantity::from_bytes(MIN),
                Quantity::from_bytes(MAX)
            )),
            Err(_) => Err("write a size such as 64Mi, 1.5Gi or 500k".to_owned()),
        };
        text(deserializer, read)
    }
}

/// Why a text that may also be `Auto` is refused.
enum Refusal {
    Form(String),
    Bounds(String),
}

/// A text in whose place `Auto` may be written.
trait Form: Sized {
    fn read(text: &str) -> Result<Self, Refusal>;
}

/// Percentage between `MIN` and `MAX` basis points (1/10,000).
#[derive(Clone, Copy, Debug)]
pub(super) struct Share<const MIN: u32, const MAX: u32>(pub(super) u32);

impl<const MIN: u32, const MAX: u32> Form for Share<MIN, MAX> {
    fn read(text: &str) -> Result<Self, Refusal> {
        match text.parse::<Percentage>().map(Percentage::as_parts) {
            Ok(parts) if (MIN..=MAX).contains(&parts) => Ok(Self(parts)),
            Ok(_) => Err(Refusal::Bounds(format!(
                "write a percentage from {}% to {}%",
                f64::from(MIN) / 100.0,
                f64::from(MAX) / 100.0
            ))),
            Err(_) => Err(Refusal::Form(
                "write a percentage with at most two decimals, such as 5% or 0.25%".to_owned(),
            )),
        }
    }
}

/// Number between `MIN` and `MAX`, written as a text because it may have decimals.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decimal<const MIN: u32, const MAX: u32>(pub(super) f64);

impl<const MIN: u32, const MAX: u32> Form for Decimal<MIN, MAX> {
    fn read(text: &str) -> Result<Self, Refusal> {
        match text.parse::<Number>().map(Number::get) {
            Ok(value) if (f64::from(MIN)..=f64::from(MAX)).contains(&value) => Ok(Self(value)),
            Ok(_) | Err(_) => Err(Refusal::Form(format!(
                "write a number from {MIN} to {MAX} in quotes, such as \"1.5\""
            ))),
        }
    }
}

macro_rules! forms {
    ($($name:ident),+) => {$(
        impl<'de, const MIN: u32, const MAX: u32> Deserialize<'de> for $name<MIN, MAX> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let read = |text: &str| match Self::read(text) {
                    Ok(value) => Ok(value),
                    Err(Refusal::Form(why) | Refusal::Bounds(why)) => Err(why),
                };
                text(deserializer, read)
            }
        }
    )+};
}

forms!(Share, Decimal);

/// A value, or `Auto`.
#[derive(Clone, Copy, Debug)]
pub(super) enum AutoOr<T> {
    Auto,
    Value(T),
}

impl<'de, T: Form> Deserialize<'de> for AutoOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = |text: &str| match T::read(text) {
            _ if text == "Auto" => Ok(Self::Auto),
            Ok(value) => Ok(Self::Value(value)),
            Err(Refusal::Form(why)) => Err(format!("{why}, or Auto")),
            Err(Refusal::Bounds(why)) => Err(why),
        };
        text(deserializer, read)
    }
}

/// Number between `MIN` and `MAX`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Count<const MIN: u32, const MAX: u32>(pub(super) u32);

impl<'de, const MIN: u32, const MAX: u32> Deserialize<'de> for Count<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_u64(CountVisitor::<MIN, MAX>)
    }
}

struct CountVisitor<const MIN: u32, const MAX: u32>;

impl<const MIN: u32, const MAX: u32> Visitor<'_> for CountVisitor<MIN, MAX> {
    type Value = Count<MIN, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a number from {MIN} to {MAX}")
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        match u32::try_from(value) {
            Ok(count) if (MIN..=MAX).contains(&count) => Ok(Count(count)),
            _ => Err(E::custom(format!(
                "{value}: write a number from {MIN} to {MAX}"
            ))),
        }
    }
}
