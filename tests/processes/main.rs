//! Stories with the real program: processes of their own, real files, real sockets on loopback.

mod crashes;
mod disks;
mod folders;
mod links;
mod node;
