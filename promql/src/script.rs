//! Runs scripts of Prometheus' test language (`.test` files): they load data, evaluate
//! expressions and say what must come out.
//!
//! Beside what it asks for, every instant evaluation is repeated at other times with all
//! selectors pinned by `@`, and as the middle step of a range query.

mod command;
mod compare;
mod nhcb;
mod run;
mod store;

pub use command::ScriptError;
pub use store::MemoryStore;

use crate::engine::EngineOptions;
use crate::parse;
use command::{Command, parse_commands};
use run::Runner;

/// A script, read.
#[derive(Clone, Debug)]
pub struct Script {
    commands: Vec<Command>,
}

/// What became of one evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The line of the script, from 1.
    pub line: usize,
    /// What was evaluated.
    pub expr: String,
    /// What was wrong, in words; nothing when all was as expected.
    pub failure: Option<String>,
}

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    /// The first line that cannot be read.
    pub fn parse(text: &str) -> Result<Self, ScriptError> {
        Ok(Self { commands: parse_commands(text)? })
    }

    /// Runs the script from an empty store; one outcome for each evaluation, in order.
    ///
    /// # Errors
    /// Data that cannot be loaded.
    pub fn run(&self, options: &EngineOptions) -> Result<Vec<Outcome>, ScriptError> {
        let mut runner = Runner::new(options.clone());
        let mut outcomes = Vec::new();
        for command in &self.commands {
            match command {
                Command::Clear => runner.clear(),
                Command::Load(load) => runner.load(load),
                Command::Eval(eval) => outcomes.push(Outcome {
                    line: eval.line,
                    expr: eval.expr.clone(),
                    failure: runner.eval(eval).err(),
                }),
            }
        }
        Ok(outcomes)
    }
}

/// The options that Prometheus' own scripts are written for: every experiment, and names dropped
/// at the end.
pub fn conformance_options() -> EngineOptions {
    EngineOptions {
        features: parse::Options::all(),
        delayed_name_removal: true,
        use_start_timestamps: true,
        ..EngineOptions::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(script: &str) -> Vec<String> {
        let script = Script::parse(script).unwrap();
        let outcomes = script.run(&conformance_options()).unwrap();
        outcomes.into_iter().filter_map(|outcome| outcome.failure).collect()
    }

    #[test]
    fn a_script_that_is_right_passes() {
        let script = r#"
load 1m
  up{job="a"} 1 2 3
  h {{count:3 sum:6 buckets:[1 2]}}

eval instant at 2m sum(up)
  {} 3

eval range from 0 to 2m step 1m up
  up{job="a"} 1 2 3

eval instant at 1m 1 + 2
  3

eval instant at 0 h
  h {{count:3 sum:6 buckets:[1 2]}}

eval instant at 0 "x"
  expect string "x"

eval instant at 0 sum(
  expect fail

eval instant at 2m up[2m]
  expect range vector from 1m to 2m step 1m
  up{job="a"} 2 3
"#;
        assert_eq!(failures(script), Vec::<String>::new());
    }

    #[test]
    fn a_script_that_is_wrong_says_so() {
        let script = r#"
load 1m
  up{job="a"} 1 2 3

eval instant at 2m up
  up{job="a"} 4

eval instant at 2m up
  up{job="b"} 3

eval instant at 2m up
  expect fail

eval instant at 2m up
  expect warn
  up{job="a"} 3

eval range from 0 to 2m step 1m up
  up{job="a"} 1 2
"#;
        assert_eq!(failures(script).len(), 5);
    }
}
