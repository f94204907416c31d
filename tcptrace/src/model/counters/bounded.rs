//! Reads counters from a trace, which may contain anything.

use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::Values;

/// Names kept at most: kernels have about 200.
const MOST: usize = 1024;
/// No counter of the kernel has a longer name.
const LONGEST: usize = 64;

/// Takes names that can be a counter's, up to [`MOST`] of them, and skips the rest.
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

/// Whether this can be the name of a kernel counter.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= LONGEST && name.bytes().all(|byte| byte.is_ascii_graphic())
}
