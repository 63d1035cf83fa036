//! Runs of the log's workloads. `CAIRN_SIM_RUNS=n` sets how many, `CAIRN_SIM_SECONDS=n` how long.

use cairn_sim::{Explored, Faults, Simulation};

use crate::known;
use crate::scripts::{Logs, Style};

/// Runs until something fails that is not known.
fn explore(simulation: Simulation<Logs>) -> Explored {
    let explored = simulation.known(known::is_known).run().unwrap();
    println!("{explored}");
    explored
}

fn of(style: Style) -> Simulation<Logs> {
    Simulation::new(Logs(style)).budget(40)
}

#[test]
fn threads_and_power_cuts_in_a_directory() {
    explore(of(Style::Directory));
}

#[test]
fn threads_and_power_cuts_in_a_store() {
    explore(of(Style::Store));
}

#[test]
fn followers_and_many_cuts_of_the_end() {
    explore(of(Style::Cutting));
}

#[test]
fn followers_of_a_store() {
    explore(of(Style::StoreFollowers));
}

#[test]
fn threads_and_power_cuts_in_a_store_of_several_files() {
    explore(of(Style::Segmented));
}

#[test]
fn threads_and_power_cuts_where_the_log_begins_no_threads() {
    explore(of(Style::Inline));
}

#[test]
fn failing_calls_threads_and_power_cuts() {
    explore(of(Style::Directory).faults(Faults::Seeded));
}

#[test]
fn one_writer_and_many_cuts() {
    explore(of(Style::Plain).cuts(30));
}

#[test]
fn large_records_and_zeros_ahead() {
    explore(of(Style::Ahead));
}

#[test]
fn failing_writes_threads_and_power_cuts() {
    explore(of(Style::Directory).faults(Faults::Writes));
}

#[test]
fn failing_barriers_of_a_close() {
    explore(of(Style::Closing).faults(Faults::Barriers));
}

/// A run of sixty calls is what the figures of docs/evidence.md are of.
#[test]
fn three_writers_sixty_calls_and_ten_cuts() {
    explore(of(Style::Three));
}
