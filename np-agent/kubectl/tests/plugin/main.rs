//! The command `kubectl-np` over a kubectl that is a script: whom it asks, what it prints, how it exits.

#[cfg(test)]
mod all;
#[cfg(test)]
mod explain;
#[cfg(test)]
mod one;
#[cfg(test)]
mod running;
#[cfg(test)]
mod support;
