//! Flags as environment variables: `--web.listen-address` is `STINT_WEB_LISTEN_ADDRESS`.
//!
//! What the command line says counts more. Variables are read for the server only; tools have
//! arguments of their own.

use clap::Command;

/// What all variables begin with.
const PREFIX: &str = "STINT_";

/// The variable of a flag.
pub(super) fn variable_of(flag: &str) -> String {
    let name = flag.replace(['.', '-'], "_").to_ascii_uppercase();
    format!("{PREFIX}{name}")
}

/// Arguments that stand for the environment, and a warning for each variable that means nothing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) arguments: Vec<String>,
    pub(super) warnings: Vec<String>,
}

/// The flags of `command` that `variables` give and `given`, the command line, does not.
///
/// # Errors
/// A switch that is neither true nor false.
pub(super) fn arguments(
    command: &Command,
    variables: impl IntoIterator<Item = (String, String)>,
    given: &[String],
) -> Result<Found, String> {
    let mut found = Found::default();
    let mut variables: Vec<_> =
        variables.into_iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
    variables.sort();
    for (variable, value) in variables {
        let flag = command.get_arguments().find_map(|argument| {
            let flag = argument.get_long()?;
            (variable_of(flag) == variable).then_some((flag, argument))
        });
        let Some((flag, argument)) = flag else {
            found.warnings.push(format!("no flag belongs to environment variable {variable}"));
            continue;
        };
        let is_given = given.iter().any(|argument| {
            let argument = argument.strip_prefix("--").unwrap_or_default();
            argument.split_once('=').map_or(argument, |(name, _)| name) == flag
        });
        if is_given {
            continue;
        }
        if argument.get_action().takes_values() {
            // A flag that may be repeated has its values between commas.
            let values: Vec<&str> = match argument.get_action() {
                clap::ArgAction::Append => value.split(',').collect(),
                _ => vec![&value],
            };
            found.arguments.extend(values.iter().map(|value| format!("--{flag}={value}")));
        } else {
            match value.as_str() {
                "true" | "1" => found.arguments.push(format!("--{flag}")),
                "false" | "0" | "" => {}
                _ => return Err(format!("{variable}={value} is neither true nor false")),
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn found(variables: &[(&str, &str)], given: &[&str]) -> Result<Found, String> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let given: Vec<String> = given.iter().map(ToString::to_string).collect();
        arguments(&crate::cli::Cli::command(), variables.iter().map(own), &given)
    }

    #[test]
    fn variables_are_flags_that_the_command_line_does_not_give() {
        let variables = [
            ("PATH", "/bin"),
            ("STINT_WEB_LISTEN_ADDRESS", ":1,:2"),
            ("STINT_LOG_LEVEL", "debug"),
            ("STINT_WEB_ENABLE_LIFECYCLE", "true"),
            ("STINT_WEB_ENABLE_ADMIN_API", "false"),
            ("STINT_QUERY_TIMEOUT", "1m"),
            ("STINT_NOTHING", "x"),
        ];
        let expected = Found {
            arguments: [
                "--log.level=debug",
                "--web.enable-lifecycle",
                "--web.listen-address=:1",
                "--web.listen-address=:2",
            ]
            .map(str::to_owned)
            .into(),
            warnings: vec!["no flag belongs to environment variable STINT_NOTHING".into()],
        };
        assert_eq!(found(&variables, &["stint", "--query.timeout", "5s"]), Ok(expected));
    }

    #[test]
    fn a_switch_is_on_or_off() {
        let error = found(&[("STINT_WEB_ENABLE_LIFECYCLE", "maybe")], &[]).unwrap_err();
        assert_eq!(error, "STINT_WEB_ENABLE_LIFECYCLE=maybe is neither true nor false");
    }
}
