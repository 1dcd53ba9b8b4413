//! What happens next: the one tinted band of a page.

use maud::{Markup, html};

use super::icon::{Look, icon};

/// A sentence, its reason and its first action, in the colour of a state.
pub(super) struct Next {
    pub look: Look,
    pub lead: Markup,
    pub more: Option<Markup>,
    pub action: Option<Markup>,
}

pub(super) fn next(next: &Next) -> Markup {
    let Look { symbol, tone, .. } = next.look;
    html! {
        section class={ "next " (tone) } aria-label="What happens next" data-region="next" {
            (icon(symbol, tone))
            div {
                p.lead { (next.lead) }
                @if let Some(more) = &next.more { p.more { (more) } }
            }
            @if let Some(action) = &next.action { div.actions { (action) } }
        }
    }
}
