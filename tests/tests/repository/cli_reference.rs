//! docs/cli.md has the help of every command. `UPDATE=1` writes it.

use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

use nofx::cli::{GROUPS, command};

const START: &str = "<!-- The command line prints what follows: make openapi writes it. -->\n";
/// Columns of a help text.
const WIDTH: usize = 100;

/// The help of a command and of its subcommands, each in a section.
fn sections(name: &str, command: &clap::Command, level: usize, text: &mut String) {
    // A lone command has no global options: the first section lists them.
    let help = command.clone().bin_name(name).term_width(WIDTH).disable_help_subcommand(true).render_help().to_string();
    let _ = write!(text, "\n{} {name}\n\n```text\n{}\n```\n", "#".repeat(level), help.trim_end());
    for sub in command.get_subcommands() {
        sections(&format!("{name} {}", sub.get_name()), sub, level + 1, text);
    }
}

fn reference() -> String {
    let whole = command();
    let help = whole.clone().term_width(WIDTH).render_help().to_string();
    let mut text = format!("{START}\n```text\n{}\n```\n", help.trim_end());
    for name in GROUPS.iter().flat_map(|(_, names)| names.iter()) {
        let sub = whole.find_subcommand(name).expect("a command of the help");
        sections(&format!("nofx {name}"), sub, 3, &mut text);
    }
    text
}

#[test]
fn the_page_of_the_command_has_its_help() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
    let page = fs::read_to_string(&path).expect("the page");
    let prose = page.split(START).next().expect("the prose");
    let expected = format!("{prose}{}", reference());
    if env::var_os("UPDATE").is_some() {
        fs::write(&path, expected).expect("write the page");
        return;
    }
    assert!(page.contains(START), "docs/cli.md has no reference");
    assert!(page == expected, "docs/cli.md differs from the command line; run `make openapi`");
}
