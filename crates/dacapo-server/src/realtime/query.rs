//! A filter in the query of a request: a value with commas is a list, where the filter wants one.

use serde::de::value::{Error, MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error as _, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

/// Reads a value from the names and values of a query.
pub(super) fn read<'a, T: DeserializeOwned>(
    pairs: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<T, Error> {
    let pairs = pairs.map(|(name, value)| (name, Text(value)));
    T::deserialize(MapDeserializer::new(pairs))
}

/// What it is, the type says that is read from it.
#[derive(Clone, Copy)]
struct Text<'a>(&'a str);

macro_rules! parsed {
    ($($deserialize:ident $visit:ident $type:ty,)*) => {$(
        fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self.0.parse::<$type>() {
                Ok(value) => visitor.$visit(value),
                Err(error) => Err(Error::custom(format_args!("`{:.80}`: {error}", self.0))),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Text<'de> {
    type Error = Error;

    parsed! {
        deserialize_bool visit_bool bool,
        deserialize_i8 visit_i8 i8,
        deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64,
        deserialize_i128 visit_i128 i128,
        deserialize_u8 visit_u8 u8,
        deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64,
        deserialize_u128 visit_u128 u128,
        deserialize_f32 visit_f32 f32,
        deserialize_f64 visit_f64 f64,
        deserialize_char visit_char char,
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_str(self.0)
    }

    /// `?event_types=` asks for nothing in particular.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            "" => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let parts = self.0.split(',').filter(|part| !part.is_empty());
        visitor.visit_seq(SeqDeserializer::new(parts.map(Text)))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_enum(self.0.into_deserializer())
    }

    forward_to_deserialize_any! {
        str string bytes byte_buf unit unit_struct tuple_struct map struct identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de> for Text<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Default, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        #[default]
        Created,
        Deleted,
    }

    #[derive(Debug, PartialEq, Default, Deserialize)]
    #[serde(default)]
    struct Wanted {
        kinds: Option<Vec<Kind>>,
        ids: Vec<i64>,
        workspace: Option<String>,
        live: bool,
    }

    fn wanted(pairs: &[(&str, &str)]) -> Result<Wanted, Error> {
        read(pairs.iter().copied())
    }

    #[test]
    fn each_field_reads_what_it_wants() {
        let pairs = [
            ("kinds", "created,deleted"),
            ("ids", "1,-2"),
            ("workspace", "a,b"),
            ("live", "true"),
            ("other", "x"),
        ];
        let expected = Wanted {
            kinds: Some(vec![Kind::Created, Kind::Deleted]),
            ids: vec![1, -2],
            workspace: Some("a,b".into()),
            live: true,
        };
        assert_eq!(wanted(&pairs).unwrap(), expected);
    }

    #[test]
    fn an_empty_value_asks_for_nothing_in_particular() {
        assert_eq!(
            wanted(&[("kinds", ""), ("ids", "")]).unwrap(),
            Wanted::default()
        );
        assert_eq!(wanted(&[]).unwrap(), Wanted::default());
    }

    #[test]
    fn what_is_none_of_the_type_is_an_error_that_shows_it() {
        let error = wanted(&[("ids", "1,two")]).unwrap_err();
        assert_eq!(error.to_string(), "`two`: invalid digit found in string");
        let error = wanted(&[("kinds", "updated")]).unwrap_err();
        assert!(
            error.to_string().contains("unknown variant `updated`"),
            "{error}"
        );
    }
}
