//! Markdown as markup. Its text may come from a model or from tested code, so no HTML, no image and no link of it reaches
//! the page, and the result is bounded.

mod left_out;

use std::borrow::Cow;
use std::fmt::Write;

use maud::{Escaper, Markup, PreEscaped};
use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, LinkType, Options, Parser, Tag, TagEnd};

use super::source::visible;
use left_out::Coverage;
pub(super) use left_out::LeftOut;

/// No more events are shown once the markup has this many bytes.
const MARKUP_BYTES: usize = 512 << 10;
/// Elements inside each other. Deeper ones show only their text.
const DEPTH: usize = 24;
/// Characters of an address or a title that is shown beside its text, and of the words beside the start of a code block.
const ADDRESS: usize = 500;
/// Characters of a table's heading that label the cells below it on a narrow screen.
const LABEL: usize = 40;

/// Rendered markdown.
#[derive(Debug)]
pub(super) struct Markdown {
    pub markup: Markup,
    /// What it does not show, up to where it ends.
    pub left_out: LeftOut,
    /// Whether the end is missing.
    pub is_cut: bool,
}

/// Renders text. The page around it has a heading of the second level.
pub(super) fn markdown(text: &str) -> Markdown {
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    let mut writer = Writer { heading: 2, ..Writer::default() };
    let mut is_cut = false;
    let mut coverage = Coverage::new(text);
    let mut events = Parser::new_ext(text, options).into_offset_iter();
    while let Some((event, range)) = events.next() {
        is_cut = writer.html.len() > MARKUP_BYTES;
        if is_cut {
            break;
        }
        coverage.event(&event, range, events.reference_definitions());
        writer.event(event);
    }
    while let Some(end) = writer.open.pop() {
        writer.html.push_str(&end);
    }
    // Nothing is known about what follows a cut.
    let left_out = if is_cut { writer.left_out } else { coverage.left_out(writer.left_out) };
    Markdown { markup: PreEscaped(writer.html), left_out, is_cut }
}

#[derive(Default)]
struct Writer {
    html: String,
    /// What ends each element that is open. Empty for one that is not shown.
    open: Vec<Cow<'static, str>>,
    /// The level of the last heading.
    heading: u8,
    /// Where the text of each open link starts, its escaped address, and its escaped title.
    links: Vec<(usize, String, String)>,
    left_out: LeftOut,
    table: Table,
}

/// The table that is open.
#[derive(Default)]
struct Table {
    headings: Vec<String>,
    is_head: bool,
    column: usize,
}

impl Writer {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) | Event::InlineMath(text) | Event::DisplayMath(text) | Event::FootnoteReference(text) => {
                self.text(&text);
            }
            Event::Code(text) => {
                self.html.push_str("<code>");
                self.text(&text);
                self.html.push_str("</code>");
            }
            Event::SoftBreak => self.html.push('\n'),
            Event::HardBreak => self.html.push_str("<br>"),
            Event::Rule => self.html.push_str("<hr>"),
            Event::TaskListMarker(is_done) => self.html.push_str(if is_done { "☑ " } else { "☐ " }),
            Event::InlineHtml(tag) if is_line_break(&tag) => self.html.push_str("<br>"),
            Event::InlineHtml(_) => self.left_out.html += 1,
            // The lines of a block, which `start` counts.
            Event::Html(_) => {}
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        // No item without its list, and no cell without its row and its table.
        let height = match tag {
            Tag::Table(_) => 4,
            Tag::TableHead | Tag::TableRow => 3,
            Tag::TableCell | Tag::List(_) => 2,
            _ => 1,
        };
        if self.open.len() + height > DEPTH {
            self.open.push(Cow::Borrowed(""));
            return;
        }
        let (start, end): (Cow<'static, str>, Cow<'static, str>) = match tag {
            Tag::Paragraph => ("<p>".into(), "</p>".into()),
            Tag::Heading { level, .. } => self.heading(level),
            Tag::BlockQuote(_) => ("<blockquote>".into(), "</blockquote>".into()),
            Tag::CodeBlock(CodeBlockKind::Fenced(info)) if !info.is_empty() => {
                let info = escaped(&shortened(&info, ADDRESS));
                (format!("<p class=\"note\"><code>{info}</code></p><pre class=\"output\">").into(), "</pre>".into())
            }
            Tag::CodeBlock(_) => ("<pre class=\"output\">".into(), "</pre>".into()),
            Tag::List(None) => ("<ul>".into(), "</ul>".into()),
            Tag::List(Some(first)) => (format!("<ol start=\"{first}\">").into(), "</ol>".into()),
            Tag::Item => ("<li>".into(), "</li>".into()),
            Tag::Table(_) => {
                self.table = Table::default();
                ("<table class=\"table\">".into(), "</tbody></table>".into())
            }
            Tag::TableHead => {
                self.table.is_head = true;
                ("<thead><tr>".into(), "</tr></thead><tbody>".into())
            }
            Tag::TableRow => {
                self.table.column = 0;
                ("<tr>".into(), "</tr>".into())
            }
            Tag::TableCell => self.cell(),
            Tag::Emphasis => ("<em>".into(), "</em>".into()),
            Tag::Strong => ("<strong>".into(), "</strong>".into()),
            Tag::Strikethrough => ("<del>".into(), "</del>".into()),
            Tag::Link { link_type, dest_url, title, .. } => {
                let is_in_text = matches!(link_type, LinkType::Autolink | LinkType::Email) || dest_url.starts_with('#');
                let address = if is_in_text { String::new() } else { escaped(&shortened(&dest_url, ADDRESS)) };
                self.links.push((self.html.len(), address, escaped(&shortened(&title, ADDRESS))));
                ("".into(), "".into())
            }
            Tag::Image { .. } => {
                self.left_out.images += 1;
                ("<span class=\"note\">[image: ".into(), "]</span>".into())
            }
            Tag::HtmlBlock => {
                self.left_out.html += 1;
                ("".into(), "".into())
            }
            // Extensions that are off.
            _ => ("".into(), "".into()),
        };
        self.html.push_str(&start);
        self.open.push(end);
    }

    fn end(&mut self, tag: TagEnd) {
        if tag == TagEnd::Link
            && let Some((from, address, title)) = self.links.pop()
        {
            let is_in_text = self.html.get(from..) == Some(&address);
            let address =
                if address.is_empty() || is_in_text { String::new() } else { format!("<code>{address}</code>") };
            let title = if title.is_empty() { String::new() } else { format!("“{title}”") };
            let parts: Vec<String> = [address, title].into_iter().filter(|part| !part.is_empty()).collect();
            if !parts.is_empty() {
                let _ = write!(self.html, " <span class=\"note\">({})</span>", parts.join(" "));
            }
        }
        self.html.push_str(&self.open.pop().unwrap_or_default());
        match tag {
            TagEnd::TableHead => self.table.is_head = false,
            TagEnd::TableCell => self.table.column += 1,
            _ => {}
        }
    }

    /// Headings start below the page's own, and no level is left out on the way down.
    fn heading(&mut self, level: HeadingLevel) -> (Cow<'static, str>, Cow<'static, str>) {
        self.heading = (level as u8 + 2).min(self.heading + 1).min(6);
        (format!("<h{}>", self.heading).into(), format!("</h{}>", self.heading).into())
    }

    fn cell(&mut self) -> (Cow<'static, str>, Cow<'static, str>) {
        if self.table.is_head {
            self.table.headings.push(String::new());
            return ("<th scope=\"col\">".into(), "</th>".into());
        }
        let label = self.table.headings.get(self.table.column).map_or("", String::as_str);
        (format!("<td data-label=\"{}\">", escaped(&shortened(label, LABEL))).into(), "</td>".into())
    }

    fn text(&mut self, text: &str) {
        if let (true, Some(heading)) = (self.table.is_head, self.table.headings.last_mut())
            && heading.len() < LABEL
        {
            heading.push_str(text);
        }
        self.html.push_str(&escaped(text));
    }
}

/// `<br>`, the only tag that tables cannot do without.
fn is_line_break(tag: &str) -> bool {
    let name = tag.trim_start_matches('<').trim_end_matches('>').trim_end_matches('/').trim_end();
    name.eq_ignore_ascii_case("br")
}

fn shortened(text: &str, most: usize) -> Cow<'_, str> {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

/// Text in which every character can be seen, for the inside of an element or an attribute.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    // Writing to a String cannot fail.
    let _ = Escaper::new(&mut escaped).write_str(&visible(text));
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn html(text: &str) -> String {
        markdown(text).markup.into_string()
    }

    #[test]
    fn common_marks_are_elements() {
        let text = "# Title\n\nOne *two* **three** ~~four~~ `five`.\n\n1. a\n2. b\n\n- [x] c\n- [ ] d\n\n> e\n\n---\n\n```sh\nx < y\n```\n";
        let expected = "<h3>Title</h3><p>One <em>two</em> <strong>three</strong> <del>four</del> <code>five</code>.</p>\
                        <ol start=\"1\"><li>a</li><li>b</li></ol><ul><li>☑ c</li><li>☐ d</li></ul>\
                        <blockquote><p>e</p></blockquote><hr><p class=\"note\"><code>sh</code></p><pre class=\"output\">x &lt; y\n</pre>";
        assert_eq!(html(text), expected);
    }

    #[test]
    fn html_and_images_are_left_out_and_counted() {
        let text = "<script>alert(1)</script>\n\na <b onclick=x>bold</b> ![a picture](http://x.test/y.png \"t\")<br/>b\n\n<!-- c -->\n";
        let found = markdown(text);
        let expected = "<p>a bold <span class=\"note\">[image: a picture]</span><br>b</p>";
        assert_eq!(found.markup.into_string(), expected);
        assert_eq!(found.left_out, LeftOut { html: 4, images: 1, ..LeftOut::default() });
    }

    #[test]
    fn a_link_is_its_text_with_its_address() {
        let address = |address| format!(" <span class=\"note\">(<code>{address}</code>)</span>");
        let cases = [
            ("[a](javascript:alert(1))", format!("<p>a{}</p>", address("javascript:alert(1)"))),
            ("[a](<\"><script>>)", "<p>[a](&lt;&quot;&gt;&gt;)</p>".to_owned()),
            ("[a][1]\n\n[1]: http://x.test/?a&b", format!("<p>a{}</p>", address("http://x.test/?a&amp;b"))),
            (
                "[a](http://x.test \"all <b>\") [up](#top 't')",
                "<p>a <span class=\"note\">(<code>http://x.test</code> “all &lt;b&gt;”)</span> up <span class=\"note\">(“t”)</span></p>".to_owned(),
            ),
            ("[http://x.test](http://x.test) <https://y.test>", "<p>http://x.test https://y.test</p>".to_owned()),
            ("[up](#top)", "<p>up</p>".to_owned()),
        ];
        for (text, expected) in cases {
            assert_eq!(html(text), expected, "{text}");
        }
        assert!(!html(&format!("[a](http://x.test/{})", "y".repeat(10_000))).contains(&"y".repeat(1_000)));
    }

    #[test]
    fn no_level_of_headings_is_left_out() {
        let levels = html("### a\n\n# b\n\n###### c\n\n## d\n\n# e");
        assert_eq!(levels, "<h3>a</h3><h3>b</h3><h4>c</h4><h4>d</h4><h3>e</h3>");
    }

    #[test]
    fn cells_of_a_table_know_their_heading() {
        let text = "| a | `b\"` |\n|---|---|\n| 1 | 2 |\n| 3 |\n";
        let expected = "<table class=\"table\"><thead><tr><th scope=\"col\">a</th><th scope=\"col\"><code>b&quot;</code></th></tr></thead>\
                        <tbody><tr><td data-label=\"a\">1</td><td data-label=\"b&quot;\">2</td></tr>\
                        <tr><td data-label=\"a\">3</td><td data-label=\"b&quot;\"></td></tr></tbody></table>";
        assert_eq!(html(text), expected);
    }

    #[test]
    fn text_cannot_hide_or_change_its_direction() {
        let shown = html("a\u{202e}b `c\u{200b}` [d](http://x\u{2066})\u{1b}");
        for hidden in ['\u{202e}', '\u{200b}', '\u{2066}', '\u{1b}'] {
            assert!(!shown.contains(hidden) && shown.contains(&format!("⟨U+{:04X}⟩", u32::from(hidden))), "{shown}");
        }
    }

    /// Every element that starts also ends, in the reverse order.
    fn assert_balanced(html: &str) {
        let mut open = Vec::new();
        for tag in html.split('<').skip(1).filter_map(|rest| rest.split(['>', ' ']).next()) {
            match tag.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name)),
                None if matches!(tag, "br" | "hr") => {}
                None => open.push(tag),
            }
        }
        assert_eq!(open, Vec::<&str>::new());
    }

    #[test]
    fn hostile_input_is_bounded_and_stays_well_formed() {
        let k = 64 << 10;
        let wide = format!("{}\n{}\n{}", "|a".repeat(500), "|-".repeat(500), "|\n".repeat(20_000));
        let cases = [
            "> ".repeat(k / 2),
            "- ".repeat(k / 2),
            "*a **b ".repeat(k / 7),
            "[".repeat(k),
            "![a](".repeat(k / 5),
            "`".repeat(k),
            "<a ".repeat(k / 3),
            "|".repeat(k),
            "# a\n".repeat(k / 4),
            format!("[a]: http://x.test/{}\n\n{}", "y".repeat(10_000), "[a] ".repeat(10_000)),
            format!("{}|a|\n{0}|-|\n{0}|b|\n", "> ".repeat(21)),
            wide,
        ];
        for text in cases {
            let found = markdown(&text);
            let html = found.markup.into_string();
            assert!(html.len() < MARKUP_BYTES + (128 << 10), "{:.40} has {} bytes", text, html.len());
            assert_balanced(&html);
        }
        let long = markdown(&"- a\n".repeat(200_000));
        assert!(long.is_cut && !markdown("a").is_cut);
    }
}
