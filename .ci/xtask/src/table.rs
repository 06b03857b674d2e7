//! A table of what was measured.

use std::time::Duration;

/// One thing that was run.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// What came of it, in a few words.
    pub(crate) figure: String,
    pub(crate) well: bool,
    pub(crate) took: Duration,
    /// The command that shows it again.
    pub(crate) command: String,
}

/// The rows below each other, the command of each on its own line.
pub(crate) fn table(rows: &[Row]) -> String {
    let names = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
    let lines = rows.iter().map(|row| {
        let Row { name, figure, well, took, command } = row;
        let (well, took) = (if *well { "ok    " } else { "FAILED" }, took.as_secs());
        format!("{well} {took:>5} s  {name:names$}  {figure}\n           $ {command}\n")
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let row = |name: &str, well| Row {
            name: name.to_owned(),
            figure: "1 thing".to_owned(),
            well,
            took: Duration::from_secs(65),
            command: "do it".to_owned(),
        };
        let expected = "ok        65 s  one    1 thing\n           $ do it\n\
                        FAILED    65 s  three  1 thing\n           $ do it\n";
        assert_eq!(table(&[row("one", true), row("three", false)]), expected);
    }
}
