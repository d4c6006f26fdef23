//! The table of faults and effects in the guide: made here, and compared with what stands there.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use postroad_tests::load::Verdict;

use crate::faults::{ALL, Case, Effect};

const BEGIN: &str = "<!-- faults: made by the test hosts -->\n";
const END: &str = "<!-- end of faults -->\n";
const HEAD: &str = "\
| host | fault | mail accepted meanwhile, longest pause | delivered meanwhile: here, to the world | accepts again after | all has arrived after |
|---|---|---|---|---|---|
";

/// What belongs between the marks.
pub fn render(rows: &[(Case, Effect)], lasting: Duration, verdict: &Verdict) -> String {
    let mut text = format!("{BEGIN}{HEAD}");
    for (case, effect) in rows {
        let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f32());
        let cells = [
            format!("{}, {}", effect.accepted, seconds(effect.pause)),
            format!("{}, {}", effect.filed, effect.relayed),
            seconds(effect.again),
            seconds(effect.all),
        ];
        text += &format!("| {} | {} |\n", case.told().join(" | "), cells.join(" | "));
    }
    let Verdict {
        filed,
        relayed,
        relayed_again,
        unpromised,
    } = verdict;
    text += &format!(
        "\nEach fault lasted {} s. {filed} mails were filed and {relayed} reached the world; lost: 0; filed twice: 0; sent to the world twice: \
         {relayed_again}; arrived though the client had no answer: {unpromised}.\n{END}",
        lasting.as_secs()
    );
    text
}

/// The committed table has the head and the rows of today, and a figure in each cell.
pub fn committed_has_all_rows() -> Result<()> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/guide/hosts.md");
    let page = fs::read_to_string(page)?;
    let (_, table) = page
        .split_once(BEGIN)
        .context("hosts.md has no such table")?;
    let (table, _) = table.split_once(END).context("the table has no end")?;
    let (rows, sums) = table
        .strip_prefix(HEAD)
        .context("the table has another head")?
        .split_once("\n\n")
        .context("the table has no sums")?;
    let rows: Vec<Vec<&str>> = rows.lines().map(cells).collect();
    ensure!(
        rows.len() == ALL.len(),
        "{} rows instead of {}",
        rows.len(),
        ALL.len()
    );
    for (row, case) in rows.iter().zip(ALL) {
        let begins = row
            .iter()
            .zip(case.told())
            .all(|(cell, told)| *cell == told);
        ensure!(begins, "{row:?} is not the row of {}", case.name());
        let [_, _, figures @ ..] = &row[..] else {
            unreachable!("it was compared")
        };
        let figured = |cell: &&str| cell.starts_with(|first: char| first.is_ascii_digit());
        ensure!(figures.len() == 4 && figures.iter().all(figured), "{row:?}");
    }
    ensure!(sums.contains("lost: 0; filed twice: 0"), "{sums}");
    Ok(())
}

fn cells(row: &str) -> Vec<&str> {
    let row = row.trim_start_matches("| ").trim_end_matches(" |");
    row.split(" | ").collect()
}
