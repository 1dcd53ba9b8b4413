//! Models often put code in Markdown. It is taken out only where the artifact says that it is Markdown and there is no
//! doubt which block is meant. A file that starts with a fence otherwise is refused: nobody wants it in a workspace.

/// Files that may well start with a fence.
const TEXTS: [&str; 6] = [".md", ".mdx", ".markdown", ".qmd", ".rmd", ".txt"];

/// The content for a file at `path`, or for a patch. `media_type` is that of an artifact.
pub fn content(bytes: Vec<u8>, media_type: Option<&str>, path: Option<&str>) -> Result<Vec<u8>, String> {
    if path.is_some_and(|path| TEXTS.iter().any(|end| path.to_ascii_lowercase().ends_with(end))) {
        return Ok(bytes);
    }
    if media_type.is_some_and(|media_type| media_type.starts_with("text/markdown")) {
        let text = std::str::from_utf8(&bytes).map_err(|_| "is Markdown, but not UTF-8".to_owned())?;
        return match blocks(text)?.as_slice() {
            [block] => Ok(block.clone().into_bytes()),
            blocks => Err(format!(
                "is Markdown with {} code blocks, and must have exactly one; ask the model for one file, or give the \
                 artifact a name that does not end in .md",
                blocks.len()
            )),
        };
    }
    if bytes.trim_ascii_start().starts_with(b"```") {
        return Err(
            "starts with a Markdown fence; give the content alone, or an artifact of the type text/markdown".into()
        );
    }
    Ok(bytes)
}

/// The contents of the fenced code blocks.
fn blocks(text: &str) -> Result<Vec<String>, String> {
    let mut blocks = Vec::new();
    let mut open: Option<(char, usize, String)> = None;
    for line in text.split_inclusive('\n') {
        let trimmed = line.trim();
        let fence = trimmed.chars().next().filter(|first| matches!(first, '`' | '~'));
        let length = fence.map_or(0, |fence| trimmed.chars().take_while(|found| *found == fence).count());
        let is_indented = line.starts_with("    ") || line.starts_with('\t');
        if let Some((character, least, block)) = &mut open {
            let closes = fence == Some(*character) && length >= *least && length == trimmed.chars().count();
            if closes && !is_indented {
                blocks.push(std::mem::take(block));
                open = None;
            } else {
                block.push_str(line);
            }
            continue;
        }
        let Some(character) = fence.filter(|_| length >= 3 && !is_indented) else { continue };
        // With a further backtick it is code inside a line.
        if character == '~' || !trimmed.get(length..).unwrap_or_default().contains('`') {
            open = Some((character, length, String::new()));
        }
    }
    if open.is_some() { Err("is Markdown with a code block that does not end".to_owned()) } else { Ok(blocks) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKDOWN: Option<&str> = Some("text/markdown; charset=utf-8");

    #[test]
    fn one_block_of_markdown_is_the_content() {
        for (text, expected) in [
            ("Here it is:\n\n```ts\nexport {};\n```\n\nDone.\n", "export {};\n"),
            ("~~~\na\n```\nb\n~~~\n", "a\n```\nb\n"),
            ("````md\n```\nx\n```\n````\n", "```\nx\n```\n"),
            ("use `x` and ```inline```\n```\ny\n```", "y\n"),
        ] {
            let read = content(text.into(), MARKDOWN, Some("a.ts")).unwrap();
            assert_eq!(String::from_utf8(read).unwrap(), expected);
        }
    }

    #[test]
    fn doubtful_markdown_is_refused() {
        for (text, why) in [
            ("no code\n", "0 code blocks"),
            ("```\na\n```\n```\nb\n```\n", "2 code blocks"),
            ("```\na\n", "does not end"),
        ] {
            for path in [Some("a.ts"), None] {
                assert!(content(text.into(), MARKDOWN, path).unwrap_err().contains(why), "{text}");
            }
        }
        let fenced = "\n```ts\nx\n```\n";
        for media_type in [None, Some("text/plain; charset=utf-8")] {
            assert!(content(fenced.into(), media_type, Some("a.ts")).unwrap_err().contains("Markdown fence"));
        }
    }

    #[test]
    fn other_files_are_kept_as_they_are() {
        for (text, media_type, path) in [
            ("# Title\n```\nx\n```\n", MARKDOWN, Some("README.md")),
            ("```\nx\n```\n", None, Some("docs/a.MD")),
            ("const a = `x`;\n", Some("text/plain"), Some("a.ts")),
            ("--- a/x\n", Some("text/x-diff"), None),
        ] {
            assert_eq!(content(text.into(), media_type, path).unwrap(), text.as_bytes());
        }
    }
}
