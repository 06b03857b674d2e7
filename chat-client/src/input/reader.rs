//! A stream cut into lines of bounded length.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _};

/// The longest line in bytes: a JSON request around the longest text, all of it escaped.
pub const LINE_BYTES_MAX: usize = 64 << 10;

/// A line as it came, without its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RawLine {
    /// Text.
    Text(String),
    /// Longer than [`LINE_BYTES_MAX`]; it was skipped to its end.
    TooLong,
    /// Not UTF-8.
    NotUtf8,
}

/// Cuts a stream into lines; a line ends with `\n` or `\r\n`, the last one also with the stream.
#[derive(Debug)]
pub struct LineReader<R> {
    stream: R,
    line: Vec<u8>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The line fits so far.
    Reading,
    /// The line is too long and nothing of it is kept.
    Skipping,
}

impl<R: AsyncBufRead + Unpin> LineReader<R> {
    /// Lines of `stream`.
    pub const fn new(stream: R) -> Self {
        Self { stream, line: Vec::new(), state: State::Reading }
    }

    /// Waits for the next line; `None` at the end. It may be dropped and called again.
    ///
    /// # Errors
    /// When the stream fails.
    pub async fn next(&mut self) -> io::Result<Option<RawLine>> {
        loop {
            let bytes = self.stream.fill_buf().await?;
            if bytes.is_empty() {
                let nothing = self.line.is_empty() && self.state == State::Reading;
                return Ok(if nothing { None } else { Some(self.take_line()) });
            }
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let part = end.map_or(bytes, |end| &bytes[..end]);
            // One byte more than the text: it may be followed by a carriage return.
            if self.line.len() + part.len() > LINE_BYTES_MAX + 1 {
                self.line.clear();
                self.state = State::Skipping;
            } else if self.state == State::Reading {
                self.line.extend_from_slice(part);
            }
            let used = part.len() + usize::from(end.is_some());
            self.stream.consume(used);
            if end.is_some() {
                return Ok(Some(self.take_line()));
            }
        }
    }

    fn take_line(&mut self) -> RawLine {
        let mut line = std::mem::take(&mut self.line);
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        let skipped = std::mem::replace(&mut self.state, State::Reading) == State::Skipping;
        if skipped || line.len() > LINE_BYTES_MAX {
            return RawLine::TooLong;
        }
        String::from_utf8(line).map_or(RawLine::NotUtf8, RawLine::Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::BufReader;

    async fn lines(bytes: &[u8], capacity: usize) -> Vec<RawLine> {
        let mut reader = LineReader::new(BufReader::with_capacity(capacity, bytes));
        let mut lines = Vec::new();
        while let Some(line) = reader.next().await.unwrap() {
            lines.push(line);
        }
        lines
    }

    fn text(line: &str) -> RawLine {
        RawLine::Text(line.to_owned())
    }

    #[tokio::test(flavor = "current_thread")]
    async fn stream_gives_the_same_lines_whatever_its_pieces() {
        let bytes = "one\r\n\ntwo\r three\né".as_bytes();
        let expected = [text("one"), text(""), text("two\r three"), text("é")];
        for capacity in 1..bytes.len() {
            assert_eq!(lines(bytes, capacity).await, expected, "{capacity}");
        }
        assert_eq!(lines(b"", 1).await, []);
        assert_eq!(lines(b"a\n", 8).await, [text("a")]);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn line_that_is_too_long_is_skipped_to_its_end() {
        let longest = "x".repeat(LINE_BYTES_MAX);
        for end in ["\n", "\r\n"] {
            let stream = format!("{longest}{end}{longest}y{end}z{end}");
            let expected = [text(&longest), RawLine::TooLong, text("z")];
            assert_eq!(lines(stream.as_bytes(), 1_000).await, expected);
        }
        let endless = "x".repeat(3 * LINE_BYTES_MAX);
        assert_eq!(lines(endless.as_bytes(), 1_000).await, [RawLine::TooLong]);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a14_invalid_utf_8_is_told_and_never_replaced() {
        assert_eq!(lines(b"a\xff\nb\n", 8).await, [RawLine::NotUtf8, text("b")]);
    }
}
