//! What a policy says about models, in words.

use maud::{Markup, html};
use shared::domain::MicroUsd;
use shared::domain::model_policy::ModelPolicy;

use super::parts::many;
use super::policy::Row;
use super::source::visible;

/// Entries of a list that are shown.
const ENTRIES: usize = 10;

/// Words, field, value and meaning of each rule.
pub(super) fn rows(models: &ModelPolicy) -> [Row; 6] {
    let order = models.order.iter().map(|(kind, providers)| format!("{kind}: {}", providers.join(", ")));
    let prices = models.prices.iter().map(|price| format!("{}/{}", price.provider, price.model));
    let allowed = match &models.allow {
        None => "every model may be asked".to_owned(),
        Some(allowed) => {
            format!("only {} may be asked", many(allowed.len() as u64, "provider or model", "providers or models"))
        }
    };
    let table = match models.prices.len() {
        0 => "prices are those of the release".to_owned(),
        count => format!("{} of the tenant replace those of the release", many(count as u64, "price", "prices")),
    };
    let ordered = if models.order.is_empty() {
        "the deployment says who is asked first"
    } else {
        "the first that can answer is asked"
    };
    let day = budget(models.budgets.day_usd_micros, "a day (UTC)");
    let month = budget(models.budgets.month_usd_micros, "a month (UTC)");
    let kept = match models.keep_prompts {
        None => (html! { code { "none" } }, "they are not kept"),
        Some(_) => (html! { code { "a public key" } }, "they are kept, encrypted for the owner of the key"),
    };
    [
        ("Order", "models.order", list(&order.collect::<Vec<_>>()), ordered.to_owned()),
        ("Models that may be asked", "models.allow", list(models.allow.as_deref().unwrap_or_default()), allowed),
        ("Prices", "models.prices", list(&prices.collect::<Vec<_>>()), table),
        ("Budget of a day", "models.budgets.day_usd", day.0, day.1),
        ("Budget of a month", "models.budgets.month_usd", month.0, month.1),
        ("Prompts and answers", "models.keep_prompts", kept.0, kept.1.to_owned()),
    ]
}

fn budget(cap: Option<MicroUsd>, period: &str) -> (Markup, String) {
    match cap {
        None => (html! { code { "none" } }, "no limit".to_owned()),
        Some(cap) => (html! { code { (cap) } }, format!("all runs together spend at most {cap} in {period}")),
    }
}

fn list(entries: &[String]) -> Markup {
    html! {
        @if entries.is_empty() { code { "none" } }
        @for entry in entries.iter().take(ENTRIES) { code { bdi { (visible(entry)) } } br; }
        @if entries.len() > ENTRIES { span.note { "and " (entries.len() - ENTRIES) " more" } }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use shared::domain::model_policy::{BUDGET_FIELDS, FIELDS};

    use super::*;

    #[test]
    fn every_field_of_models_has_words() {
        let names: BTreeSet<String> = rows(&ModelPolicy::default()).iter().map(|row| row.1.to_owned()).collect();
        let fields =
            FIELDS.iter().map(|names| names[0]).filter(|name| *name != "budgets").map(|name| format!("models.{name}"));
        let budgets = BUDGET_FIELDS.iter().map(|names| format!("models.budgets.{}", names[0]));
        assert_eq!(names, fields.chain(budgets).collect());
    }
}
