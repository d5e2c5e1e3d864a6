//! What is drawn: a pure function of the last report and of where the user is.

use ratatui::Frame;
use ratatui::crossterm::event::KeyCode;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span as Piece};
use ratatui::widgets::{Paragraph, Row, Table};
use stint_model::Span;

use crate::budget::report::{EndpointReport, Report};

/// Columns below which only names and slots are shown.
const WIDE: u16 = 70;
/// Narrowest name of a table.
const NAME_MIN: u16 = 12;

/// The state of the display.
pub(super) struct View {
    server: String,
    colours: bool,
    report: Option<Report>,
    error: Option<String>,
    endpoint: usize,
    tab: Tab,
}

/// What the lower part shows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tab {
    Metrics,
    Jobs,
    Labels,
    Withheld,
    Advice,
}

const TABS: [(Tab, &str); 5] = [
    (Tab::Metrics, "metrics"),
    (Tab::Jobs, "jobs"),
    (Tab::Labels, "labels"),
    (Tab::Withheld, "withheld"),
    (Tab::Advice, "advice"),
];

impl View {
    /// Nothing is known yet of `server`.
    pub(super) fn new(server: &str, colours: bool) -> Self {
        let server = server.to_owned();
        Self { server, colours, report: None, error: None, endpoint: 0, tab: Tab::Metrics }
    }

    /// Takes what was fetched. While the server is away, its last report stays.
    pub(super) fn update(&mut self, report: Result<Report, String>) {
        match report {
            Ok(report) => {
                let last = report.endpoints.len().saturating_sub(1);
                self.endpoint = self.endpoint.min(last);
                self.report = Some(report);
                self.error = None;
            }
            Err(error) => self.error = Some(error),
        }
    }

    /// Goes to another endpoint or table.
    pub(super) fn key(&mut self, code: KeyCode) {
        let endpoints = self.report.as_ref().map_or(1, |report| report.endpoints.len()).max(1);
        let tab = TABS.iter().position(|(tab, _)| *tab == self.tab).unwrap_or(0);
        let step = match code {
            KeyCode::Down | KeyCode::Char('n') => {
                self.endpoint = (self.endpoint + 1) % endpoints;
                0
            }
            KeyCode::Up => {
                self.endpoint = (self.endpoint + endpoints - 1) % endpoints;
                0
            }
            KeyCode::Tab | KeyCode::Right => 1,
            KeyCode::BackTab | KeyCode::Left => TABS.len() - 1,
            _ => return,
        };
        if let Some((tab, _)) = TABS.get((tab + step) % TABS.len()) {
            self.tab = *tab;
        }
    }

    /// Draws everything.
    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let errors = u16::from(self.error.is_some());
        let [error, rest] =
            Layout::vertical([Constraint::Length(errors), Constraint::Min(0)]).areas(frame.area());
        if let Some(text) = &self.error {
            let line = format!("server away, trying again: {}", printable(text));
            frame.render_widget(Paragraph::new(line).style(self.style(Color::Red)), error);
        }
        let Some(report) = &self.report else {
            let text = format!("waiting for {} …  q quits", printable(&self.server));
            frame.render_widget(Paragraph::new(text), rest);
            return;
        };
        let Some(endpoint) = report.endpoints.get(self.endpoint) else {
            let text = "nothing is forwarded: prometheus.yml has no remote_write  (q quits)";
            frame.render_widget(Paragraph::new(text), rest);
            return;
        };
        self.endpoint(frame, rest, endpoint, report.endpoints.len());
    }

    fn endpoint(&self, frame: &mut Frame<'_>, area: Rect, report: &EndpointReport, of: usize) {
        let head = self.head(report, area.width, of);
        let height = u16::try_from(head.len()).unwrap_or(u16::MAX);
        let [top, tabs, table, keys] = Layout::vertical([
            Constraint::Length(height),
            Constraint::Length(1),
            Constraint::Min(0),
            Constraint::Length(1),
        ])
        .areas(area);
        frame.render_widget(Paragraph::new(head), top);
        frame.render_widget(Paragraph::new(self.tabs()), tabs);
        self.table(frame, table, report);
        let help = if area.width < WIDE {
            "tab: tables  q: quit"
        } else {
            "tab: next table   ↑ ↓: endpoints   q: quit"
        };
        frame.render_widget(Paragraph::new(help).style(self.dim()), keys);
    }

    fn head(&self, report: &EndpointReport, width: u16, of: usize) -> Vec<Line<'static>> {
        let bold = Style::default().add_modifier(Modifier::BOLD);
        let mut title = vec![Piece::styled(printable(&report.name), bold)];
        if of > 1 {
            title.push(Piece::raw(format!(" ({} of {of})", self.endpoint + 1)));
        }
        title.push(Piece::styled(format!("  {}", printable(&report.url)), self.dim()));
        let mut lines = vec![Line::from(title)];
        match &report.series {
            Some(series) => lines.push(self.bar("series", report.live, series.target, width)),
            None => lines.push(Line::from(format!("series {} in use, no budget", report.live))),
        }
        let sent = report.points.last_minute;
        match report.points.per_minute {
            Some(most) => lines.push(self.bar("points", sent, most, width)),
            None => lines.push(Line::from(format!("points {sent} in the last minute"))),
        }
        let samples = &report.samples;
        let withheld: u64 = report.withheld.iter().map(|row| row.series).sum();
        let mut text = format!("{withheld} series withheld, {:.0} s behind", samples.lag_secs);
        if let Some(series) = &report.series {
            text.push_str(", server ");
            text.push_str(&printable(&series.server));
        }
        lines.push(Line::from(text));
        if let Some(secs) = report.forecast.as_ref().and_then(|it| it.exhausted_in_secs) {
            let minutes = Span((secs / 60.0) as i64 * 60_000);
            let text = format!("at this rate the target is reached in {minutes}");
            lines.push(Line::styled(text, self.style(Color::Yellow)));
        }
        let ledger = report.series.as_ref().and_then(|series| series.ledger_error.as_ref());
        for error in ledger.into_iter().chain(&samples.last_error) {
            lines.push(Line::styled(printable(error), self.style(Color::Red)));
        }
        lines
    }

    /// A name, a bar as wide as there is room, and the numbers.
    fn bar(&self, name: &str, used: u64, most: u64, width: u16) -> Line<'static> {
        let part = used as f64 / most.max(1) as f64;
        let numbers = format!(" {used} of {most} ({:.0} %)", part * 100.0);
        let room = usize::from(width).saturating_sub(name.len() + 3 + numbers.chars().count());
        let full = ((room as f64 * part.min(1.0)).round() as usize).min(room);
        let colour = match part {
            part if part > 1.0 => Color::Red,
            part if part > 0.9 => Color::Yellow,
            _ => Color::Green,
        };
        Line::from(vec![
            Piece::raw(format!("{name} [")),
            Piece::styled("█".repeat(full), self.style(colour)),
            Piece::styled("·".repeat(room - full), self.dim()),
            Piece::raw("]"),
            Piece::raw(numbers),
        ])
    }

    fn tabs(&self) -> Line<'static> {
        let mut pieces = Vec::new();
        for (tab, name) in TABS {
            let is_chosen = tab == self.tab;
            let style = if is_chosen {
                Style::default().add_modifier(Modifier::BOLD | Modifier::REVERSED)
            } else {
                Style::default()
            };
            // Seen without styles too.
            let text = if is_chosen { format!("[{name}]") } else { format!(" {name} ") };
            pieces.push(Piece::styled(text, style));
        }
        Line::from(pieces)
    }

    fn table(&self, frame: &mut Frame<'_>, area: Rect, report: &EndpointReport) {
        let (titles, rows) = self.rows(report);
        // In a narrow terminal the last columns go.
        let columns = if area.width < WIDE { titles.len().min(2) } else { titles.len() };
        let mut widths = vec![Constraint::Min(NAME_MIN)];
        widths.extend(
            titles
                .iter()
                .take(columns)
                .skip(1)
                .map(|title| Constraint::Length(u16::try_from(title.len()).unwrap_or(8).max(9))),
        );
        let cut = |mut cells: Vec<String>| {
            cells.truncate(columns);
            Row::new(cells)
        };
        let header = Row::new(titles.into_iter().take(columns)).style(self.dim());
        let table = Table::new(rows.into_iter().map(cut), widths).header(header);
        frame.render_widget(table, area);
    }

    /// Titles and rows of the chosen table.
    fn rows(&self, report: &EndpointReport) -> (Vec<&'static str>, Vec<Vec<String>>) {
        let number = |number: u64| format!("{number:>8}");
        let points = |points: f64| format!("{points:>8.0}");
        match self.tab {
            Tab::Metrics => {
                let row = |row: &crate::budget::report::MetricUse| {
                    let used = row.used.map_or("?", |used| if used { "yes" } else { "no" });
                    let sizes = [number(row.slots), points(row.points), number(row.withheld)];
                    cells(&row.name, sizes, used)
                };
                let titles = vec!["metric", "   slots", "  points", "withheld", "used"];
                (titles, report.metrics.iter().map(row).collect())
            }
            Tab::Jobs => {
                let row = |row: &crate::budget::report::Use| {
                    let sizes = [number(row.slots), points(row.points), number(row.withheld)];
                    cells(&row.name, sizes, &number(row.cooling))
                };
                let titles = vec!["job", "   slots", "  points", "withheld", " cooling"];
                (titles, report.jobs.iter().map(row).collect())
            }
            Tab::Labels => {
                let row = |row: &crate::budget::report::MetricLabel| {
                    let name = format!("{} of {}", row.label, row.metric);
                    vec![printable(&name), number(row.saving), number(row.values)]
                };
                (
                    vec!["label", "  saving", "  values"],
                    report.metric_labels.iter().map(row).collect(),
                )
            }
            Tab::Withheld => {
                let row = |row: &crate::budget::report::Withheld| {
                    let name = format!("{} ({})", row.metric, row.job);
                    vec![printable(&name), number(row.series), printable(&row.reason)]
                };
                (
                    vec!["withheld", "  series", "why        "],
                    report.withheld.iter().map(row).collect(),
                )
            }
            Tab::Advice => {
                let row = |row: &crate::budget::report::Advice| {
                    vec![printable(&row.text), number(row.slots)]
                };
                (vec!["advice", "   saves"], report.advice.iter().map(row).collect())
            }
        }
    }

    fn style(&self, colour: Color) -> Style {
        if self.colours { Style::default().fg(colour) } else { Style::default() }
    }

    fn dim(&self) -> Style {
        if self.colours { Style::default().add_modifier(Modifier::DIM) } else { Style::default() }
    }
}

fn cells(name: &str, sizes: [String; 3], last: &str) -> Vec<String> {
    let name = if name.is_empty() { "-".to_owned() } else { printable(name) };
    std::iter::once(name).chain(sizes).chain([last.to_owned()]).collect()
}

/// What a label says moves no cursor.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::budget::report::{Forecast, MetricUse, SeriesBudget, Withheld};

    fn report() -> Report {
        let metric = |name: &str, slots| MetricUse {
            name: name.into(),
            slots,
            points: slots as f64,
            used: Some(slots > 1000),
            ..MetricUse::default()
        };
        let endpoint = EndpointReport {
            name: "cloud".into(),
            url: "https://prom.grafana.net/api/prom/push".into(),
            series: Some(SeriesBudget {
                target: 9000,
                server: "normal".into(),
                ..SeriesBudget::default()
            }),
            live: 8400,
            points: crate::budget::report::Points {
                month: None,
                per_minute: Some(10_000),
                last_minute: 4200,
                ..Default::default()
            },
            metrics: vec![metric("http_request_duration_seconds", 4000), metric("up", 3)],
            withheld: vec![Withheld {
                metric: "evil\u{1b}[2J".into(),
                job: "api".into(),
                series: 70,
                reason: "budget".into(),
                ..Withheld::default()
            }],
            forecast: Some(Forecast { exhausted_in_secs: Some(7260.0), ..Forecast::default() }),
            ..EndpointReport::default()
        };
        let other = EndpointReport { name: "other".into(), ..EndpointReport::default() };
        Report { endpoints: vec![endpoint, other], ..Report::default() }
    }

    fn drawn(view: &View, width: u16, height: u16) -> Terminal<TestBackend> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| view.draw(frame)).unwrap();
        terminal
    }

    fn view(colours: bool) -> View {
        let mut view = View::new("http://127.0.0.1:9090", colours);
        view.update(Ok(report()));
        view
    }

    #[test]
    fn a_wide_terminal_shows_all_columns() {
        insta::assert_snapshot!(drawn(&view(true), 80, 14).backend());
    }

    #[test]
    fn a_narrow_terminal_shows_names_and_slots() {
        insta::assert_snapshot!(drawn(&view(true), 36, 12).backend());
    }

    #[test]
    fn the_last_report_stays_while_the_server_is_away() {
        let mut view = view(true);
        view.key(KeyCode::BackTab);
        view.key(KeyCode::BackTab);
        view.update(Err("cannot ask http://127.0.0.1:9090".into()));
        insta::assert_snapshot!(drawn(&view, 80, 14).backend());
        view.update(Ok(report()));
        assert!(!drawn(&view, 80, 14).backend().to_string().contains("away"));
    }

    #[test]
    fn endpoints_and_tables_are_gone_through_in_a_circle() {
        let mut view = view(true);
        view.key(KeyCode::Down);
        assert!(drawn(&view, 80, 14).backend().to_string().contains("other (2 of 2)"));
        view.key(KeyCode::Down);
        for _ in TABS {
            view.key(KeyCode::Tab);
        }
        assert!(drawn(&view, 80, 14).backend().to_string().contains("[metrics]"));
        view.key(KeyCode::Up);
        view.update(Ok(Report::default()));
        assert!(drawn(&view, 80, 14).backend().to_string().contains("nothing is forwarded"));
    }

    #[test]
    fn without_colours_no_cell_has_one() {
        let view = view(false);
        let terminal = drawn(&view, 80, 14);
        let plain =
            |cell: &ratatui::buffer::Cell| cell.fg == Color::Reset && cell.bg == Color::Reset;
        assert!(terminal.backend().buffer().content.iter().all(plain));
        let coloured = drawn(&super::tests::view(true), 80, 14);
        assert!(!coloured.backend().buffer().content.iter().all(plain));
    }

    #[test]
    fn no_size_is_too_small() {
        for (width, height) in [(1, 1), (5, 3), (12, 2), (200, 1)] {
            drawn(&view(true), width, height);
            drawn(&View::new("http://a", true), width, height);
        }
    }
}
