//! The one macro that declares a map type.

/// Declares a `repr(C)` struct that may lie in a map: its size is asserted, so that padding shows
/// up as a compile error, and user space gets `aya::Pod` for it.
macro_rules! map_type {
    ($(#[$meta:meta])* pub struct $name:ident: $size:literal bytes { $($(#[$field_meta:meta])* $vis:vis $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(C)]
        pub struct $name {
            $($(#[$field_meta])* $vis $field: $type,)*
        }

        impl $name {
            /// Its fields in order, as the programs and the agent agree on them.
            #[cfg(feature = "user")]
            pub const LAYOUT: &str = concat!(
                stringify!($name), " ", $size,
                $(" ", stringify!($field), ":", stringify!($type),)*
            );
        }

        // The sum of the fields equals the whole: there is no padding to leak or to compare.
        const _: () = assert!(size_of::<$name>() == $size);
        const _: () = assert!(0 $(+ size_of::<$type>())* == $size);

        // SAFETY: repr(C), every field is itself plain data, and there is no padding (asserted
        // above), so any bit pattern of that size is a value and every byte is initialised.
        #[cfg(feature = "user")]
        unsafe impl aya::Pod for $name {}
    };
}

pub(crate) use map_type;
