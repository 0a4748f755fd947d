//! What is left of root's powers (capabilities(7)).

use std::io;

/// A power that root may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    /// CAP_DAC_READ_SEARCH: to read any file.
    ReadAnyFile = 2,
}

/// _LINUX_CAPABILITY_VERSION_3
const VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Set {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Gives up all powers but these, for good: this thread, and all that it starts from now on. To be
/// called before there are others. A process that has none has none to lose.
pub fn keep_only(kept: &[Capability]) -> io::Result<()> {
    for number in 0..64 {
        let keep = kept.iter().any(|capability| *capability as libc::c_ulong == number);
        // SAFETY: plain numbers. A number that the kernel doesn't know is EINVAL, and a process that may
        // not change its bounding set has no power to gain by it.
        if !keep && unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) } != 0 {
            match io::Error::last_os_error().raw_os_error() {
                Some(libc::EINVAL | libc::EPERM) => {}
                _ => return Err(io::Error::last_os_error()),
            }
        }
    }
    let mut header = Header { version: VERSION, pid: 0 };
    let mut sets = [Set::default(); 2];
    // SAFETY: the two structures of capget(2), in the version that is named, which outlive the call.
    if unsafe { libc::syscall(libc::SYS_capget, &mut header, sets.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mask = kept.iter().fold(0_u32, |mask, capability| mask | 1 << *capability as u32);
    sets[0] =
        Set { effective: sets[0].effective & mask, permitted: sets[0].permitted & mask, inheritable: 0 };
    sets[1] = Set::default();
    // SAFETY: as above; capset only reads them.
    if unsafe { libc::syscall(libc::SYS_capset, &mut header, sets.as_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_kept_is_left() {
        // In a thread of its own, which alone loses them.
        let status = std::thread::spawn(|| {
            keep_only(&[Capability::ReadAnyFile]).unwrap();
            std::fs::read_to_string("/proc/thread-self/status").unwrap()
        });
        let status = status.join().unwrap();
        let set = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            u64::from_str_radix(line.trim(), 16).unwrap()
        };
        for name in ["CapEff:", "CapPrm:"] {
            assert_eq!(set(name) & !4, 0, "{status}");
        }
        assert_eq!(set("CapInh:"), 0);
    }
}
