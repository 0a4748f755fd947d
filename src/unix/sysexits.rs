//! Exit codes of programs (sysexits(3)): what a shell script or a mail program makes of our end.

/// All went well.
pub const OK: u8 = 0;
/// The command line is wrong.
pub const USAGE: u8 = 64;
/// The input is wrong: an address, a message.
pub const DATA: u8 = 65;
/// There is no such user.
pub const NO_USER: u8 = 67;
/// A service is not there.
pub const UNAVAILABLE: u8 = 69;
/// A fault of our own.
pub const SOFTWARE: u8 = 70;
/// The operating system refused a call.
pub const OSERR: u8 = 71;
/// A file can't be made.
pub const CANTCREAT: u8 = 73;
/// A read or a write failed.
pub const IOERR: u8 = 74;
/// It did not work this time; the caller may try again.
pub const TEMPFAIL: u8 = 75;
/// The caller may not do that.
pub const NOPERM: u8 = 77;
/// The configuration is wrong.
pub const CONFIG: u8 = 78;
