//! The reference of commands and flags, `docs/reference/commands.md`, made of the commands
//! themselves.

use std::fmt::Write as _;
use std::path::Path;

use clap::{Arg, ArgAction, Command};

const HEAD: &str = "# Commands and flags\n\nMade from the code by `UPDATE=1 cargo test -p stint --lib \
reference`; a test fails where this page says something else.\n\nWithout a command the server runs.\n";

/// The page.
fn page() -> String {
    let mut root = super::command();
    root.build();
    let mut page = HEAD.to_owned();
    section(&root, &mut page);
    page
}

fn section(command: &Command, page: &mut String) {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    // Writing to a string cannot fail.
    let _ = writeln!(page, "\n## `{name}`\n");
    if let Some(about) = command.get_long_about().or_else(|| command.get_about()) {
        let _ = writeln!(page, "{about}\n");
    }
    let usage = command.clone().render_usage().to_string();
    let _ = writeln!(page, "```\n{}\n```", usage.trim_start_matches("Usage: "));
    let shown =
        |arg: &&Arg| !arg.is_hide_set() && !["help", "version"].contains(&arg.get_id().as_str());
    let arguments: Vec<&Arg> = command.get_arguments().filter(shown).collect();
    if !arguments.is_empty() {
        let _ = writeln!(page, "\n| | default | |\n|---|---|---|");
        for argument in arguments {
            row(argument, page);
        }
    }
    for below in command.get_subcommands().filter(|command| command.get_name() != "help") {
        section(below, page);
    }
}

fn row(argument: &Arg, page: &mut String) {
    let values = argument.get_value_names().unwrap_or_default();
    let values: Vec<&str> = values.iter().map(clap::builder::Str::as_str).collect();
    let takes = matches!(argument.get_action(), ArgAction::Set | ArgAction::Append);
    let name = match argument.get_long() {
        Some(long) if takes => format!("--{long} {}", values.join(" ")),
        Some(long) => format!("--{long}"),
        None => values.join(" "),
    };
    let defaults: Vec<_> =
        argument.get_default_values().iter().map(|v| v.to_string_lossy()).collect();
    let default = if argument.is_hide_default_value_set() || !takes || defaults.is_empty() {
        String::new()
    } else {
        format!("`{}`", defaults.join(" "))
    };
    let help = argument.get_long_help().or_else(|| argument.get_help());
    let mut help = help.map(ToString::to_string).unwrap_or_default();
    let choices: Vec<String> = argument
        .get_possible_values()
        .iter()
        .filter(|value| takes && !value.is_hide_set())
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    if !choices.is_empty() {
        let _ = write!(help, " One of {}.", choices.join(", "));
    }
    let help = help.replace('\n', " ").replace('|', "\\|");
    let _ = writeln!(page, "| `{}` | {default} | {help} |", name.trim_end());
}

#[test]
fn the_reference_is_that_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/commands.md");
    let made = page();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &made).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let differing = made.lines().zip(found.lines()).find(|(made, found)| made != found);
    let told = "run UPDATE=1 cargo test -p stint --lib reference";
    assert_eq!(differing, None, "{}: {told}", path.display());
    assert_eq!(made.lines().count(), found.lines().count(), "{}: {told}", path.display());
}
