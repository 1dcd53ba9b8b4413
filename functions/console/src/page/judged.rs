//! What was judged, by which definition, and what isolated the command, in words.

use maud::{Markup, html};

use super::evidence::Links;
use super::format;
use super::parts::fold;
use super::source::visible;
use crate::evidence::{Base, Command, Definition, Digest, Evidence, Install, Sandbox};

/// Renders the sections.
pub(super) fn judged(evidence: &Evidence, links: &Links) -> Markup {
    let log = links.log.as_deref();
    html! {
        section.section aria-labelledby="judged" {
            div.title { h2 #judged { "What was judged" } }
            dl.pairs {
                @if let Some(tree) = evidence.subject.as_ref().and_then(|subject| subject.tree.as_ref()) {
                    dt { "Tree" } dd { (digest(tree)) }
                }
                @if let Some(archive) = evidence.subject.as_ref().and_then(|subject| subject.archive.as_ref()) {
                    dt { "Archive" } dd { code { "sha256 " (visible(archive)) } }
                }
                dt { "Compared with" } dd { (base(&evidence.base)) }
                @if let Some(definition) = &evidence.definition { (definition_of(definition)) }
                @if let Some(href) = &links.document {
                    dt { "Evidence" } dd { a href=(href) { "the document, its signature and its lineage" } }
                }
                @for (path, sha256) in &evidence.locks { dt { "Lockfile" } dd { code { (visible(path)) } div.note { code { "sha256 " (visible(sha256)) } } } }
            }
        }
        section.section aria-labelledby="ran" {
            div.title { h2 #ran { "How it ran" } }
            @match &evidence.command {
                None => p.note { "No command ran." },
                Some(command) => (command_of(command, log, evidence.verdict != "passed")),
            }
            dl.pairs {
                @if let Some(install) = &evidence.install { dt { "Dependencies" } dd { (install_of(install)) } }
                @if !evidence.toolchain.is_empty() {
                    dt { "Tools" }
                    dd.facts { @for (name, version) in &evidence.toolchain { span { (visible(name)) " " (visible(version)) } } }
                }
                @for report in &evidence.reports {
                    dt { "Report" } dd { (visible(&report.format)) ", " code { (visible(&report.path)) } ", " (outcome(&report.outcome)) }
                }
                @if let Some(sandbox) = &evidence.sandbox { dt { "Sandbox" } dd { (sandbox_of(sandbox)) } }
            }
        }
    }
}

fn digest(tree: &Digest) -> Markup {
    html! { code { (visible(&tree.sha1)) } div.note { code { "sha256 " (visible(&tree.sha256)) } } }
}

fn base(base: &Base) -> Markup {
    let by = match base.given_by.as_str() {
        "plan" => "The plan names it.",
        "step" => "The step names it.",
        "policy" => "The configuration names it.",
        "caller" => "The caller named it.",
        _ => return html! { "nothing: no base was given" },
    };
    html! {
        @if let Some(tree) = &base.tree { (digest(tree)) }
        div.note { (by) }
        @if let Some(origin) = &base.origin {
            div.note {
                "Fetched from " (visible(&origin.repository)) ": commit " code { (visible(&origin.commit)) }
                @if let Some(branch) = &origin.branch { " (default branch " (visible(branch)) ")" }
            }
        }
    }
}

fn definition_of(definition: &Definition) -> Markup {
    let whose = match definition.source.as_str() {
        "base" => "The base's: the change under test has no say in it.",
        "candidate" => "The change's own, because there was no base.",
        "approved" => "The change's own: a person let the difference from the base's pass.",
        _ => "",
    };
    html! {
        dt { "Definition" }
        dd {
            (whose) " " code { (visible(&definition.file)) }
            div.note { code { "sha256 " (visible(&definition.digest)) } }
            @if definition.severity == "warning" { div { "Its findings are warnings and do not fail the gate." } }
        }
        @if !definition.command.is_empty() {
            dt { "Command" }
            dd { @for word in &definition.command { code.word { (visible(word)) } " " } }
        }
        @let numbers: Vec<_> = definition.thresholds.iter().filter(|(_, value)| value.is_number()).collect();
        @if !numbers.is_empty() {
            dt { "Thresholds" } dd.facts { @for (name, value) in numbers { span { (visible(name)) " " (value) } } }
        }
    }
}

fn command_of(command: &Command, log: Option<&str>, is_open: bool) -> Markup {
    let output = &command.output;
    let printed = html! {
        @if let Some(head) = &output.head {
            (printed("The beginning of the output", head))
            p.note { "⋯ " @match log { Some(log) => a href=(log) { "the log has the rest" }, None => "the log has the rest" } }
        }
        (printed(if output.head.is_some() { "The end of the output" } else { "Output" }, &output.tail))
    };
    let parts = if output.head.is_some() { ", the beginning and the end" } else { "" };
    html! {
        p {
            @if command.timed_out { "The command ran out of time and was stopped." }
            @else if let Some(signal) = command.signal { "The signal " (signal) " ended the command." }
            @else if let Some(code) = command.exit_code { "The command ended with status " strong { (code) } "." }
            @else { "The command did not end by itself." }
        }
        @if output.bytes == 0 { p.note { "It printed nothing." } }
        @else { (fold("What it printed", format!("{}{parts}", format::size(output.bytes)), is_open, &printed)) }
    }
}

/// A text that scrolls with the keyboard too.
fn printed(label: &str, text: &str) -> Markup {
    html! { pre.output tabindex="0" role="region" aria-label=(label) { (visible(text)) } }
}

fn install_of(install: &Install) -> Markup {
    let what = install.ecosystem.as_deref().map(visible).unwrap_or_default();
    html! {
        @match install.how.as_str() {
            "none" => "none were needed",
            "stored" => { "from " (what) ", kept from an earlier installation, " (format::duration(install.ms)) }
            "fresh" => { "from " (what) ", installed for this run, " (format::duration(install.ms)) }
            other => (visible(other)),
        }
    }
}

fn outcome(outcome: &str) -> &str {
    match outcome {
        "read" => "read",
        "missing" => "the command did not write it",
        "unparsable" => "cannot be read",
        "stale" => "this run did not write it",
        "unmatched" => "about files that are not in the workspace",
        _ => "unknown",
    }
}

fn sandbox_of(sandbox: &Sandbox) -> Markup {
    let strength = match sandbox.level.as_str() {
        "namespaces" => "Strong: the command saw its own processes, files and network, and nothing else of the host.",
        "landlock" => "Medium: Landlock and a filter of system calls kept the command to its own files.",
        "limits" => "Weak: only limits and a user of its own. The command could read what every user of the host can.",
        _ => "Unknown.",
    };
    let network = match sandbox.network.as_str() {
        "none" => "No network: internet sockets were refused.",
        "private_loopback" => "No network but a loopback of its own.",
        "open" => "The network was open.",
        _ => "The network is unknown.",
    };
    let parts = [
        (!sandbox.namespaces.is_empty(), format!("namespaces: {}", sandbox.namespaces.join(", "))),
        (sandbox.landlock_abi.is_some(), format!("Landlock {}", sandbox.landlock_abi.unwrap_or(0))),
        (sandbox.seccomp, "filter of system calls".to_owned()),
        (sandbox.own_uid, "user of its own".to_owned()),
        (sandbox.no_new_privs, "no new privileges".to_owned()),
        (sandbox.capabilities_dropped, "no capabilities".to_owned()),
    ];
    let limits = &sandbox.limits;
    html! {
        p { (strength) } p { (network) }
        p.facts.note { @for (_, text) in parts.iter().filter(|(is, _)| *is) { span { (visible(text)) } } }
        p.facts.note {
            @if let Some(bytes) = limits.memory_bytes { span { "at most " (format::size(bytes)) " of memory" } }
            @if let Some(count) = limits.processes { span { (count) " processes" } }
            @if let Some(bytes) = limits.disk_bytes { span { (format::size(bytes)) " of disk" } }
        }
        @if sandbox.killed_at_end > 0 { p { (sandbox.killed_at_end) " processes still ran at the end. All were killed." } }
        @for missing in &sandbox.not_in_force { p.warn-text { "Not in force: " (visible(missing)) } }
    }
}
