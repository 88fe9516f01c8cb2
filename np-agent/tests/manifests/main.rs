//! A directory of manifests as the source of objects: what is read, what is refused and with
//! which words, and what stays in force.

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod kubectl;
#[cfg(test)]
mod lasting;
#[cfg(test)]
mod malformed;
#[cfg(test)]
mod meaning;
#[cfg(test)]
mod sizes;
#[cfg(test)]
mod support;
#[cfg(test)]
mod watching;
