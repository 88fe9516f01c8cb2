//! What a source hands over: one change of the cluster, and what is wrong with its objects now.

use super::{Invalid, Narrowed};
use np_policy::model::{Background, Change};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// In the order in which they count.
    pub changes: Vec<Change>,
    /// Every manifest that is refused now, in the order of files and lines.
    pub invalid: Vec<Invalid>,
    /// Everything of the API server's objects that is not understood now.
    pub narrowed: Vec<Narrowed>,
    /// What has not been seen as a whole since the start: until nothing is missing, nobody can say
    /// what is allowed.
    pub missing: Vec<String>,
    /// Documents of kinds that the agent does not enforce.
    pub ignored: usize,
    /// What manifests say beyond that; without the places of fields.
    pub background: Background,
    /// Why objects of an earlier process are in force that no manifest has.
    pub held: Option<String>,
}
