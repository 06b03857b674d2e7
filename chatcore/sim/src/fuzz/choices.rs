//! An input read as a run of small choices.

/// Bytes that decide one thing after the other. Behind their end every choice is 0, so that each
/// input means something and a shorter one means less.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    pub(super) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// A number below `count`.
    pub(super) fn below(&mut self, count: u8) -> u8 {
        self.byte().checked_rem(count).unwrap_or(0)
    }

    /// One of `items`, of which there must be some.
    pub(super) fn of<T: Copy>(&mut self, items: &[T]) -> T {
        let place = usize::from(self.byte()).checked_rem(items.len());
        *place.and_then(|place| items.get(place)).expect("there must be something to choose from")
    }

    /// Up to `count` bytes.
    pub(super) fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
