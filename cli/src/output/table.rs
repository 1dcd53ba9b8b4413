//! Tables without borders. Their head is dim, and they fit into the terminal.

use anstyle::{AnsiColor, Color as Ansi, Effects, Style};
use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table as Grid, Width};
use nofx_local::report::printable;

use super::color::trim_end;
use super::frame::short;
use super::state::Look;

/// Columns of a terminal that has no room for whole ids.
const NARROW: u16 = 80;

#[derive(Debug)]
pub struct Table {
    grid: Grid,
    rows: usize,
}

impl Table {
    /// A table for standard output.
    pub fn new(head: &[&str]) -> Self {
        Self::with_width(head, terminal_width())
    }

    /// A table with at most `width` columns of characters. `None`: as wide as its content.
    pub fn with_width(head: &[&str], width: Option<u16>) -> Self {
        let mut grid = Grid::new();
        grid.load_style(NOTHING).enforce_styling().set_truncation_indicator("…");
        match width {
            Some(width) => grid.set_content_arrangement(ContentArrangement::Dynamic).set_width(width),
            None => grid.set_content_arrangement(ContentArrangement::Disabled),
        };
        grid.set_header(head.iter().map(|name| Cell::new(name).add_attribute(Attribute::Dim)));
        for (column, name) in grid.column_iter_mut().zip(head) {
            column.set_padding((0, 2));
            let least = u16::try_from(name.len()).unwrap_or(u16::MAX).saturating_add(2);
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(least)));
        }
        Self { grid, rows: 0 }
    }

    /// A column of numbers.
    #[must_use]
    pub fn right(mut self, column: usize) -> Self {
        if let Some(column) = self.grid.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        self
    }

    /// Columns that are never shortened.
    #[must_use]
    pub fn whole(mut self, columns: &[usize]) -> Self {
        for &column in columns {
            if let Some(column) = self.grid.column_mut(column) {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        self
    }

    pub fn row(&mut self, cells: Vec<Cell>) {
        let mut row = comfy_table::Row::from(cells);
        row.max_height(1);
        self.grid.add_row(row);
        self.rows += 1;
    }

    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.grid.lines().try_for_each(|line| writeln!(f, "{}", trim_end(&line)))
    }
}

/// The width of the terminal at standard output.
pub fn terminal_width() -> Option<u16> {
    console::Term::stdout().size_checked().map(|(_, width)| width)
}

/// The id of a run or a gate. A narrow terminal gets its end, which names it too.
pub fn id(id: &impl ToString, width: Option<u16>) -> Cell {
    let id = id.to_string();
    cell(if width.is_some_and(|width| width < NARROW) { short(&id) } else { &id })
}

/// Text from outside.
pub fn cell(text: impl AsRef<str>) -> Cell {
    Cell::new(printable(text.as_ref()))
}

/// The same in a style.
pub fn styled(text: impl AsRef<str>, style: Style) -> Cell {
    let mut cell = cell(text);
    if style.get_effects().contains(Effects::DIMMED) {
        cell = cell.add_attribute(Attribute::Dim);
    }
    if style.get_effects().contains(Effects::BOLD) {
        cell = cell.add_attribute(Attribute::Bold);
    }
    match style.get_fg_color() {
        Some(Ansi::Ansi(color)) => cell.fg(of(color)),
        _ => cell,
    }
}

/// A state with its symbol.
pub fn state(look: Look) -> Cell {
    styled(look.text(), look.style)
}

/// The terminal's own colour, as the theme shows it.
fn of(color: AnsiColor) -> Color {
    match color {
        AnsiColor::Green => Color::DarkGreen,
        AnsiColor::Red => Color::DarkRed,
        AnsiColor::Yellow => Color::DarkYellow,
        _ => Color::DarkCyan,
    }
}

#[cfg(test)]
mod tests {
    use super::super::color::DIM;
    use super::*;

    fn plain(table: &Table) -> Vec<String> {
        anstream::adapter::strip_str(&table.to_string()).to_string().lines().map(str::to_owned).collect()
    }

    fn sample(width: Option<u16>) -> Table {
        let mut table = Table::with_width(&["RUN", "GOAL", "TOOK"], width).whole(&[0, 2]).right(2);
        table.row(vec![cell("0199"), cell("a goal that is much too long for a line"), cell("1.0 s")]);
        table.row(vec![cell("0200"), cell("b\u{1b}[2J"), styled("12 s", DIM)]);
        table
    }

    #[test]
    fn a_table_is_as_wide_as_its_content_without_a_terminal() {
        let expected = [
            "RUN   GOAL                                      TOOK",
            "0199  a goal that is much too long for a line  1.0 s",
            "0200  b\\u{1b}[2J                                12 s",
        ];
        assert_eq!(plain(&sample(None)), expected);
    }

    #[test]
    fn a_terminal_gets_one_line_for_a_row() {
        let lines = plain(&sample(Some(30)));
        assert_eq!(lines.len(), 3, "{lines:#?}");
        assert!(lines.iter().all(|line| line.chars().count() <= 30), "{lines:#?}");
        assert!(lines[1].starts_with("0199  a goal that") && lines[1].contains('…'), "{lines:#?}");
        assert!(lines[1].ends_with("1.0 s"), "{lines:#?}");
    }
}
