//! The engine, its delivery and a store stand-in, through the public interface alone.

mod cases;
mod commit;
mod delivery;
mod golden;
mod limits;
mod random;
mod rig;
mod show;
