//! Symbols, and how states look: a shape, a word and a colour for each.

use std::fmt::Display;

use maud::{Markup, PreEscaped, html};

/// All symbols. A page has them once, and every icon refers to one.
const SYMBOLS: &str = include_str!("../../assets/symbols.svg");

/// The drawings that [`icon`] refers to.
pub(super) fn symbols() -> Markup {
    PreEscaped(SYMBOLS.to_owned())
}

/// How a state looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    pub symbol: &'static str,
    /// The class of its colour.
    pub tone: &'static str,
    pub word: &'static str,
}

/// The look of a state of a run, a step, an attempt or a decided gate. See [`PENDING_GATE`] for a pending one.
pub(super) fn look(status: impl Display) -> Look {
    let (symbol, tone, word) = match status.to_string().as_str() {
        "succeeded" => ("good", "good", "succeeded"),
        "passed" => ("good", "good", "passed"),
        "failed" => ("bad", "bad", "failed"),
        "expired" => ("bad", "bad", "expired"),
        "running" => ("busy", "busy", "running"),
        "blocked" => ("decide", "warn", "waits for a person"),
        "paused" => ("paused", "warn", "paused"),
        "waived" => ("waived", "warn", "waived"),
        "queued" => ("ready", "quiet", "queued"),
        "ready" => ("ready", "quiet", "ready"),
        "skipped" => ("skipped", "quiet", "skipped"),
        "cancelled" => ("cancelled", "quiet", "cancelled"),
        "lost" => ("lost", "bad", "worker lost"),
        _ => ("pending", "quiet", "pending"),
    };
    Look { symbol, tone, word }
}

/// A gate that nobody has decided. A pending step only waits for other steps, so it looks different.
pub(super) const PENDING_GATE: Look = Look { symbol: "decide", tone: "warn", word: "waits for a person" };

/// A symbol beside words. It carries no meaning of its own.
pub(super) fn icon(symbol: &str, tone: &str) -> Markup {
    html! { svg class={ "icon " (tone) @if symbol == "busy" { " turn" } } aria-hidden="true" { use href={ "#i-" (symbol) }; } }
}

/// The symbol of a state that stands alone, with its word for screen readers.
pub(super) fn mark(look: Look) -> Markup {
    html! {
        svg class={ "icon " (look.tone) @if look.symbol == "busy" { " turn" } } role="img" aria-label=(look.word) {
            use href={ "#i-" (look.symbol) };
        }
    }
}

/// The symbol and the word of a state.
pub(super) fn state(look: Look) -> Markup {
    html! { span.state { (icon(look.symbol, look.tone)) span { (look.word) } } }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [&str; 14] = [
        "succeeded",
        "passed",
        "failed",
        "expired",
        "running",
        "blocked",
        "paused",
        "waived",
        "queued",
        "ready",
        "skipped",
        "cancelled",
        "lost",
        "pending",
    ];

    #[test]
    fn every_state_has_a_symbol_that_exists() {
        for status in STATES {
            let look = look(status);
            assert!(SYMBOLS.contains(&format!("id=\"i-{}\"", look.symbol)), "{status}");
            assert!(status == "blocked" || look.word.contains(status), "{status} is shown as {}", look.word);
        }
    }

    #[test]
    fn states_that_differ_for_a_reader_differ_without_colours() {
        for (one, other) in [("succeeded", "failed"), ("blocked", "paused"), ("ready", "pending"), ("lost", "failed")] {
            assert_ne!(look(one).symbol, look(other).symbol);
        }
    }
}
