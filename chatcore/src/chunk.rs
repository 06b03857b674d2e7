//! Encoded records, once for all readers.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::codec::encode;
use crate::id::Seq;
use crate::wire::{Record, ServerFrame};

/// A run of records of one room without holes, encoded as the frames that go on the wire.
///
/// Cloning is cheap and shares the bytes: a record is encoded once, however many read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    first: Seq,
    bytes: Bytes,
    /// Where each record ends in `bytes`; empty only for an empty chunk.
    ends: Arc<[u32]>,
    /// Which of `ends` belong to this chunk: a chunk cut from another shares its `ends`.
    from: usize,
    count: usize,
}

impl Chunk {
    /// The first record.
    pub const fn first(&self) -> Seq {
        self.first
    }

    /// The last record.
    pub fn last(&self) -> Seq {
        self.first.saturating_add(to_u64(self.count)).previous()
    }

    /// The frames, one after the other.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Roughly the memory that it takes: its bytes, where each record ends, and itself.
    pub(crate) const fn cost_bytes(&self) -> usize {
        let ends = self.count.saturating_mul(size_of::<u32>());
        self.bytes.len().saturating_add(ends).saturating_add(CHUNK_BYTES)
    }

    /// How many records it holds, at least one.
    #[expect(clippy::len_without_is_empty, reason = "a chunk is never empty")]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// The records after `seq`, as many as fit in `bytes_max` but at least one; `None` when there
    /// is none after it, or when the chunk does not reach back that far.
    pub fn after(&self, seq: Seq, bytes_max: usize) -> Option<Self> {
        let first = seq.next();
        if first < self.first || first > self.last() {
            return None;
        }
        let skip = to_usize(first.since(self.first));
        let (start, base) = (self.end_of(skip), self.end_of(0));
        let limit = start.saturating_add(bytes_max);
        let ends = self.ends.get(self.from..self.from.saturating_add(self.count))?;
        let fitting = ends.partition_point(|end| to_usize(u64::from(*end)) <= limit);
        let count = fitting.saturating_sub(skip).max(1);
        let end = self.end_of(skip.saturating_add(count));
        let range = start.saturating_sub(base)..end.saturating_sub(base);
        Some(Self {
            first,
            bytes: self.bytes.slice(range),
            ends: Arc::clone(&self.ends),
            from: self.from.saturating_add(skip),
            count,
        })
    }

    /// One chunk of several that follow each other; `None` of none.
    ///
    /// # Panics
    /// When there is a hole between two of them.
    pub(crate) fn join(parts: &[Self]) -> Option<Self> {
        let [first, rest @ ..] = parts else { return None };
        if rest.is_empty() {
            return Some(first.clone());
        }
        let (mut bytes, mut ends) = (BytesMut::new(), Vec::new());
        let mut next = first.first;
        for part in parts {
            assert_eq!(part.first, next, "records of a chunk must have no hole");
            for frame in part.frames() {
                bytes.extend_from_slice(&frame);
                ends.push(end_of_last(&bytes));
            }
            next = part.last().next();
        }
        let count = ends.len();
        Some(Self { first: first.first, bytes: bytes.freeze(), ends: ends.into(), from: 0, count })
    }

    /// Each record's frame with its prefix, oldest first.
    pub fn frames(&self) -> impl DoubleEndedIterator<Item = Bytes> {
        self.frames_through(self.last())
    }

    /// The frames of the records up to `last`, oldest first.
    pub(crate) fn frames_through(&self, last: Seq) -> impl DoubleEndedIterator<Item = Bytes> {
        let base = self.end_of(0);
        let count = to_usize(last.next().since(self.first)).min(self.count);
        (0..count).map(move |place| {
            let start = self.end_of(place).saturating_sub(base);
            let end = self.end_of(place.saturating_add(1)).saturating_sub(base);
            self.bytes.slice(start..end)
        })
    }

    /// Where the first `count` records of this chunk end, counted in the bytes that `ends` is
    /// about.
    fn end_of(&self, count: usize) -> usize {
        match self.from.saturating_add(count).checked_sub(1) {
            None => 0,
            Some(place) => self.ends.get(place).map_or(0, |end| to_usize(u64::from(*end))),
        }
    }
}

/// Memory of a chunk beside its bytes and ends: the value, two allocations, and its place in the
/// engine's window.
const CHUNK_BYTES: usize = 256;

/// Records being gathered into a [`Chunk`].
#[derive(Debug)]
pub(crate) struct ChunkBuilder {
    first: Option<Seq>,
    bytes: BytesMut,
    ends: Vec<u32>,
}

impl ChunkBuilder {
    pub(crate) fn new() -> Self {
        Self { first: None, bytes: BytesMut::new(), ends: Vec::new() }
    }

    /// Bytes gathered.
    pub(crate) fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Appends a record.
    ///
    /// # Panics
    /// When it does not follow the one before.
    pub(crate) fn push(&mut self, record: Record) {
        let first = *self.first.get_or_insert(record.seq);
        let expected = first.saturating_add(to_u64(self.ends.len()));
        assert_eq!(record.seq, expected, "records of a chunk must have no hole");
        encode(&ServerFrame::Record(record), &mut self.bytes);
        self.ends.push(end_of_last(&self.bytes));
    }

    /// The chunk; `None` when nothing was pushed. The builder is empty again.
    pub(crate) fn take(&mut self) -> Option<Chunk> {
        let first = self.first.take()?;
        let ends: Arc<[u32]> = self.ends.as_slice().into();
        self.ends.clear();
        let bytes = self.bytes.split().freeze();
        Some(Chunk { first, bytes, count: ends.len(), ends, from: 0 })
    }

    /// A copy of what is gathered; `None` when nothing was pushed.
    pub(crate) fn peek(&self) -> Option<Chunk> {
        let bytes = Bytes::copy_from_slice(&self.bytes);
        let ends: Arc<[u32]> = self.ends.as_slice().into();
        Some(Chunk { first: self.first?, bytes, count: ends.len(), ends, from: 0 })
    }

    /// The chunk of these records; `None` when there is none.
    pub(crate) fn build(records: impl IntoIterator<Item = Record>) -> Option<Chunk> {
        let mut builder = Self::new();
        records.into_iter().for_each(|record| builder.push(record));
        builder.take()
    }
}

fn end_of_last(bytes: &BytesMut) -> u32 {
    u32::try_from(bytes.len()).expect("a chunk must stay below 4 GiB")
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn to_usize(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// Forgets records up to this one; how many chunks are gone as a whole.
pub(crate) fn forget_through(chunks: &mut VecDeque<Chunk>, through: Seq) -> usize {
    let gone = chunks.partition_point(|chunk| chunk.last() <= through);
    chunks.drain(..gone);
    if let Some(first) = chunks.front_mut()
        && let Some(rest) = first.after(through, usize::MAX)
    {
        *first = rest;
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{FrameBuffer, decode};
    use crate::id::Incarnation;
    use crate::time::Timestamp;
    use crate::wire::RecordBody;

    fn record(seq: u64) -> Record {
        Record {
            room: "lobby".parse().unwrap(),
            incarnation: Incarnation::ZERO.next(),
            seq: Seq::new(seq).unwrap(),
            at: Timestamp::ZERO,
            body: RecordBody::Joined { user: "ana".parse().unwrap() },
        }
    }

    fn seqs(chunk: &Chunk) -> Vec<u64> {
        let mut buffer = FrameBuffer::default();
        buffer.feed(chunk.bytes());
        let mut seqs = Vec::new();
        while let Some(frame) = buffer.next_frame().unwrap() {
            let ServerFrame::Record(record) = decode(&frame).unwrap() else { panic!("a record") };
            seqs.push(record.seq.get());
        }
        assert_eq!(seqs.len(), chunk.frames().count());
        seqs
    }

    #[test]
    fn chunk_cut_anywhere_holds_exactly_the_records_after_the_cursor() {
        let chunk = ChunkBuilder::build((5..=9).map(record)).unwrap();
        for cursor in 4..9 {
            let cut = chunk.after(Seq::new(cursor).unwrap(), usize::MAX).unwrap();
            assert_eq!(seqs(&cut), (cursor + 1..=9).collect::<Vec<_>>());
            let again = cut.after(Seq::new(8).unwrap(), usize::MAX).unwrap();
            assert_eq!(seqs(&again), [9]);
            assert_eq!((again.first(), again.last()), (again.last(), chunk.last()));
        }
        assert_eq!(chunk.after(Seq::new(9).unwrap(), usize::MAX), None);
        assert_eq!(chunk.after(Seq::new(3).unwrap(), usize::MAX), None);
    }

    #[test]
    fn chunk_cut_by_size_holds_at_least_one_record() {
        let chunk = ChunkBuilder::build((1..=4).map(record)).unwrap();
        let one = chunk.after(Seq::ZERO, 1).unwrap();
        assert_eq!(seqs(&one), [1]);
        let two = chunk.after(Seq::ZERO, one.bytes().len() * 2).unwrap();
        assert_eq!(seqs(&two), [1, 2]);
    }
}
