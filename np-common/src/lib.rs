#![no_std]
pub mod direction;
pub mod packet;
