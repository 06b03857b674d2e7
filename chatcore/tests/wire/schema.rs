//! A walk over the types that travel, as serde sees them: what a hostile frame cannot even express.
//!
//! [`walk`] decodes a type again and again from made-up values, each time along another variant,
//! until every variant of every enum below it was visited. It fails on maps, on types that describe
//! themselves, on lists of items without a size, and on a type inside itself.

use core::fmt;
use std::collections::BTreeMap;

use serde::de::value::U32Deserializer;
use serde::de::{
    self, DeserializeSeed, EnumAccess, IntoDeserializer as _, SeqAccess, VariantAccess, Visitor,
};
use serde::{Deserialize, Deserializer};

/// Types nested more deeply than this count as recursive even when they have no name.
const DEPTH_MAX: usize = 32;

/// Taking turns, a walk comes to the deepest enum after the product of the variants above it: some
/// thousand rounds.
const ROUNDS_MAX: usize = 100_000;

/// Why a type may not travel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("{0} is inside itself")]
    Recursive(&'static str),
    #[error("types are nested too deeply")]
    Deep,
    #[error("there is a map")]
    Map,
    #[error("there is a list of items without a size")]
    Unsized,
    #[error("there is a value that only a self-describing format can carry: {0}")]
    Open(&'static str),
    #[error("{0}")]
    Other(String),
}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self::Other(text.to_string())
    }
}

/// The variants of an enum, by its name.
pub(crate) type Enums = BTreeMap<&'static str, &'static [&'static str]>;

/// Every enum that a `T` may hold.
pub(crate) fn walk<T: de::DeserializeOwned>() -> Result<Enums, Fault> {
    let mut walk = Walk::default();
    for _ in 0..ROUNDS_MAX {
        T::deserialize(Probe { walk: &mut walk })?;
        if walk.is_complete() {
            return Ok(walk.enums);
        }
    }
    panic!("a walk must end");
}

#[derive(Debug, Default)]
struct Walk {
    enums: Enums,
    /// How often each variant of each enum was visited.
    visits: BTreeMap<(&'static str, usize), u32>,
    /// The named types around the present value.
    around: Vec<&'static str>,
    depth: usize,
}

impl Walk {
    fn is_complete(&self) -> bool {
        self.enums.iter().all(|(name, variants)| {
            (0..variants.len()).all(|variant| self.visits.contains_key(&(*name, variant)))
        })
    }

    /// The variant that was visited least: the walk takes turns, so that it also comes to what lies
    /// behind a variant that was visited before.
    fn turn(&mut self, name: &'static str, variants: &'static [&'static str]) -> usize {
        self.enums.insert(name, variants);
        let seen = |variant: &usize| self.visits.get(&(name, *variant)).copied().unwrap_or(0);
        let least = (0..variants.len()).min_by_key(seen).expect("an enum must have a variant");
        *self.visits.entry((name, least)).or_default() += 1;
        least
    }
}

/// Decodes made-up values.
struct Probe<'a> {
    walk: &'a mut Walk,
}

impl Probe<'_> {
    /// Goes into a type, unless the walk is inside it already.
    fn inside<T>(
        self,
        name: Option<&'static str>,
        value: impl FnOnce(&mut Walk) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let walk = self.walk;
        if let Some(name) = name.filter(|name| walk.around.contains(name)) {
            return Err(Fault::Recursive(name));
        }
        if walk.depth == DEPTH_MAX {
            return Err(Fault::Deep);
        }
        walk.depth += 1;
        walk.around.extend(name);
        let value = value(walk);
        walk.depth -= 1;
        walk.around.truncate(walk.around.len() - usize::from(name.is_some()));
        value
    }
}

macro_rules! made_up {
    ($($method:ident $visit:ident $value:expr,)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            visitor.$visit($value)
        })*
    };
}

macro_rules! open {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Fault> {
            Err(Fault::Open(stringify!($method)))
        })*
    };
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Fault;

    // Values that every checked type accepts: `a` is a name and a body, 1 is no threshold of zero.
    made_up! {
        deserialize_bool visit_bool true,
        deserialize_i8 visit_i8 1,
        deserialize_i16 visit_i16 1,
        deserialize_i32 visit_i32 1,
        deserialize_i64 visit_i64 1,
        deserialize_u8 visit_u8 1,
        deserialize_u16 visit_u16 1,
        deserialize_u32 visit_u32 1,
        deserialize_u64 visit_u64 1,
        deserialize_f32 visit_f32 1.0,
        deserialize_f64 visit_f64 1.0,
        deserialize_char visit_char 'a',
        deserialize_str visit_str "a",
        deserialize_string visit_str "a",
        deserialize_bytes visit_bytes b"a",
        deserialize_byte_buf visit_bytes b"a",
    }

    open! { deserialize_any deserialize_identifier deserialize_ignored_any }

    fn is_human_readable(&self) -> bool {
        false
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.inside(None, |walk| visitor.visit_some(Probe { walk }))
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.inside(Some(name), |walk| visitor.visit_newtype_struct(Probe { walk }))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.inside(None, |walk| visitor.visit_seq(Items { walk, left: 1 }))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Fault> {
        self.inside(None, |walk| visitor.visit_seq(Fields(Items { walk, left: len })))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.inside(Some(name), |walk| visitor.visit_seq(Fields(Items { walk, left: len })))
    }

    fn deserialize_map<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Fault> {
        Err(Fault::Map)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_tuple_struct(name, fields.len(), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.inside(Some(name), |walk| {
            let variant = walk.turn(name, variants);
            visitor.visit_enum(Chosen { walk, variant: u32::try_from(variant).unwrap() })
        })
    }
}

/// One item of a list.
struct Items<'a> {
    walk: &'a mut Walk,
    left: usize,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        if size_of::<T::Value>() == 0 {
            return Err(Fault::Unsized);
        }
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(Probe { walk: self.walk }).map(Some)
    }
}

/// The fields of a struct: their number is not a peer's to choose, so they need no size.
struct Fields<'a>(Items<'a>);

impl<'de> SeqAccess<'de> for Fields<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        let Items { walk, left } = &mut self.0;
        if *left == 0 {
            return Ok(None);
        }
        *left -= 1;
        seed.deserialize(Probe { walk }).map(Some)
    }
}

/// The variant whose turn it is.
struct Chosen<'a> {
    walk: &'a mut Walk,
    variant: u32,
}

impl<'de, 'a> EnumAccess<'de> for Chosen<'a> {
    type Error = Fault;
    type Variant = Probe<'a>;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Probe<'a>), Fault> {
        let number: U32Deserializer<Fault> = self.variant.into_deserializer();
        Ok((seed.deserialize(number)?, Probe { walk: self.walk }))
    }
}

impl<'de> VariantAccess<'de> for Probe<'_> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        self.inside(None, |walk| seed.deserialize(Probe { walk }))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_tuple(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_tuple(fields.len(), visitor)
    }
}

mod tests {
    use super::*;
    use crate::variants::ENUMS;
    use chatcore::migration::directory::{DirectoryReply, DirectoryRequest};
    use chatcore::wire::{ClientFrame, ServerFrame};

    #[test]
    fn a12_no_type_that_travels_is_recursive_or_open() {
        let mut enums = walk::<ClientFrame>().unwrap();
        enums.extend(walk::<ServerFrame>().unwrap());
        enums.extend(walk::<DirectoryRequest>().unwrap());
        enums.extend(walk::<DirectoryReply>().unwrap());
        let named: Enums = ENUMS.iter().copied().collect();
        assert_eq!(enums, named, "an enum that travels is missing among the golden frames");
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only its shape matters")]
    enum Tree {
        Leaf,
        Node(Box<Self>),
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only its shape matters")]
    struct Chain {
        next: Option<Box<Self>>,
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only its shape matters")]
    struct Nest(Vec<Self>);

    /// Recursive without a name that serde would tell.
    #[derive(Debug)]
    struct Nameless;

    impl<'de> Deserialize<'de> for Nameless {
        fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
            Option::<Box<Self>>::deserialize(source).map(|_| Self)
        }
    }

    #[test]
    fn a12_a_recursive_type_would_be_found() {
        assert_eq!(walk::<Tree>().unwrap_err(), Fault::Recursive("Tree"));
        assert_eq!(walk::<Chain>().unwrap_err(), Fault::Recursive("Chain"));
        assert_eq!(walk::<Nest>().unwrap_err(), Fault::Recursive("Nest"));
        assert_eq!(walk::<Nameless>().unwrap_err(), Fault::Deep);
        assert_eq!(walk::<(u8, Option<Tree>)>().unwrap_err(), Fault::Recursive("Tree"));
    }

    #[test]
    fn a11_a_list_of_items_without_a_size_would_be_found() {
        assert_eq!(walk::<Vec<()>>().unwrap_err(), Fault::Unsized);
        assert_eq!(walk::<Option<(u8, Vec<[u8; 0]>)>>().unwrap_err(), Fault::Unsized);
    }

    #[test]
    fn a7_a_map_and_a_self_describing_value_would_be_found() {
        assert_eq!(walk::<BTreeMap<u8, u8>>().unwrap_err(), Fault::Map);
        let open = walk::<serde_json::Value>().unwrap_err();
        assert_eq!(open, Fault::Open("deserialize_any"));
    }
}
