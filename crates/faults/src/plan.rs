//! Which operation fails, and how.

use std::ffi::{CStr, OsStr, c_char, c_int};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::SeqCst};

/// What happens at the operation; `FAULTS_KIND` is its name in small letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It fails with `EIO`.
    Eio,
    /// It fails with `ENOSPC`, if it is one that takes space; the next ones do not.
    Enospc,
    /// This one and all that follow fail with `ENOSPC`, if they take space: a full disk.
    Full,
    /// It fails with `EINTR`, if it is one that may.
    Eintr,
    /// This one and all that follow fail with `EROFS`, if they take space: a read-only file system.
    Readonly,
    /// If it writes, half is written, and the disk is full from then on.
    Short,
    /// The process is killed before it.
    Kill,
}

/// Calls that write content.
const WRITES: [&str; 6] = ["write", "writev", "pwrite", "copy_file_range", "sendfile", "fsync"];
/// Calls that take space otherwise; opening does where it makes a file.
const CREATES: [&str; 7] = ["create", "mkdir", "rename", "link", "symlink", "ftruncate", "fallocate"];
/// Calls that a signal may interrupt.
const INTERRUPTIBLE: [&str; 9] =
    ["open", "create", "read", "pread", "write", "writev", "pwrite", "fsync", "ftruncate"];

/// What a call does about it.
pub(crate) enum Verdict {
    Pass,
    /// Fails with this number.
    Fail(c_int),
    /// Writes half.
    Half,
}

/// The file that a call is about.
pub(crate) enum At {
    Fd(c_int),
    Path(c_int, *const c_char),
}

struct Plan {
    under: PathBuf,
    at: Option<u64>,
    kind: Kind,
    log: Option<c_int>,
}

static COUNT: AtomicU64 = AtomicU64::new(0);
/// The number that every operation that takes space fails with from now on, or 0.
static ALWAYS: AtomicI32 = AtomicI32::new(0);

/// Counts a call and tells what becomes of it.
pub(crate) fn verdict(name: &'static str, at: &At) -> Verdict {
    static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
    let Some(plan) = PLAN.get_or_init(Plan::told) else { return Verdict::Pass };
    let Some(path) = place(at).filter(|path| path.starts_with(&plan.under)) else { return Verdict::Pass };
    let count = COUNT.fetch_add(1, SeqCst) + 1;
    if let Some(log) = plan.log {
        let line = format!("{count} {name} {}\n", path.display());
        crate::calls::write_through(log, line.as_bytes());
    }
    let takes_space = WRITES.contains(&name) || CREATES.contains(&name);
    match ALWAYS.load(SeqCst) {
        0 => {}
        number if takes_space => return Verdict::Fail(number),
        _ => return Verdict::Pass,
    }
    if plan.at != Some(count) {
        return Verdict::Pass;
    }
    match plan.kind {
        Kind::Eio => Verdict::Fail(libc::EIO),
        Kind::Enospc if takes_space => Verdict::Fail(libc::ENOSPC),
        Kind::Full | Kind::Readonly => {
            let number = if plan.kind == Kind::Full { libc::ENOSPC } else { libc::EROFS };
            ALWAYS.store(number, SeqCst);
            if takes_space { Verdict::Fail(number) } else { Verdict::Pass }
        }
        Kind::Eintr if INTERRUPTIBLE.contains(&name) => Verdict::Fail(libc::EINTR),
        Kind::Short if WRITES.contains(&name) && name != "fsync" => {
            ALWAYS.store(libc::ENOSPC, SeqCst);
            Verdict::Half
        }
        Kind::Kill => {
            // SAFETY: a signal to this process, which does not come back.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
            Verdict::Pass
        }
        Kind::Enospc | Kind::Eintr | Kind::Short => Verdict::Pass,
    }
}

impl Plan {
    fn told() -> Option<Self> {
        let var = |name: &str| std::env::var(name).ok();
        let under = PathBuf::from(var("FAULTS_UNDER")?);
        let kind = match var("FAULTS_KIND").as_deref() {
            Some("enospc") => Kind::Enospc,
            Some("full") => Kind::Full,
            Some("readonly") => Kind::Readonly,
            Some("eintr") => Kind::Eintr,
            Some("short") => Kind::Short,
            Some("kill") => Kind::Kill,
            _ => Kind::Eio,
        };
        let at = var("FAULTS_AT").and_then(|text| text.parse().ok());
        let log = std::env::var_os("FAULTS_LOG").and_then(|path| crate::calls::open_through(&path));
        Some(Self { under, at, kind, log })
    }
}

/// The absolute path of what a call is about. Links are not followed.
fn place(at: &At) -> Option<PathBuf> {
    let of_fd = |fd: c_int| {
        let mut link = [0_u8; 4096];
        let name = format!("/proc/self/fd/{fd}\0");
        // SAFETY: the name ends with a zero, and the length is that of the buffer.
        let length = unsafe { libc::readlink(name.as_ptr().cast(), link.as_mut_ptr().cast(), link.len()) };
        usize::try_from(length).ok().map(|length| PathBuf::from(OsStr::from_bytes(&link[..length])))
    };
    match *at {
        At::Fd(fd) => of_fd(fd),
        At::Path(_, path) if path.is_null() => None,
        At::Path(folder, path) => {
            // SAFETY: the caller of the C function gives a string that ends with a zero.
            let path = Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes()));
            if path.is_absolute() {
                return Some(path.to_owned());
            }
            let folder = if folder == libc::AT_FDCWD { std::env::current_dir().ok() } else { of_fd(folder) };
            Some(folder?.join(path))
        }
    }
}
