//! What the threads around the agent tell it, in the order in which it happened.

use crate::attaching::Report;
use crate::doorkeeper::Heard;
use np_policy::plan::Tables;

#[derive(Debug)]
pub enum Message {
    /// What has happened to devices, and what was done about it at once.
    Devices(Vec<Heard>),
    /// The devices cannot be followed; none when they can again.
    Blind(Option<String>),
    Attachment(Report),
    /// What the maps held some time since this was asked.
    Dump(Result<Box<Tables>, String>),
}
