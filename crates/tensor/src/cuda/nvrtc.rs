//! CUDA C++ to machine code, with NVRTC. Needs no GPU.

use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr;

use cudarc::nvrtc::sys::{self, nvrtcProgram, nvrtcResult};

use super::cache;
use super::kernels::Source;
use super::libraries;
use super::libraries::Lib;
use crate::device::DType;
use crate::error::{Error, Result};

/// The headers that every kernel may include, by name.
const HEADERS: [(&CStr, &str); 4] = [
    (c"common.cuh", include_str!("common.cuh")),
    (c"tensor_cores.cuh", include_str!("tensor_cores.cuh")),
    (c"warpgroup.cuh", include_str!("warpgroup.cuh")),
    (c"clusters.cuh", include_str!("clusters.cuh")),
];

/// What NVRTC made of a source.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// Machine code of one architecture.
    pub cubin: Vec<u8>,
    /// Warnings, and registers, shared memory and spills of each kernel as the assembler reports them.
    pub log: String,
}

/// Compiles a source for an element type and an architecture such as `sm_90`.
pub fn compile(source: &Source, elem: DType, arch: &str) -> Result<Vec<u8>> {
    run(source, &options(elem, arch)).map(|compiled| compiled.cubin)
}

/// As [`compile`], with the resources that each kernel takes in the log.
pub fn compile_verbose(source: &Source, elem: DType, arch: &str) -> Result<Compiled> {
    let mut options = options(elem, arch);
    options.push("--ptxas-options=-v".to_owned());
    run(source, &options)
}

/// Keeps what [`compile_verbose`] made in the cache of kernels, `false` where there is none: a machine with a GPU of
/// this architecture, this version of NVRTC and this cache then compiles nothing.
pub fn keep(source: &Source, elem: DType, arch: &str, compiled: &Compiled) -> Result<bool> {
    let Some(folder) = cache::folder() else { return Ok(false) };
    cache::keep(&folder, &inputs(source, elem, arch)?, &compiled.cubin).map_err(|error| Error::Cuda {
        call: format!("keeping {} in {}", source.name, folder.display()),
        reason: error.to_string(),
    })?;
    Ok(true)
}

/// Everything that the machine code depends on.
pub(super) fn inputs(source: &Source, elem: DType, arch: &str) -> Result<Vec<String>> {
    let mut inputs = vec![version()?, source.name.to_owned(), source.text.to_owned()];
    inputs.extend(HEADERS.map(|(_, text)| text.to_owned()));
    inputs.extend(options(elem, arch));
    Ok(inputs)
}

/// No fast mathematics: division, square root and denormals are those of IEEE 754.
fn options(elem: DType, arch: &str) -> Vec<String> {
    let mut options = vec![
        format!("--gpu-architecture={arch}"),
        "--std=c++17".to_owned(),
        "--generate-line-info".to_owned(),
    ];
    if elem == DType::BF16 {
        options.push("-DELEM_BF16=1".to_owned());
    }
    options
}

fn version() -> Result<String> {
    libraries::require(Lib::Nvrtc)?;
    let (mut major, mut minor) = (0, 0);
    // SAFETY: NVRTC is loaded; both pointers are to locals.
    check("nvrtcVersion", unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) })?;
    Ok(format!("{major}.{minor}"))
}

fn run(source: &Source, options: &[String]) -> Result<Compiled> {
    libraries::require(Lib::Nvrtc)?;
    let rejected = |log: String| Error::KernelCompile { file: source.name.to_owned(), log };
    let text = |text: &str| CString::new(text).map_err(|_| rejected(format!("a zero byte in {text:?}")));
    let program = Program::new(&text(source.text)?, &text(source.name)?)?;
    let options = options.iter().map(|option| text(option)).collect::<Result<Vec<_>>>()?;
    let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
    // SAFETY: the program lives; the pointers are to terminated strings that outlive the call.
    let status = unsafe { sys::nvrtcCompileProgram(program.0, pointers.len() as c_int, pointers.as_ptr()) };
    let log = program.log()?;
    if status != nvrtcResult::NVRTC_SUCCESS {
        return Err(rejected(format!("{status:?}\n{log}")));
    }
    Ok(Compiled { cubin: program.cubin()?, log })
}

struct Program(nvrtcProgram);

impl Program {
    fn new(text: &CStr, name: &CStr) -> Result<Self> {
        let texts = HEADERS.map(|(_, text)| CString::new(text).expect("a header has no zero byte"));
        let (headers, names) =
            (texts.each_ref().map(|text| text.as_ptr()), HEADERS.map(|(name, _)| name.as_ptr()));
        let mut program = ptr::null_mut();
        // SAFETY: NVRTC is loaded and copies the terminated strings; there are as many names as headers.
        check("nvrtcCreateProgram", unsafe {
            sys::nvrtcCreateProgram(
                &raw mut program,
                text.as_ptr(),
                name.as_ptr(),
                HEADERS.len() as c_int,
                headers.as_ptr(),
                names.as_ptr(),
            )
        })?;
        Ok(Program(program))
    }

    fn log(&self) -> Result<String> {
        let mut size = 0;
        // SAFETY: the program lives; `size` counts the final zero byte, and the buffer is as long.
        let bytes = unsafe {
            check("nvrtcGetProgramLogSize", sys::nvrtcGetProgramLogSize(self.0, &raw mut size))?;
            let mut bytes = vec![0u8; size];
            check("nvrtcGetProgramLog", sys::nvrtcGetProgramLog(self.0, bytes.as_mut_ptr().cast()))?;
            bytes
        };
        let text = String::from_utf8_lossy(&bytes);
        Ok(text.trim_end_matches('\0').trim().to_owned())
    }

    fn cubin(&self) -> Result<Vec<u8>> {
        let mut size = 0;
        // SAFETY: the program lives; the buffer is as long as NVRTC says.
        unsafe {
            check("nvrtcGetCUBINSize", sys::nvrtcGetCUBINSize(self.0, &raw mut size))?;
            let mut bytes = vec![0u8; size];
            check("nvrtcGetCUBIN", sys::nvrtcGetCUBIN(self.0, bytes.as_mut_ptr().cast()))?;
            Ok(bytes)
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: made in `new`, destroyed once.
        let _ = unsafe { sys::nvrtcDestroyProgram(&raw mut self.0) };
    }
}

fn check(call: &str, status: nvrtcResult) -> Result<()> {
    if status == nvrtcResult::NVRTC_SUCCESS {
        return Ok(());
    }
    Err(Error::Cuda { call: call.to_owned(), reason: format!("{status:?}") })
}
