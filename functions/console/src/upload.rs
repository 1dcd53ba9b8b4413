//! Forms with files (RFC 7578), read as a whole: the router has bounded their size.

use std::collections::BTreeMap;
use std::convert::Infallible;

use axum::body::Bytes;
use axum::http::{HeaderMap, header};
use futures::stream;
use multer::{Constraints, Multipart, parse_boundary};
use shared::error::Error;
use shared::http::{header_text, shown};

/// A form with files.
#[derive(Debug, Default)]
pub struct Upload {
    fields: BTreeMap<String, String>,
    files: BTreeMap<String, File>,
}

/// A file of a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// As the browser names it: short, and without control characters.
    pub name: String,
    pub bytes: Vec<u8>,
}

impl Upload {
    /// Reads a form that has some of these fields and files, each at most once. A file without a name and bytes is a
    /// field that was left empty.
    pub async fn read(headers: &HeaderMap, body: Bytes, fields: &[&str], files: &[&str]) -> Result<Self, Error> {
        let unreadable = |_| Error::invalid("", "the form cannot be read");
        let boundary = header_text(headers, header::CONTENT_TYPE.as_str()).unwrap_or_default();
        let boundary = parse_boundary(boundary).map_err(unreadable)?;
        let known: Vec<&str> = fields.iter().chain(files).copied().collect();
        let constraints = Constraints::new().allowed_fields(known);
        let body = stream::iter([Ok::<_, Infallible>(body)]);
        let mut parts = Multipart::with_constraints(body, boundary, constraints);
        let mut upload = Self::default();
        while let Some(part) = parts.next_field().await.map_err(unreadable)? {
            let name = part.name().unwrap_or_default().to_owned();
            let file_name = part.file_name().map(str::to_owned);
            let bytes = part.bytes().await.map_err(unreadable)?;
            let is_repeated = if files.contains(&name.as_str()) {
                upload.add_file(&name, &file_name.unwrap_or_default(), &bytes)
            } else {
                upload.add_field(&name, &bytes)?
            };
            if is_repeated {
                return Err(Error::invalid(shown(&name, 100), "is given more than once"));
            }
        }
        Ok(upload)
    }

    /// A field's text. Empty if the field is absent.
    pub fn text(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    /// Takes a file out of the form.
    pub fn take_file(&mut self, name: &str) -> Option<File> {
        self.files.remove(name)
    }

    fn add_file(&mut self, field: &str, name: &str, bytes: &[u8]) -> bool {
        if name.is_empty() && bytes.is_empty() {
            return false;
        }
        let name = if name.is_empty() { "file".to_owned() } else { shown(name, 200) };
        self.files.insert(field.to_owned(), File { name, bytes: bytes.to_vec() }).is_some()
    }

    fn add_field(&mut self, name: &str, bytes: &[u8]) -> Result<bool, Error> {
        let text = std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
        let text = text.ok_or_else(|| Error::invalid(shown(name, 100), "is not UTF-8 text"))?;
        // Browsers send a line break as CR LF.
        Ok(self.fields.insert(name.to_owned(), text.replace("\r\n", "\n")).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: &[&str] = &["plan", "actor"];
    const FILES: &[&str] = &["workspace"];

    async fn read(parts: &[(&str, &[u8])]) -> Result<Upload, Error> {
        let mut body = Vec::new();
        for (disposition, bytes) in parts {
            body.extend(format!("--XX\r\nContent-Disposition: form-data; {disposition}\r\n\r\n").bytes());
            body.extend(*bytes);
            body.extend(b"\r\n");
        }
        body.extend(b"--XX--\r\n");
        let headers = HeaderMap::from_iter([(
            header::CONTENT_TYPE,
            "multipart/form-data; boundary=XX".parse().expect("a header"),
        )]);
        Upload::read(&headers, body.into(), FIELDS, FILES).await
    }

    #[tokio::test]
    async fn fields_and_files_are_read_and_an_empty_file_is_none() {
        let archive = [0x1f, 0x8b, 0, 0xff, b'\r', b'\n', b'-', b'-'];
        let mut upload = read(&[
            ("name=\"plan\"", b"a\r\nb: \xc3\xbc"),
            ("name=\"workspace\"; filename=\"w\u{202e}.tar.gz\"", &archive),
        ])
        .await
        .unwrap();
        assert_eq!((upload.text("plan"), upload.text("actor")), ("a\nb: ü", ""));
        let file = File { name: "w\u{202e}.tar.gz".into(), bytes: archive.to_vec() };
        assert_eq!(upload.take_file("workspace"), Some(file));
        let mut empty = read(&[("name=\"workspace\"; filename=\"\"", b"")]).await.unwrap();
        assert_eq!(empty.take_file("workspace"), None);
    }

    #[tokio::test]
    async fn other_forms_are_refused() {
        let cases: [&[(&str, &[u8])]; 6] = [
            &[("name=\"else\"", b"x")],
            &[("name=\"plan\"", b"x"), ("name=\"plan\"", b"y")],
            &[("name=\"plan\"", b"\xff")],
            &[("name=\"plan\"", b"\0")],
            &[("filename=\"x\"", b"x")],
            &[("name=\"workspace\"; filename=\"a\"", b"x"), ("name=\"workspace\"; filename=\"b\"", b"y")],
        ];
        for parts in cases {
            assert!(read(parts).await.is_err(), "{parts:?}");
        }
        let no_boundary =
            HeaderMap::from_iter([(header::CONTENT_TYPE, "multipart/form-data".parse().expect("a header"))]);
        assert!(Upload::read(&no_boundary, Bytes::new(), FIELDS, FILES).await.is_err());
        let cut = HeaderMap::from_iter([(
            header::CONTENT_TYPE,
            "multipart/form-data; boundary=XX".parse().expect("a header"),
        )]);
        let body = Bytes::from_static(b"--XX\r\nContent-Disposition: form-data; name=\"plan\"\r\n\r\nhalf");
        assert!(Upload::read(&cut, body, FIELDS, FILES).await.is_err());
    }
}
