//! What the bytes of an artifact are, as far as a page can show them. The bytes decide: whoever stored them chose their name
//! and media type.

/// What a page can show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Markdown(String),
    Json(String),
    Text(String),
    Image(Image),
    /// A tar archive, perhaps compressed with gzip.
    Archive,
    /// What else it is, in words.
    Other(&'static str),
}

/// A picture that browsers show without running anything of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image {
    pub media_type: &'static str,
    /// Width and height in pixels, if they are easy to find and not absurd: a page reserves that much room.
    pub size: Option<(u32, u32)>,
}

/// Pixels of a picture's longer side.
const LARGEST_SIDE: u32 = 16_384;

impl Content {
    /// Reads the bytes of an artifact, or its first bytes if it is not `is_whole`.
    pub fn of(bytes: &[u8], is_whole: bool, media_type: &str, name: &str) -> Self {
        if let Some(image) = Image::of(bytes) {
            return Self::Image(image);
        }
        if bytes.starts_with(b"\x1f\x8b") || bytes.get(257..262) == Some(b"ustar") {
            return Self::Archive;
        }
        if let Some((_, words)) = OTHERS.iter().find(|(start, _)| bytes.starts_with(start)) {
            return Self::Other(words);
        }
        let Some(text) = text(bytes, is_whole) else { return Self::Other("neither text nor a picture") };
        let media_type = media_type.split(';').next().unwrap_or_default().trim();
        let ends = |end: &str| name.len() > end.len() && name.to_ascii_lowercase().ends_with(end);
        if media_type == "text/markdown" || ends(".md") || ends(".markdown") {
            return Self::Markdown(text);
        }
        let says_json = media_type == "application/json" || media_type.ends_with("+json") || ends(".json");
        if says_json && is_json(&text, is_whole) { Self::Json(text) } else { Self::Text(text) }
    }
}

impl Image {
    /// Reads the first bytes of a picture. An SVG is text: it can hold scripts.
    fn of(bytes: &[u8]) -> Option<Self> {
        let is_plausible =
            |(width, height): &(u32, u32)| (1..=LARGEST_SIDE).contains(width) && (1..=LARGEST_SIDE).contains(height);
        let known = |media_type, size: Option<_>| Some(Self { media_type, size: size.filter(is_plausible) });
        let number = |range: std::ops::Range<usize>, is_big: bool| {
            let read = |sum: u32, byte: &u8| (sum << 8) | u32::from(*byte);
            let bytes = bytes.get(range)?;
            Some(if is_big { bytes.iter().fold(0, read) } else { bytes.iter().rev().fold(0, read) })
        };
        match bytes {
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => {
                known("image/png", number(16..20, true).zip(number(20..24, true)))
            }
            [0xff, 0xd8, 0xff, ..] => known("image/jpeg", None),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => {
                known("image/gif", number(6..8, false).zip(number(8..10, false)))
            }
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => known("image/webp", None),
            _ => None,
        }
    }
}

/// How files start that pages do not show.
const OTHERS: [(&[u8], &str); 7] = [
    (b"PK\x03\x04", "a zip archive"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (b"\xfd7zXZ\0", "compressed with xz"),
    (b"BZh", "compressed with bzip2"),
    (b"%PDF-", "a PDF document"),
    (b"\x7fELF", "a program"),
];

/// UTF-8 without NUL. A character that the end of a part cuts is left out.
fn text(bytes: &[u8], is_whole: bool) -> Option<String> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) if !is_whole && error.error_len().is_none() => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    (!text.contains('\0')).then(|| text.to_owned())
}

fn is_json(text: &str, is_whole: bool) -> bool {
    if is_whole {
        return serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    }
    text.trim_start().starts_with(['{', '['])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Content {
        Content::of(bytes, true, "image/svg+xml", "a.png")
    }

    #[test]
    fn only_the_bytes_make_a_picture() {
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x02\x80\0\0\0\xf0";
        assert_eq!(of(png), Content::Image(Image { media_type: "image/png", size: Some((640, 240)) }));
        assert_eq!(
            of(b"GIF89a\x10\0\x02\x01"),
            Content::Image(Image { media_type: "image/gif", size: Some((16, 258)) })
        );
        for claimed in [b"\xff\xff\xff\xff\0\0\0\x01", b"\0\0\0\x01\0\0\x40\x01", b"\0\0\0\0\0\0\0\x01"] {
            let bytes = [&png[..16], claimed].concat();
            assert_eq!(of(&bytes), Content::Image(Image { media_type: "image/png", size: None }), "{claimed:?}");
        }
        assert_eq!(of(b"\xff\xd8\xff\xe0"), Content::Image(Image { media_type: "image/jpeg", size: None }));
        assert_eq!(of(b"RIFF\0\0\0\0WEBPVP8 "), Content::Image(Image { media_type: "image/webp", size: None }));
        assert_eq!(of(b"\x89PNG\r\n\x1a\n"), Content::Image(Image { media_type: "image/png", size: None }));
        for other in ["<svg xmlns='http://www.w3.org/2000/svg'/>", "<html><script>", "P6 1 1", ""] {
            assert_eq!(of(other.as_bytes()), Content::Text(other.into()));
        }
    }

    #[test]
    fn archives_and_other_bytes_have_no_text() {
        let mut tar = vec![b'a'; 512];
        tar[257..262].copy_from_slice(b"ustar");
        for archive in [b"\x1f\x8b\x08".to_vec(), tar] {
            assert_eq!(of(&archive), Content::Archive);
        }
        assert_eq!(of(b"PK\x03\x04"), Content::Other("a zip archive"));
        assert_eq!(of(b"%PDF-1.7"), Content::Other("a PDF document"));
        for binary in [b"a\0b".as_slice(), b"\xff\xfe", b"a\xc3", b"a\xff"] {
            assert_eq!(of(binary), Content::Other("neither text nor a picture"));
        }
    }

    #[test]
    fn a_part_may_end_inside_of_a_character_or_a_document() {
        let part = |bytes: &[u8], name| Content::of(bytes, false, "text/plain", name);
        assert_eq!(part(b"a\xc3", "a.txt"), Content::Text("a".into()));
        assert!(matches!(part(b"a\xffb", "a.txt"), Content::Other(_)));
        assert_eq!(part(b" {\"a\": [1,", "a.JSON"), Content::Json(" {\"a\": [1,".into()));
        assert_eq!(Content::of(b"{\"a\"", true, "application/json", "a"), Content::Text("{\"a\"".into()));
        assert_eq!(Content::of(b"7", true, "application/ld+json; a=b", "a"), Content::Json("7".into()));
        assert_eq!(part(b"# a", "a.md"), Content::Markdown("# a".into()));
        assert_eq!(part(b"# a", ".md"), Content::Text("# a".into()));
    }
}
