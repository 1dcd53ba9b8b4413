//! Drawings of a lineage, as text for Graphviz and Mermaid. Names of artifacts and steps come from people and models.

use std::collections::HashMap;
use std::fmt::Write;

use super::{Lineage, LineageNode};
use crate::domain::ArtifactId;
use crate::domain::hidden;

/// Characters of a name that a drawing shows.
const NAME_CHARS: usize = 60;

impl Lineage {
    /// For Graphviz: `dot -Tsvg`.
    pub fn to_dot(&self) -> String {
        let mut text = "digraph lineage {\n  rankdir=LR;\n  node [shape=note];\n".to_owned();
        let quoted = |text: &str| shown(text).replace('\\', "\\\\").replace('"', "\\\"");
        for (at, node) in self.nodes.iter().enumerate() {
            let style = match (node.is_gone(), node.step_id) {
                (true, _) => ", style=dotted, fontcolor=gray40",
                (false, None) => ", style=dashed",
                (false, Some(_)) => "",
            };
            let (name, made_by) = (quoted(&node.name), quoted(node.made_by()));
            let storage = node.storage_words().map(|words| format!("\\n{}", quoted(&words))).unwrap_or_default();
            let _ = writeln!(text, "  a{at} [label=\"{name}\\n{made_by}{storage}\"{style}];");
        }
        for (from, to) in self.pairs() {
            let _ = writeln!(text, "  a{from} -> a{to};");
        }
        text.push_str("}\n");
        text
    }

    /// For Markdown on GitHub and GitLab.
    pub fn to_mermaid(&self) -> String {
        let mut text = "flowchart LR\n".to_owned();
        for (at, node) in self.nodes.iter().enumerate() {
            let (open, close) = if node.step_id.is_none() { ("([", "])") } else { ("[", "]") };
            let (name, made_by) = (entities(&node.name), entities(node.made_by()));
            let storage = node.storage_words().map(|words| format!("<br>{}", entities(&words))).unwrap_or_default();
            let _ = writeln!(text, "  a{at}{open}\"{name}<br>{made_by}{storage}\"{close}");
        }
        for (from, to) in self.pairs() {
            let _ = writeln!(text, "  a{from} --> a{to}");
        }
        text
    }

    /// Edges as positions of nodes.
    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> {
        let at: HashMap<ArtifactId, usize> = self.nodes.iter().enumerate().map(|(at, node)| (node.id, at)).collect();
        self.edges.iter().filter_map(move |edge| Some((*at.get(&edge.from)?, *at.get(&edge.to)?)))
    }
}

impl LineageNode {
    /// Whether its bytes are deleted.
    pub fn is_gone(&self) -> bool {
        self.storage.as_ref().is_some_and(|storage| storage.state.is_gone())
    }

    /// Where its bytes are, if they cannot be read at once: `deleted 2026-12-01 by ann`, `archived`.
    pub fn storage_words(&self) -> Option<String> {
        let storage = self.storage.as_ref()?;
        if storage.state.is_gone() {
            let day = storage.since.0.get(..10).unwrap_or_default();
            let by = storage.actor.as_deref().map(|actor| format!(" by {actor}")).unwrap_or_default();
            return Some(format!("deleted {day}{by}"));
        }
        Some(storage.state).filter(|state| !state.is_readable()).map(|state| state.as_str().to_owned())
    }

    /// The step that made it.
    pub fn made_by(&self) -> &str {
        self.step.as_deref().unwrap_or("uploaded")
    }
}

/// The beginning of a name, with hidden characters escaped, on one line.
fn shown(text: &str) -> String {
    let mut shown = String::new();
    for (at, (character, is_hidden)) in hidden::characters(text).enumerate() {
        if at == NAME_CHARS {
            shown.push('…');
            break;
        }
        if character.is_control() || is_hidden {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Mermaid has entity codes instead of escapes. It reads Markdown and HTML in names, so everything else than letters, digits
/// and some harmless signs is written as a code.
fn entities(text: &str) -> String {
    let mut written = String::new();
    for character in shown(text).chars() {
        if character.is_alphanumeric() || " -_./,:+@…".contains(character) {
            written.push(character);
        } else {
            let _ = write!(written, "#{};", u32::from(character));
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::{RunId, StepId};
    use crate::view::LineageEdge;

    fn lineage(names: &[(&str, Option<&str>)]) -> Lineage {
        let id = |number: usize| ArtifactId(Uuid::from_u128(number as u128));
        let node = |(at, (name, step)): (usize, &(&str, Option<&str>))| LineageNode {
            id: id(at),
            run_id: None,
            step_id: step.map(|_| StepId(Uuid::from_u128(9))),
            step: step.map(str::to_owned),
            attempt: None,
            name: (*name).to_owned(),
            kind: "text".into(),
            hash: String::new(),
            storage: None,
        };
        let edges = (1..names.len()).map(|at| LineageEdge { from: id(at - 1), to: id(at) });
        let edges = edges.chain([LineageEdge { from: id(77), to: id(0) }]).collect();
        let nodes = names.iter().enumerate().map(node).collect();
        Lineage { run_id: RunId(Uuid::from_u128(1)), nodes, edges, truncated: false }
    }

    #[test]
    fn drawings_have_every_artifact_and_edge() {
        let lineage = lineage(&[("site.tar.gz", None), ("README.md", Some("write"))]);
        assert_eq!(
            lineage.to_dot(),
            "digraph lineage {\n  rankdir=LR;\n  node [shape=note];\n  a0 [label=\"site.tar.gz\\nuploaded\", style=dashed];\n  \
             a1 [label=\"README.md\\nwrite\"];\n  a0 -> a1;\n}\n"
        );
        let mermaid = lineage.to_mermaid();
        assert_eq!(
            mermaid,
            "flowchart LR\n  a0([\"site.tar.gz<br>uploaded\"])\n  a1[\"README.md<br>write\"]\n  a0 --> a1\n"
        );
    }

    #[test]
    fn a_deleted_artifact_stays_in_the_drawing_as_a_tombstone() {
        let mut drawn = lineage(&[("site.tar.gz", None), ("README.md", Some("write"))]);
        let storage = |state: &str| {
            let since = "2026-12-01T10:00:00+00:00";
            serde_json::from_value(serde_json::json!({"state": state, "since": since, "actor": "a\"<b>"})).ok()
        };
        drawn.nodes[0].storage = storage("deleted");
        drawn.nodes[1].storage = storage("archived");
        let (dot, mermaid) = (drawn.to_dot(), drawn.to_mermaid());
        let tombstone =
            "a0 [label=\"site.tar.gz\\nuploaded\\ndeleted 2026-12-01 by a\\\"<b>\", style=dotted, fontcolor=gray40];";
        assert!(dot.contains(tombstone), "{dot}");
        assert!(dot.contains("a1 [label=\"README.md\\nwrite\\narchived\"];\n  a0 -> a1;"), "{dot}");
        assert!(mermaid.contains("<br>deleted 2026-12-01 by a#34;#60;b#62;\"])"), "{mermaid}");
        drawn.nodes[1].storage = storage("restored");
        assert!(drawn.to_dot().contains("write\"];"), "what can be read needs no words");
    }

    #[test]
    fn a_hostile_name_stays_a_name() {
        let hostile = "\"];\n} evil <script>`x`**y** \\\" \u{202e}#quot; %% end click a0";
        let lineage = lineage(&[(hostile, Some(hostile)), (&"é".repeat(500), None)]);
        let (dot, mermaid) = (lineage.to_dot(), lineage.to_mermaid());
        // Each node is one line, and only our quotes are quotes.
        assert_eq!((dot.lines().count(), mermaid.lines().count()), (7, 4), "{dot}{mermaid}");
        let label = dot.lines().nth(3).unwrap();
        let bare = label.replace("\\\\", "").replace("\\\"", "");
        assert_eq!(bare.matches('"').count(), 2, "{label}");
        let label = mermaid.lines().nth(1).unwrap();
        assert_eq!(label.matches('"').count(), 2, "{label}");
        assert!(!label.replace("<br>", "").contains(['<', '>', '`', '*', '\\', '%', '\u{202e}']), "{label}");
        assert!(dot.len() < 1_000 && mermaid.len() < 2_000);
    }
}
