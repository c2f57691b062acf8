//! JSON without repeated keys. Most readers keep only the last value of a key, and ignore the others without a word.

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// Why a text is refused.
pub enum Refused {
    /// It is not JSON.
    Malformed(serde_json::Error),
    /// An object has this key more than once.
    Repeated(String),
}

/// Reads one JSON value.
///
/// # Errors
/// When the text is not JSON, or an object has a key twice.
pub fn parse(bytes: &[u8]) -> Result<Value, Refused> {
    let mut repeated = None;
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Unique(&mut repeated).deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    value.map_err(|e| repeated.map_or(Refused::Malformed(e), Refused::Repeated))
}

/// Builds a value. A key that repeats is stored here.
struct Unique<'a>(&'a mut Option<String>);

impl<'de> DeserializeSeed<'de> for Unique<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = seq.next_element_seed(Unique(self.0))? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if object.contains_key(&key) {
                *self.0 = Some(key);
                return Err(A::Error::custom("a key repeats"));
            }
            object.insert(key, map.next_value_seed(Unique(self.0))?);
        }
        Ok(Value::Object(object))
    }
}
