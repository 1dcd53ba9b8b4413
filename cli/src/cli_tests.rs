use std::collections::BTreeSet;

use super::*;

#[test]
fn the_help_lists_every_command_once() {
    let command = command();
    let names: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
    let listed: BTreeSet<&str> = names.iter().copied().collect();
    assert_eq!(names.len(), listed.len(), "a command is listed twice");
    let known: BTreeSet<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
    assert_eq!(listed, known);
}

#[test]
fn the_command_line_is_consistent() {
    command().debug_assert();
}

#[test]
fn a_wrong_command_gets_a_suggestion() {
    for stranger in ["bogus", "secret", "audit"] {
        let error = suggested(command().try_get_matches_from(["nofx", stranger]).unwrap_err()).to_string();
        assert!(!error.contains("similar"), "{stranger} is no slip of the fingers: {error}");
    }
    for (wrong, meant) in [("aprove", "approve"), ("timelin", "timeline"), ("inbx", "inbox"), ("cancle", "cancel")] {
        let error = suggested(command().try_get_matches_from(["nofx", wrong]).unwrap_err()).to_string();
        assert!(error.contains(&format!("a similar subcommand exists: '{meant}'")), "{error}");
    }
}

#[test]
fn a_word_of_another_tool_gets_ours() {
    let command = command();
    for (ours, theirs) in SYNONYMS {
        assert!(command.find_subcommand(ours).is_some(), "{ours}");
        for word in theirs {
            assert!(command.find_subcommand(word).is_none(), "{word} is a command");
            let error = command.clone().try_get_matches_from(["nofx", word, "x"]).unwrap_err();
            let text = suggested(error).to_string();
            assert!(text.contains(&format!("'{ours}'")), "{word}: {text}");
        }
    }
    let error = command.clone().try_get_matches_from(["nofx", "plan", "status"]).unwrap_err();
    assert!(!suggested(error).to_string().contains("show"), "only the first word is a command");
}
