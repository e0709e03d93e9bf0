//! The calls that stand before those of the C library.
//!
//! Each looks up the one behind it by `dlsym(RTLD_NEXT)`. `open` and its like take a mode that is there only where a file may
//! be made; it is declared always, as the calling conventions of Linux allow, and passed on as it is.

use std::ffi::{CString, OsStr, c_char, c_int, c_uint, c_void};
use std::os::unix::ffi::OsStrExt as _;

use libc::{mode_t, off_t, size_t, ssize_t};

use crate::plan::{At, Verdict, verdict};

/// A call `name(args) -> ret`, counted as `word` for the file `at`; `half` is the call that does half of it.
macro_rules! call {
    ($name:ident($($arg:ident: $type:ty),*) -> $ret:ty, $word:expr, $at:expr $(, half ($($half:expr),*))?) => {
        #[doc = concat!("As the `", stringify!($name), "` of the C library.")]
        ///
        /// # Safety
        /// As there.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($arg: $type),*) -> $ret {
            // SAFETY: the function of that name in the next library has this signature; its arguments are the caller's.
            let real = |$($arg: $type),*| unsafe {
                let next = libc::dlsym(libc::RTLD_NEXT, concat!(stringify!($name), "\0").as_ptr().cast());
                let next: unsafe extern "C" fn($($type),*) -> $ret = std::mem::transmute(next);
                next($($arg),*)
            };
            match verdict($word, &$at) {
                Verdict::Pass => real($($arg),*),
                $(Verdict::Half => real($($half),*),)?
                #[allow(unreachable_patterns, reason = "calls that write have a half")]
                Verdict::Half => real($($arg),*),
                Verdict::Fail(number) => {
                    // SAFETY: the number of this thread's last error.
                    unsafe { *libc::__errno_location() = number };
                    -1
                }
            }
        }
    };
}

/// What opening is called: whether it may make a file.
fn opening(flags: c_int) -> &'static str {
    if flags & libc::O_CREAT == 0 { "open" } else { "create" }
}

const HERE: c_int = libc::AT_FDCWD;

call!(open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int, opening(flags), At::Path(HERE, path));
call!(open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int, opening(flags), At::Path(HERE, path));
call!(openat(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int, opening(flags), At::Path(dir, path));
call!(openat64(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int, opening(flags), At::Path(dir, path));
call!(creat(path: *const c_char, mode: mode_t) -> c_int, "create", At::Path(HERE, path));
call!(read(fd: c_int, to: *mut c_void, n: size_t) -> ssize_t, "read", At::Fd(fd));
call!(pread64(fd: c_int, to: *mut c_void, n: size_t, at: off_t) -> ssize_t, "pread", At::Fd(fd));
call!(write(fd: c_int, from: *const c_void, n: size_t) -> ssize_t, "write", At::Fd(fd), half (fd, from, half(n)));
call!(pwrite64(fd: c_int, from: *const c_void, n: size_t, at: off_t) -> ssize_t, "pwrite", At::Fd(fd), half (fd, from, half(n), at));
call!(writev(fd: c_int, from: *const libc::iovec, n: c_int) -> ssize_t, "writev", At::Fd(fd), half (fd, from, (n + 1) / 2));
call!(copy_file_range(from: c_int, at: *mut off_t, to: c_int, place: *mut off_t, n: size_t, flags: c_uint) -> ssize_t, "copy_file_range", At::Fd(to), half (from, at, to, place, half(n), flags));
call!(sendfile64(to: c_int, from: c_int, at: *mut off_t, n: size_t) -> ssize_t, "sendfile", At::Fd(to), half (to, from, at, half(n)));
call!(fsync(fd: c_int) -> c_int, "fsync", At::Fd(fd));
call!(fdatasync(fd: c_int) -> c_int, "fsync", At::Fd(fd));
call!(rename(from: *const c_char, to: *const c_char) -> c_int, "rename", At::Path(HERE, to));
call!(renameat(dir: c_int, from: *const c_char, to_dir: c_int, to: *const c_char) -> c_int, "rename", At::Path(to_dir, to));
call!(renameat2(dir: c_int, from: *const c_char, to_dir: c_int, to: *const c_char, flags: c_uint) -> c_int, "rename", At::Path(to_dir, to));
call!(mkdir(path: *const c_char, mode: mode_t) -> c_int, "mkdir", At::Path(HERE, path));
call!(mkdirat(dir: c_int, path: *const c_char, mode: mode_t) -> c_int, "mkdir", At::Path(dir, path));
call!(unlink(path: *const c_char) -> c_int, "unlink", At::Path(HERE, path));
call!(unlinkat(dir: c_int, path: *const c_char, flags: c_int) -> c_int, "unlink", At::Path(dir, path));
call!(rmdir(path: *const c_char) -> c_int, "rmdir", At::Path(HERE, path));
call!(ftruncate64(fd: c_int, length: off_t) -> c_int, "ftruncate", At::Fd(fd));
call!(posix_fallocate64(fd: c_int, at: off_t, length: off_t) -> c_int, "fallocate", At::Fd(fd));
call!(link(from: *const c_char, to: *const c_char) -> c_int, "link", At::Path(HERE, to));
call!(linkat(dir: c_int, from: *const c_char, to_dir: c_int, to: *const c_char, flags: c_int) -> c_int, "link", At::Path(to_dir, to));
call!(symlink(from: *const c_char, to: *const c_char) -> c_int, "symlink", At::Path(HERE, to));
call!(flock(fd: c_int, how: c_int) -> c_int, "flock", At::Fd(fd));
call!(stat64(path: *const c_char, to: *mut libc::stat64) -> c_int, "stat", At::Path(HERE, path));
call!(lstat64(path: *const c_char, to: *mut libc::stat64) -> c_int, "stat", At::Path(HERE, path));
call!(fstat64(fd: c_int, to: *mut libc::stat64) -> c_int, "stat", At::Fd(fd));
call!(statx(dir: c_int, path: *const c_char, flags: c_int, mask: c_uint, to: *mut libc::statx) -> c_int, "stat", of_statx(dir, path));

/// `statx` takes an empty path for the open file itself.
fn of_statx(dir: c_int, path: *const c_char) -> At {
    // SAFETY: the caller gives a string that ends with a zero, or none.
    let of_fd = path.is_null() || unsafe { *path } == 0;
    if of_fd { At::Fd(dir) } else { At::Path(dir, path) }
}

fn half(n: size_t) -> size_t {
    n.div_ceil(2)
}

/// Writes to the record, uncounted: it lies outside the folder.
pub(crate) fn write_through(fd: c_int, bytes: &[u8]) {
    // SAFETY: the bytes are there as long as the call lasts. A record that cannot be written is seen by its reader.
    unsafe { libc::syscall(libc::SYS_write, fd, bytes.as_ptr(), bytes.len()) };
}

/// Opens the record to append to.
pub(crate) fn open_through(path: &OsStr) -> Option<c_int> {
    let path = CString::new(path.as_bytes()).ok()?;
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND | libc::O_CLOEXEC;
    // SAFETY: the path ends with a zero.
    let fd = unsafe { libc::syscall(libc::SYS_openat, HERE, path.as_ptr(), flags, 0o644) };
    c_int::try_from(fd).ok().filter(|fd| *fd >= 0)
}
