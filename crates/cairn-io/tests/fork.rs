//! A real fork: the child knows that it is one. Alone in its process, because a child of a process
//! with threads has locks that nobody gives back.
#![cfg(target_os = "linux")]
#![allow(unsafe_code, reason = "there is no safe fork")]

use cairn_io::Process;

#[test]
fn a_forked_child_knows_that_it_is_one() {
    let parent = Process::current();
    // SAFETY: the child loads an atomic and exits, which any child may.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let code = i32::from(parent.is_current() || !Process::current().is_current());
        // SAFETY: ends the child, and nothing else.
        unsafe { libc::_exit(code) };
    }
    assert!(child > 0, "no fork");
    let mut status = -1;
    // SAFETY: `status` lives as long as the call.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!((waited, status), (child, 0));
    assert!(parent.is_current());
}
