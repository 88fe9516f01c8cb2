//! Findings about manifests: what is found, where, and above all what is not.

#[cfg(test)]
mod blocks;
#[cfg(test)]
mod command;
#[cfg(test)]
mod documentation;
#[cfg(test)]
mod examples;
#[cfg(test)]
mod precision;
#[cfg(test)]
mod support;
