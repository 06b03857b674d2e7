//! A list that cannot be a bomb.

use core::fmt;
use core::marker::PhantomData;
use core::ops::Deref;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// The most items a list on the wire may hold.
pub const LIST_MAX: usize = 256;

/// At most [`LIST_MAX`] items.
///
/// Items have a size, checked when the program is compiled: five bytes could otherwise claim four
/// thousand million items of nothing and keep a decoder busy for seconds.
///
/// ```
/// let names = chatcore::wire::List::first_of(["ana", "bob"]);
/// assert_eq!(names.len(), 2);
/// ```
///
/// ```compile_fail,E0080
/// let nothings = chatcore::wire::List::first_of([(), ()]);
/// ```
///
/// ```compile_fail,E0080
/// let nothings = serde_json::from_str::<chatcore::wire::List<()>>("[]");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct List<T>(Vec<T>);

impl<T> List<T> {
    const ITEMS_HAVE_A_SIZE: () = assert!(size_of::<T>() > 0, "a list item must have a size");

    /// The first [`LIST_MAX`] of `items`.
    pub fn first_of(items: impl IntoIterator<Item = T>) -> Self {
        let () = Self::ITEMS_HAVE_A_SIZE;
        Self(items.into_iter().take(LIST_MAX).collect())
    }

    /// The items themselves.
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self::first_of([])
    }
}

impl<T> Deref for List<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        let () = Self::ITEMS_HAVE_A_SIZE;
        source.deserialize_seq(ListVisitor(PhantomData))
    }
}

struct ListVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
    type Value = List<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {LIST_MAX} items")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut source: A) -> Result<List<T>, A::Error> {
        // The claimed length is a peer's word: memory grows with items that really came.
        let mut items = Vec::new();
        while let Some(item) = source.next_element()? {
            if items.len() == LIST_MAX {
                return Err(A::Error::custom("too many items"));
            }
            items.push(item);
        }
        Ok(List(items))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a10_list_claiming_four_thousand_million_items_fails_at_once() {
        let bomb = [0xFF, 0xFF, 0xFF, 0xFF, 0x0F];
        assert!(postcard::from_bytes::<List<u64>>(&bomb).is_err());
    }

    #[test]
    fn a13_list_of_257_items_is_refused_and_of_256_is_not() {
        let most = postcard::to_allocvec(&vec![1_u8; LIST_MAX]).unwrap();
        assert_eq!(postcard::from_bytes::<List<u8>>(&most).unwrap().len(), LIST_MAX);
        let more = postcard::to_allocvec(&vec![1_u8; LIST_MAX + 1]).unwrap();
        assert!(postcard::from_bytes::<List<u8>>(&more).is_err());
    }
}
