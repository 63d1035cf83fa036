//! The file beside the segments that says whose opening is the newest, and how far the log reaches.

use std::io;

use cairn_io::{Access, FileStore, Store, read_full_at};

use super::stated::Stated;
use super::{Directory, STATE_NAME};
use crate::error::Result;
use crate::format::{STATE_LEN, StateRecord, newest_state};

impl Directory {
    /// Creates the state file of a new log, unless an interrupted creation left it. It says that
    /// much before there is a segment, and tells of an opening only then. So a state of an opening
    /// beside no segment is what a loss leaves; and whatever tears the first record of an opening
    /// leaves this one.
    pub(crate) fn make_state(&self) -> Result<()> {
        match self.dir.create_new(STATE_NAME.as_ref()) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(self.error("create", STATE_NAME)(e));
            }
            _ => {}
        }
        self.write_state(&StateRecord::default())
    }

    /// What the state file says.
    pub(crate) fn state(&self) -> Result<Stated> {
        let file = match self.dir.open(STATE_NAME.as_ref(), Access::Read) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Stated::Missing),
            file => file.map_err(self.error("open", STATE_NAME))?,
        };
        let mut bytes = vec![0; STATE_LEN];
        let read = read_full_at(&*file, 0, &mut bytes).map_err(self.error("read", STATE_NAME))?;
        Ok(match newest_state(&bytes[..read]) {
            Ok(None) => Stated::Nothing,
            Ok(Some(state)) => Stated::Record(state),
            Err(()) => Stated::Damaged,
        })
    }

    /// In place: one sector, which the disk writes whole, in a block of its own beside that of the
    /// record before.
    pub(super) fn write_state(&self, state: &StateRecord) -> Result<()> {
        let error = |op| self.error(op, STATE_NAME);
        let file = match self.state.get() {
            Some(file) => file.clone(),
            None => {
                let file = self.dir.open(STATE_NAME.as_ref(), Access::ReadWrite);
                let file = file.map_err(error("open"))?;
                self.state.get_or_init(|| file).clone()
            }
        };
        let store = FileStore::new(file);
        let len = store.len().map_err(error("measure"))?;
        if len < STATE_LEN as u64 {
            // Later records need no space.
            store.write_at(0, &[0; STATE_LEN]).map_err(error("write to"))?;
        }
        store.write_at(state.offset(), &state.encode()[..]).map_err(error("write to"))?;
        store.sync().map_err(error("sync"))
    }
}
