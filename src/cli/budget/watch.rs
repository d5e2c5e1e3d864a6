//! `stint budget --watch`: the report in a terminal, live.

mod view;

use std::io::IsTerminal as _;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context as _;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::budget::report::Report;
use view::View;

/// How often the report is fetched.
const FETCH_EVERY: Duration = Duration::from_secs(2);
/// How long a key may wait for its effect.
const KEYS_EVERY: Duration = Duration::from_millis(200);

/// Shows the report of `server` until q, Esc or Ctrl-C is pressed.
pub(super) fn run(server: &str) -> anyhow::Result<()> {
    anyhow::ensure!(
        std::io::stdout().is_terminal(),
        "--watch needs a terminal; without it the report is printed once"
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start")?;
    let (reports, received) = mpsc::channel();
    runtime.spawn(fetch_for_ever(server.to_owned(), reports));
    let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut terminal = ratatui::try_init().context("cannot use the terminal")?;
    let shown = show(&mut terminal, &received, View::new(server, colours));
    // Whatever happened, the terminal is given back as it was.
    let restored = ratatui::try_restore().context("cannot give the terminal back");
    runtime.shutdown_background();
    shown.and(restored)
}

async fn fetch_for_ever(server: String, reports: mpsc::Sender<Result<Report, String>>) {
    loop {
        let report = super::fetch(&server).await.map_err(|error| format!("{error:#}"));
        // Nobody looks any more.
        if reports.send(report).is_err() {
            return;
        }
        tokio::time::sleep(FETCH_EVERY).await;
    }
}

fn show(
    terminal: &mut ratatui::DefaultTerminal,
    received: &mpsc::Receiver<Result<Report, String>>,
    mut view: View,
) -> anyhow::Result<()> {
    let mut is_stale = true;
    loop {
        for report in received.try_iter() {
            view.update(report);
            is_stale = true;
        }
        if is_stale {
            terminal.draw(|frame| view.draw(frame)).context("cannot draw")?;
            is_stale = false;
        }
        if event::poll(KEYS_EVERY).context("cannot read keys")? {
            match event::read().context("cannot read keys")? {
                Event::Key(key) if is_end(&key) => return Ok(()),
                Event::Key(key) if key.kind != KeyEventKind::Release => view.key(key.code),
                _ => {}
            }
            is_stale = true;
        }
    }
}

fn is_end(key: &KeyEvent) -> bool {
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('c') => is_control,
        KeyCode::Char('q') => !is_control,
        KeyCode::Esc => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q_escape_and_control_c_end_it_and_nothing_else_does() {
        let key = |code, modifiers| KeyEvent::new(code, modifiers);
        let none = KeyModifiers::NONE;
        assert!(is_end(&key(KeyCode::Char('q'), none)));
        assert!(is_end(&key(KeyCode::Esc, none)));
        assert!(is_end(&key(KeyCode::Char('c'), KeyModifiers::CONTROL)));
        assert!(!is_end(&key(KeyCode::Char('c'), none)));
        assert!(!is_end(&key(KeyCode::Tab, none)));
    }
}
