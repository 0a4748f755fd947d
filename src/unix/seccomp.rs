//! System calls that a program never makes again (seccomp(2)).
//!
//! A list of what is refused, not of what is allowed: it needs no change when the C library takes to
//! another way of doing the same. What is refused fails with EPERM, as for a user who may not, and
//! kills nobody.

use std::io;

/// What a program can do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// To change the machine: its kernel, its clock, its swap.
    Machine,
    /// To look into other processes, to mount, to change namespaces, and the large doors into the
    /// kernel that have let many through.
    Depths,
    /// To run programs.
    Programs,
    /// To become another user.
    Identity,
    /// Sockets of other families than Unix, IPv4, IPv6, and netlink, which getaddrinfo(3) needs.
    OtherSockets,
}

impl Power {
    /// All that a program can do without which serves by itself, as the user that it is.
    pub const ALL: &'static [Power] =
        &[Power::Machine, Power::Depths, Power::Programs, Power::Identity, Power::OtherSockets];

    fn calls(self) -> &'static [libc::c_long] {
        match self {
            Power::Machine => MACHINE,
            Power::Depths => DEPTHS,
            Power::Programs => &[libc::SYS_execve, libc::SYS_execveat],
            Power::Identity => IDENTITY,
            // Refused by its arguments.
            Power::OtherSockets => &[],
        }
    }
}

/// Only root may these anyway.
const MACHINE: &[libc::c_long] = &[
    libc::SYS_acct,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_open_by_handle_at,
    libc::SYS_reboot,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
];

const DEPTHS: &[libc::c_long] = &[
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_fanotify_init,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_keyctl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_personality,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
];

const IDENTITY: &[libc::c_long] = &[
    libc::SYS_capset,
    libc::SYS_setfsgid,
    libc::SYS_setfsuid,
    libc::SYS_setgid,
    libc::SYS_setgroups,
    libc::SYS_setregid,
    libc::SYS_setresgid,
    libc::SYS_setresuid,
    libc::SYS_setreuid,
    libc::SYS_setuid,
];

const SOCKET_FAMILIES: [libc::c_int; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
const NAMESPACES: libc::c_int = libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWUTS;

/// AUDIT_ARCH_… of linux/audit.h: whose numbers the calls have here.
const ARCHITECTURE: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(0xC000_003E)
} else if cfg!(target_arch = "aarch64") {
    Some(0xC000_00B7)
} else {
    None
};
/// Numbers from here on are of x32, another way to make the same calls.
const X32: u32 = 0x4000_0000;

/// Gives these up for good: this thread, and all that it starts from now on. To be called before there
/// are others, after no_new_privs. Whether this kernel (and this architecture) can do it.
pub(super) fn give_up(powers: &[Power]) -> io::Result<bool> {
    let Some(architecture) = ARCHITECTURE.filter(|_| !powers.is_empty()) else { return Ok(false) };
    let mut program = filter(architecture, powers);
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies a program of the given length, which outlives the call.
    if unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) } == 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        // prctl(2): the kernel was built without.
        error if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        error => Err(error),
    }
}

type Step = libc::sock_filter;

// Where they lie in struct seccomp_data (linux/seccomp.h).
const NUMBER: u32 = 0;
const CALLERS_ARCHITECTURE: u32 = 4;
/// The lower half, on a machine that has it first: both of ours do.
const FIRST_ARGUMENT: u32 = 16;

/// The program that the kernel asks about each call. It ends with the first answer.
fn filter(architecture: u32, powers: &[Power]) -> Vec<Step> {
    let refused = answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
    let allowed = answer(libc::SECCOMP_RET_ALLOW);
    let mut program =
        vec![load(CALLERS_ARCHITECTURE), if_so(libc::BPF_JEQ, architecture, 1), refused, load(NUMBER)];
    if cfg!(target_arch = "x86_64") {
        program.extend([unless(libc::BPF_JGE, X32, 1), refused]);
    }
    for call in powers.iter().flat_map(|power| power.calls()) {
        program.extend([unless(libc::BPF_JEQ, *call as u32, 1), refused]);
    }
    if powers.contains(&Power::Depths) {
        // The flags of clone3(2) can't be seen from here; without it the C library takes clone(2).
        let missing = answer(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);
        program.extend([unless(libc::BPF_JEQ, libc::SYS_clone3 as u32, 1), missing]);
        program.extend([unless(libc::BPF_JEQ, libc::SYS_clone as u32, 4), load(FIRST_ARGUMENT)]);
        program.extend([unless(libc::BPF_JSET, NAMESPACES as u32, 1), refused, allowed]);
    }
    if powers.contains(&Power::OtherSockets) {
        let count = SOCKET_FAMILIES.len() as u8;
        program.extend([unless(libc::BPF_JEQ, libc::SYS_socket as u32, count + 2), load(FIRST_ARGUMENT)]);
        // Each of them jumps over those behind it, and over the refusal.
        let known = SOCKET_FAMILIES.iter().zip((1..=count).rev());
        program.extend(known.map(|(family, behind)| if_so(libc::BPF_JEQ, *family as u32, behind)));
        program.push(refused);
    }
    program.push(allowed);
    program
}

fn step(code: u32, jump_true: u8, jump_false: u8, value: u32) -> Step {
    Step { code: code as u16, jt: jump_true, jf: jump_false, k: value }
}

/// Looks at four bytes of the call.
fn load(at: u32) -> Step {
    step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, at)
}

fn answer(word: u32) -> Step {
    step(libc::BPF_RET | libc::BPF_K, 0, 0, word)
}

/// Skips so many steps if what was looked at compares so with `value`.
fn if_so(comparison: u32, value: u32, skipped: u8) -> Step {
    step(libc::BPF_JMP | comparison | libc::BPF_K, skipped, 0, value)
}

/// Skips so many steps if it does not.
fn unless(comparison: u32, value: u32, skipped: u8) -> Step {
    step(libc::BPF_JMP | comparison | libc::BPF_K, 0, skipped, value)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::unix::privilege;

    /// What a call answers in here.
    fn call(number: libc::c_long, first: libc::c_long) -> Option<i32> {
        let none: libc::c_long = 0;
        // SAFETY: plain numbers and null pointers, which none of the calls that are tried here reads.
        let done = unsafe { libc::syscall(number, first, none, none, none, none) };
        (done < 0).then(|| io::Error::last_os_error().raw_os_error()).flatten()
    }

    /// In a thread of its own, which alone is without them; nothing where the kernel can't.
    fn without<T: Send + 'static>(powers: &'static [Power], work: fn() -> T) -> Option<T> {
        let thread = std::thread::spawn(move || {
            privilege::no_new_privileges().unwrap();
            give_up(powers).unwrap().then(work)
        });
        thread.join().unwrap()
    }

    #[test]
    fn what_is_given_up_is_refused_and_the_rest_works() {
        let done = without(Power::ALL, || {
            for number in MACHINE.iter().chain(DEPTHS).chain(IDENTITY) {
                assert_eq!(call(*number, -1), Some(libc::EPERM), "call {number}");
            }
            for family in [libc::AF_ALG, libc::AF_PACKET, libc::AF_VSOCK, libc::AF_BLUETOOTH] {
                assert_eq!(call(libc::SYS_socket, family.into()), Some(libc::EPERM), "family {family}");
            }
            assert_eq!(call(libc::SYS_clone, libc::CLONE_NEWUSER.into()), Some(libc::EPERM));
            assert_eq!(call(libc::SYS_clone3, 0), Some(libc::ENOSYS));
            let error = Command::new("/bin/true").status().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EPERM));
            // All that a server does.
            std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            std::os::unix::net::UnixStream::pair().unwrap();
            std::thread::spawn(|| ()).join().unwrap();
            std::fs::read_to_string("/proc/thread-self/status").unwrap()
        });
        if let Some(status) = done {
            assert!(status.contains("\nSeccomp:\t2\n") && status.contains("\nNoNewPrivs:\t1\n"), "{status}");
        }
    }

    #[test]
    fn each_power_is_given_up_by_itself() {
        let runs = without(&[Power::Machine, Power::Depths], || Command::new("/bin/true").status());
        assert!(runs.is_none_or(|status| status.unwrap().success()));
        let done = without(&[Power::OtherSockets], || {
            let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_ALG];
            families.map(|family| call(libc::SYS_socket, family.into()) == Some(libc::EPERM))
        });
        assert!(done.is_none_or(|refused| refused == [false, false, false, false, true]));
    }
}
