//! The engine, its delivery and a store stand-in, through the public interface alone.

mod golden;
mod rig;
mod show;
