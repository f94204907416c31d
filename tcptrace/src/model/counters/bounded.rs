//! Counters as a trace has them, which may be anything.

use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::Values;

/// So many are kept at most: kernels have about 200.
const MOST: usize = 1024;
/// No name of the kernel is longer.
const LONGEST: usize = 64;

/// Takes what can be a counter's name, up to a number of them, and passes over the rest.
pub(super) fn values<'de, D: Deserializer<'de>>(from: D) -> Result<Values, D::Error> {
    from.deserialize_map(Few)
}

struct Few;

impl<'de> Visitor<'de> for Few {
    type Value = Values;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("numbers by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Values, A::Error> {
        let mut values = Values::new();
        while let Some(name) = map.next_key::<String>()? {
            if is_name(&name) && values.len() < MOST {
                values.insert(name.into_boxed_str(), map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(values)
    }
}

/// Whether the kernel could call a counter that.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= LONGEST && name.bytes().all(|byte| byte.is_ascii_graphic())
}
