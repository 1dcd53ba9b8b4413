use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use nofx_sandbox::{Exit, Identity, Level, SandboxError, give, host};

use crate::{Workspace, closed_levels, levels, printed, run_blocking, text};

#[test]
fn files_outside_cannot_be_read_or_written() {
    for level in closed_levels() {
        let (workspace, outside) = (Workspace::new(), Workspace::new());
        let secret = outside.path().join("secret");
        fs::write(&secret, "plum").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o666)).unwrap();
        fs::set_permissions(outside.path(), fs::Permissions::from_mode(0o777)).unwrap();
        symlink(&secret, workspace.path().join("link")).unwrap();
        let folder = outside.path().display();
        let script = format!(
            "cat {folder}/secret; cat link; ln {folder}/secret hard; cat hard; echo x > {folder}/new; echo x >> link; \
             echo x > /etc/passwd; echo x > /usr/bin/x; cat /etc/shadow; ls /home /root /var; echo end"
        );
        let text = printed(&workspace.shell(level, &script));
        assert!(!text.contains("plum") && text.contains("end"), "{level:?}: {text}");
        assert_eq!(fs::read_to_string(&secret).unwrap(), "plum", "{level:?}");
        assert!(!outside.path().join("new").exists(), "{level:?}");
    }
}

#[test]
fn settings_of_the_machine_are_empty_or_named_in_the_report() {
    for level in levels() {
        let (workspace, tools) = (Workspace::new(), Workspace::new());
        let settings = tools.path().join("npmrc");
        fs::write(&settings, "token=plum").unwrap();
        fs::write(tools.path().join("tool"), "peach").unwrap();
        for name in ["npmrc", "tool"] {
            fs::set_permissions(tools.path().join(name), fs::Permissions::from_mode(0o644)).unwrap();
        }
        let folder = tools.path().display();
        let mut command = workspace.shell(level, &format!("cat {folder}/npmrc {folder}/tool && echo end"));
        command.read_only.push(tools.path().to_owned());
        command.hidden = vec![settings.clone(), tools.path().join("missing")];
        let finished = run_blocking(&command).unwrap();
        let text = text(&finished);
        assert!(text.contains("peach") && text.contains("end"), "{level:?}: {text}");
        let is_named = finished.report.not_in_force.iter().any(|gap| gap.contains(&settings.display().to_string()));
        assert_eq!((text.contains("plum"), is_named), (level < Level::Namespaces, level < Level::Namespaces), "{text}");
        assert_eq!(fs::read_to_string(&settings).unwrap(), "token=plum");
    }
}

#[test]
fn a_command_of_root_reads_no_private_file_at_any_level() {
    if !host().own_uid {
        return;
    }
    for level in levels() {
        let (workspace, outside) = (Workspace::new(), Workspace::new());
        let secret = outside.path().join("secret");
        fs::write(&secret, "plum").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let text = printed(&workspace.shell(level, &format!("cat {}; id -u; id -G; echo end", secret.display())));
        assert!(!text.contains("plum"), "{level:?}: {text}");
        assert!(text.lines().all(|line| line != "0"), "{level:?}: {text}");
    }
}

#[test]
fn the_workspace_can_be_written_and_keeps_what_was_written() {
    for level in levels() {
        let workspace = Workspace::new();
        printed(&workspace.shell(level, "mkdir -p a/b && echo kept > a/b/file && mv a/b/file a/moved"));
        assert_eq!(fs::read_to_string(workspace.path().join("a/moved")).unwrap(), "kept\n", "{level:?}");
    }
}

#[test]
fn a_read_only_path_inside_the_workspace_cannot_be_changed_moved_or_removed() {
    if !levels().contains(&Level::Namespaces) {
        return;
    }
    let workspace = Workspace::new();
    fs::create_dir(workspace.path().join("protected")).unwrap();
    fs::write(workspace.path().join("protected/file"), "before").unwrap();
    fs::write(workspace.path().join("config"), "before").unwrap();
    let script = "echo x > config; rm -f config; mv config other; echo x > protected/file; rm -rf protected; \
                  mv protected away; chmod 777 config; cat config protected/file";
    let mut command = workspace.shell(Level::Namespaces, script);
    command.read_only.extend(["protected", "config"].map(|name| workspace.path().join(name)));
    assert!(printed(&command).ends_with("beforebefore"));
    assert_eq!(fs::read_to_string(workspace.path().join("config")).unwrap(), "before");
    assert_eq!(fs::read_to_string(workspace.path().join("protected/file")).unwrap(), "before");
}

#[test]
fn a_link_in_the_place_of_a_protected_path_fails_instead_of_protecting_something_else() {
    if !levels().contains(&Level::Namespaces) {
        return;
    }
    let (workspace, outside) = (Workspace::new(), Workspace::new());
    fs::create_dir(outside.path().join("real")).unwrap();
    symlink(outside.path(), workspace.path().join("folder")).unwrap();
    let mut command = workspace.shell(Level::Namespaces, "true");
    command.read_only.push(workspace.path().join("folder/real"));
    let error = run_blocking(&command).unwrap_err();
    assert!(matches!(error, SandboxError::Failed { .. }), "{error}");
}

#[test]
fn the_root_folder_holds_nothing_else() {
    if !levels().contains(&Level::Namespaces) {
        return;
    }
    let workspace = Workspace::new();
    let text = printed(&workspace.shell(Level::Namespaces, "ls -1 /; ls -1 /tmp /dev; touch /new /etc/new; echo end"));
    for hidden in ["home", "run", "sys", "var", "work", "opt", "boot", "tty", "console", "mem"] {
        assert!(text.lines().all(|line| line != hidden), "{hidden}: {text}");
    }
    assert!(!text.lines().any(|line| line == "new"), "{text}");
}

#[test]
fn devices_cannot_be_made() {
    for level in levels() {
        let workspace = Workspace::new();
        let text =
            printed(&workspace.shell(level, "mknod disk b 8 0; mknod mem c 1 1; test -e disk -o -e mem || echo none"));
        assert!(text.contains("none"), "{level:?}: {text}");
    }
}

#[test]
fn a_tree_is_given_without_following_links() {
    let workspace = Workspace::new();
    let Some(identity) = Identity::acquire().unwrap() else { return };
    let outside = Workspace::new();
    fs::write(outside.path().join("file"), "").unwrap();
    fs::create_dir_all(workspace.path().join("tree/folder")).unwrap();
    fs::write(workspace.path().join("tree/folder/file"), "").unwrap();
    symlink(outside.path(), workspace.path().join("tree/link")).unwrap();
    symlink(outside.path().join("file"), workspace.path().join("tree/folder/link")).unwrap();
    give(&workspace.path().join("tree"), &identity).unwrap();
    for path in ["tree", "tree/folder", "tree/folder/file", "tree/link", "tree/folder/link"] {
        let owner = fs::symlink_metadata(workspace.path().join(path)).unwrap().uid();
        assert_eq!(owner, identity.uid(), "{path}");
    }
    assert_eq!(fs::metadata(outside.path()).unwrap().uid(), 0);
    assert_eq!(fs::metadata(outside.path().join("file")).unwrap().uid(), 0);
}

#[test]
fn two_identities_never_share_a_uid() {
    crate::prepare();
    let (first, second) = (Identity::acquire().unwrap(), Identity::acquire().unwrap());
    if let (Some(first), Some(second)) = (first, second) {
        assert_ne!(first.uid(), second.uid());
    }
}

#[test]
fn a_program_that_does_not_exist_is_named() {
    for level in levels() {
        let workspace = Workspace::new();
        let finished = run_blocking(&workspace.command(level, &["no-such-program"])).unwrap();
        let Exit::NotStarted { message } = &finished.exit else { panic!("{:?} {}", finished.exit, text(&finished)) };
        assert!(message.starts_with("no-such-program"), "{level:?}: {message}");
    }
}
