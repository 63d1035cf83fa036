//! What goes on around a stack that is open: its file is moved, a name is taken, somebody else
//! opens it, the process forks. A handle stays with its own file, or says what is wrong.
//!
//! Each check is made with deliberate bugs, too, in `mutations`.

use std::path::Path;
use std::sync::Arc;

use cairn_io::{Fs, as_forked_child};
use cairn_sim::SimFs;
use cairn_stack::{Error, Stack};

const PATH: &str = "/data/stack";

fn open(sim: &SimFs, path: &str) -> cairn_stack::Result<Stack> {
    Stack::options().fs(Arc::new(sim.clone())).open(path)
}

fn machine() -> (SimFs, Stack) {
    let sim = SimFs::new();
    sim.create_dir(Path::new("/data")).unwrap();
    sim.sync_dir(Path::new("/")).unwrap();
    let stack = open(&sim, PATH).unwrap();
    stack.push(b"abc").unwrap();
    (sim, stack)
}

fn expect(sim: &SimFs, path: &str, bytes: &[u8]) -> Result<(), String> {
    let stack = open(sim, path).map_err(|e| format!("{path}: {e}"))?;
    let found = stack.peek(0).map_err(|e| format!("{path}: {e}"))?;
    if found == bytes { Ok(()) } else { Err(format!("{path} holds {found:?}")) }
}

#[test]
fn two_stacks_that_were_opened_by_one_relative_name_stay_apart() {
    let sim = SimFs::new();
    for home in ["/a", "/b"] {
        sim.create_dir(Path::new(home)).unwrap();
    }
    sim.change_directory("/a").unwrap();
    let first = open(&sim, "stack").unwrap();
    sim.change_directory("/b").unwrap();
    let second = open(&sim, "stack").unwrap();
    for _ in 0..20 {
        first.push([1; 3000]).unwrap();
        second.push([2; 3000]).unwrap();
    }
    first.close().unwrap();
    second.close().unwrap();
    expect(&sim, "/a/stack", &[1; 60_000]).unwrap();
    expect(&sim, "/b/stack", &[2; 60_000]).unwrap();
}

/// The file is moved, and another stack is begun under its name.
pub(crate) fn moved_and_begun_anew() -> Result<(), String> {
    let (sim, stack) = machine();
    sim.move_to(PATH, "/data/old").unwrap();
    sim.remove_all("/data/stack.lock").unwrap();
    let other = open(&sim.second_process(), PATH).map_err(|e| format!("anew: {e}"))?;
    other.push(b"other").map_err(|e| e.to_string())?;
    match stack.push(b"d") {
        Err(Error::Displaced { path }) => assert_eq!(path, Path::new(PATH)),
        done => return Err(format!("a push into a file that was moved: {done:?}")),
    }
    if !matches!(stack.close(), Err(Error::Displaced { .. })) {
        return Err("close says Ok of a stack that is elsewhere".into());
    }
    other.close().map_err(|e| format!("the new stack: {e}"))?;
    expect(&sim, PATH, b"other")?;
    expect(&sim, "/data/old", b"abc")
}

#[test]
fn a_stack_that_was_moved_is_whole_where_it_is_and_another_one_may_be_begun() {
    moved_and_begun_anew().unwrap();
}

#[test]
fn a_stack_that_is_put_back_goes_on() {
    let (sim, stack) = machine();
    sim.move_to(PATH, "/data/old").unwrap();
    for _ in 0..2 {
        assert!(matches!(stack.push(b"d"), Err(Error::Displaced { .. })));
    }
    assert_eq!(stack.peek(0).unwrap(), b"abc");
    sim.move_to("/data/old", PATH).unwrap();
    stack.push(b"e").unwrap();
    stack.close().unwrap();
    expect(&sim, PATH, b"abce").unwrap();
}

#[test]
fn close_is_never_ok_about_a_file_that_has_lost_its_name() {
    for path in [PATH, "/data/stack.lock", "/data"] {
        for removed in [true, false] {
            let (sim, stack) = machine();
            match removed {
                true => sim.remove_all(path).unwrap(),
                false => sim.move_to(path, "/elsewhere").unwrap(),
            }
            let closed = stack.close();
            assert!(matches!(closed, Err(Error::Displaced { .. })), "{path}: {closed:?}");
        }
    }
}

#[test]
fn the_name_of_a_new_stack_is_given_only_if_it_is_free() {
    // Somebody makes a file of that name just before the stack gets it.
    #[derive(Debug)]
    struct Sooner(SimFs);
    impl cairn_io::Layer for Sooner {
        fn before(
            &self,
            call: cairn_io::Through,
            _: &Path,
            to: Option<&Path>,
        ) -> std::io::Result<()> {
            match (call, to) {
                (cairn_io::Through::Rename, Some(to)) => self.0.write_file(to, b"sooner"),
                _ => Ok(()),
            }
        }
    }
    let sim = SimFs::new();
    let fs = cairn_io::Layered::new(Arc::new(sim.clone()), Sooner(sim.clone()));
    let refused = Stack::options().fs(Arc::new(fs)).open("/stack").unwrap_err();
    assert!(matches!(refused, Error::Io { .. }), "{refused:?}");
    assert_eq!(sim.read_file("/stack").unwrap(), b"sooner");
    assert!(sim.read_file("/stack.tmp").is_err(), "what was made in vain is removed");
}

pub(crate) fn lock_file_removed() -> Result<(), String> {
    let (sim, stack) = machine();
    sim.remove_all("/data/stack.lock").unwrap();
    match open(&sim.second_process(), PATH) {
        Err(Error::Locked { .. }) => {}
        other => return Err(format!("a second writer: {other:?}")),
    }
    assert!(sim.read_file("/data/stack.lock").is_err(), "who was refused leaves nothing behind");
    drop(stack);
    Ok(())
}

#[test]
fn removing_the_lock_file_admits_no_second_writer() {
    lock_file_removed().unwrap();
}

pub(crate) fn files_are_still_open() -> Result<(), String> {
    for closed in [true, false] {
        let (sim, stack) = machine();
        let reader = stack.reader();
        let _child = sim.fork();
        match closed {
            true => stack.close().unwrap(),
            false => drop(stack),
        }
        let again = open(&sim.second_process(), PATH);
        again.map_err(|e| format!("closed: {closed}: {e}"))?.push(b"d").unwrap();
        drop(reader);
    }
    Ok(())
}

#[test]
fn a_closed_stack_is_not_locked_by_a_reader_or_a_child() {
    files_are_still_open().unwrap();
}

pub(crate) fn used_in_a_child() -> Result<(), String> {
    let (sim, stack) = machine();
    let refused = as_forked_child(|| {
        let calls = [
            ("push", stack.push(b"child").map(drop)),
            ("pop", stack.pop(1).map(drop)),
            ("sync", stack.sync()),
            ("transaction", stack.transaction(|tx| tx.push(b"child")).map(drop)),
        ];
        calls.into_iter().find(|(_, done)| !matches!(done, Err(Error::Forked)))
    });
    if let Some((call, done)) = refused {
        return Err(format!("{call} in a child: {done:?}"));
    }
    stack.push(b"d").unwrap();
    // The child ends, and drops what it has; the parent still has the lock.
    let reader = stack.reader();
    as_forked_child(|| drop(stack));
    match open(&sim, PATH) {
        Err(Error::Locked { .. }) => {}
        opened => return Err(format!("dropped in a child: {opened:?}")),
    }
    drop(reader);
    expect(&sim, PATH, b"abcd")
}

#[test]
fn a_handle_refuses_in_a_forked_child_and_goes_on_in_the_parent() {
    used_in_a_child().unwrap();
    let (_sim, stack) = machine();
    assert!(matches!(as_forked_child(|| stack.close()), Err(Error::Forked)));
}

#[cfg(unix)]
mod on_the_real_file_system {
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_link_is_followed_once() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("stack"), dir.path().join("link"));
        Stack::open(&file).unwrap().push(b"abc").unwrap();
        symlink(&file, &link).unwrap();
        let stack = Stack::open(&link).unwrap();
        // It is the file's own lock that counts.
        assert!(matches!(Stack::open(&file), Err(Error::Locked { .. })));
        std::fs::remove_file(&link).unwrap();
        symlink(dir.path().join("nowhere"), &link).unwrap();
        stack.push(b"d").unwrap();
        stack.close().unwrap();
        assert_eq!(Stack::open(&file).unwrap().peek(0).unwrap(), b"abcd");
        assert!(Stack::open(&link).is_err(), "a link to nothing is no place for a new stack");
    }

    #[test]
    fn a_pipe_under_a_stacks_name_blocks_no_opening() {
        for name in ["stack", "stack.lock"] {
            let dir = tempfile::tempdir().unwrap();
            let pipe = dir.path().join(name);
            assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
            let refused = Stack::open(dir.path().join("stack")).unwrap_err();
            let text = crate::model::chain(&refused);
            assert!(text.contains(name) && text.contains("not a regular file"), "{text}");
            assert!(cairn_stack::Inspection::open(dir.path().join("stack")).is_err());
        }
    }
}
