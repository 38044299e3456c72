//! What the servers are put through, a question a file.

pub(crate) mod fan_out;
pub(crate) mod idle;
pub(crate) mod megaphone;
pub(crate) mod publish;
pub(crate) mod replay;
pub(crate) mod slow;
