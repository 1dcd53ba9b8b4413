//! Reads server-sent events, as the HTML standard defines them, from chunks of bytes.

use crate::fault::Fault;

/// The longest event. The last one of OpenAI has the whole answer.
pub(crate) const MAX_EVENT_BYTES: usize = 8 * 1024 * 1024;
/// All events of one answer, with their names and repetitions. Only one is in memory at a time.
pub(crate) const MAX_STREAM_BYTES: usize = 64 * 1024 * 1024;

/// May come before the first line.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A stream of events that is being read. A line ends with LF, CR or both.
#[derive(Default)]
pub(crate) struct Events {
    has_begun: bool,
    /// The last byte was CR, so LF belongs to the same end of a line.
    after_cr: bool,
    /// The line that is not complete yet.
    line: Vec<u8>,
    /// The data of the event that is not complete yet.
    data: Vec<u8>,
    has_data: bool,
    received: usize,
}

impl Events {
    /// Adds a chunk, and calls `on_event` with the data of each event that it completes.
    pub(crate) fn push(
        &mut self,
        chunk: &[u8],
        mut on_event: impl FnMut(&[u8]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.received = self.received.saturating_add(chunk.len());
        if self.received > MAX_STREAM_BYTES {
            return Err(too_long(MAX_STREAM_BYTES));
        }
        for part in chunk.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            if std::mem::replace(&mut self.after_cr, part.ends_with(b"\r")) && part == b"\n" {
                continue;
            }
            if self.line.len() + self.data.len() + part.len() > MAX_EVENT_BYTES {
                return Err(too_long(MAX_EVENT_BYTES));
            }
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") || part.ends_with(b"\r") {
                let mut line = std::mem::take(&mut self.line);
                self.end_line(&line, &mut on_event)?;
                // Keep the allocation.
                line.clear();
                self.line = line;
            }
        }
        Ok(())
    }

    fn end_line(&mut self, line: &[u8], on_event: &mut impl FnMut(&[u8]) -> Result<(), Fault>) -> Result<(), Fault> {
        let line = line.strip_suffix(b"\n").or_else(|| line.strip_suffix(b"\r")).unwrap_or(line);
        let is_later = std::mem::replace(&mut self.has_begun, true);
        let line = line.strip_prefix(BYTE_ORDER_MARK).filter(|_| !is_later).unwrap_or(line);
        if line.is_empty() {
            let data = std::mem::take(&mut self.data);
            return if std::mem::take(&mut self.has_data) { on_event(&data) } else { Ok(()) };
        }
        // Names, ids and comments do not matter: every provider repeats the name in the data.
        let data = match line.strip_prefix(b"data") {
            Some([]) => &[][..],
            Some([b':', b' ', data @ ..] | [b':', data @ ..]) => data,
            _ => return Ok(()),
        };
        if self.has_data {
            self.data.push(b'\n');
        }
        self.has_data = true;
        self.data.extend_from_slice(data);
        Ok(())
    }
}

fn too_long(max_bytes: usize) -> Fault {
    Fault::unusable(format!("the answer is longer than {max_bytes} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] =
        b": hello\nevent: a\ndata: {\"a\":1}\nid: 7\n\ndata:x\r\ndata: y\r\n\r\n\ndata\n\nretry: 1\n\ndata: cut off\n";

    fn events(chunks: &[&[u8]]) -> Vec<String> {
        let (mut events, mut seen) = (Events::default(), Vec::new());
        for chunk in chunks {
            let keep = |data: &[u8]| {
                seen.push(String::from_utf8(data.to_vec()).unwrap());
                Ok(())
            };
            events.push(chunk, keep).unwrap();
        }
        seen
    }

    #[test]
    fn events_are_the_same_however_they_are_split() {
        let expected = ["{\"a\":1}", "x\ny", ""];
        assert_eq!(events(&[STREAM]), expected);
        for at in 0..STREAM.len() {
            assert_eq!(events(&[&STREAM[..at], &STREAM[at..]]), expected, "{at}");
        }
        let bytes: Vec<_> = STREAM.chunks(1).collect();
        assert_eq!(events(&bytes), expected);
    }

    #[test]
    fn a_line_ends_with_lf_or_cr_or_both_and_one_byte_order_mark_is_skipped() {
        let lines = ["data: a", "", "data: b", "data: c", "", ""];
        for end in ["\n", "\r", "\r\n"] {
            let stream = format!("\u{feff}{}", lines.join(end));
            for at in 0..=stream.len() {
                let (start, rest) = stream.as_bytes().split_at(at);
                assert_eq!(events(&[start, rest]), ["a", "b\nc"], "{end:?} {at}");
            }
        }
        assert_eq!(events(&["\u{feff}\u{feff}data: a\n\ndata: b\n\n".as_bytes()]), ["b"], "the second is a name's");
    }

    #[test]
    fn an_event_and_a_stream_have_a_longest_length() {
        let mut long = Events::default();
        let chunk = vec![b'x'; 1 << 20];
        assert_eq!((0..9).filter(|_| long.push(&chunk, |_| Ok(())).is_ok()).count(), 8);
        let mut many = Events::default();
        let chunk = b": comment\n\n".repeat(1 << 16);
        assert!((0..100).any(|_| many.push(&chunk, |_| Ok(())).is_err()));
    }
}
