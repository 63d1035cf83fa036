//! What happened in a case, to be read.

use std::fmt::Write as _;

use super::case::Case;
use super::cut::Cut;
use super::runner::Runner;
use super::workload::{Told as _, Workload};
use crate::trace::Trace;
use crate::world::Line;

/// Lines of a life that are shown at most, the last ones.
const LINES: usize = 120;

/// Runs a case once more and tells what each thread did, what reached the disk, and how each life
/// ended.
pub(super) fn tell<W: Workload>(runner: &Runner<W>, case: &Case<W>) -> String {
    let mut text = String::new();
    let (mut machine, mut told) = (case.machine(), W::Told::default());
    for (n, life) in case.lives.iter().enumerate() {
        let ran = runner.live(&machine, life, told, true);
        let trace = machine.trace();
        let until = life.end.as_ref().map_or(trace.len(), Cut::point);
        let _ = writeln!(text, "life {}:", n + 1);
        tell_life(&mut text, &trace, &ran.story, until);
        match (ran.result, &life.end) {
            (Ok(Ok(after)), Some(end)) => {
                let what = runner.cutter.describe(&trace, end);
                let _ = writeln!(text, "  at operation {until} {what}");
                told = after.at(end.point(), end.end());
                machine = runner.cutter.after(&trace, end);
            }
            (Ok(Err(broken)) | Err(broken), _) => {
                let _ = writeln!(text, "  {broken}");
                break;
            }
            (Ok(Ok(_)), None) => break,
        }
    }
    text
}

fn tell_life(text: &mut String, trace: &Trace, story: &[Line], until: usize) {
    let mut lines = Vec::new();
    let mut said = story.iter().filter(|line| line.point <= until).peekable();
    for point in 0..=until.min(trace.len()) {
        while let Some(line) = said.next_if(|line| line.point <= point) {
            lines.push(format!("  {:>12}  {}", line.thread, line.text));
        }
        if point < until.min(trace.len()) {
            lines.push(format!("  {:>12}  {point} {}", "disk", trace.ops()[point]));
        }
    }
    if lines.len() > LINES {
        let _ = writeln!(text, "  ... {} lines before", lines.len() - LINES);
        lines.drain(..lines.len() - LINES);
    }
    for line in lines {
        text.push_str(&line);
        text.push('\n');
    }
}
