//! Trees without empty places.

use std::mem;

/// Rebuilds an ordered set or map with full nodes: one that grew in ascending order, as it does
/// from a list of objects, is half empty.
pub fn pack<T: Default + IntoIterator + FromIterator<T::Item>>(tree: &mut T) {
    *tree = mem::take(tree).into_iter().collect();
}
