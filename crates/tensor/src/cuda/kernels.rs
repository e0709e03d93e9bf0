//! Kernels: from a `.cu` file to a launch on the stream.

use std::collections::HashMap;
use std::ffi::{CString, c_int, c_void};
use std::ptr;

use cudarc::driver::sys::{self, CUfunction, CUfunction_attribute as Attribute, CUmodule, CUresult};

use super::cache::{self, Outcome};
use super::gpu::{Gpu, lock};
use super::profile::Work;
use super::tma::TensorMap;
use super::{check, nvrtc};
use crate::device::DType;
use crate::error::{Error, Result};

/// A `.cu` file. Its kernels are `extern "C" __global__`, and are written once for both element types by means of
/// `elem` of `common.cuh`.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// File name, for messages.
    pub name: &'static str,
    /// Its text, by `include_str!`.
    pub text: &'static str,
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arg {
    /// A device address; 0 is a null pointer.
    Ptr(u64),
    /// A device address, and how many bytes the kernel reads and writes there: for profiles.
    Span(u64, u64),
    /// `int`.
    I32(i32),
    /// `long long`.
    I64(i64),
    /// `float`.
    F32(f32),
    /// `unsigned long long`.
    U64(u64),
    /// 128 bytes, by `const __grid_constant__`.
    Map(TensorMap),
    /// 32 floats in one struct, likewise.
    Floats([f32; 32]),
}

impl Arg {
    /// Its value, in the first bytes.
    fn words(self) -> [u64; 16] {
        let first = match self {
            Arg::Ptr(value) | Arg::Span(value, _) | Arg::U64(value) => value,
            Arg::I64(value) => value as u64,
            Arg::I32(value) => u64::from(value as u32),
            Arg::F32(value) => u64::from(value.to_bits()),
            Arg::Map(map) => return map.words,
            Arg::Floats(values) => {
                let word = |i: usize| u64::from(values[i].to_bits());
                return std::array::from_fn(|i| word(2 * i) | word(2 * i + 1) << 32);
            }
        };
        let mut words = [0; 16];
        words[0] = first;
        words
    }

    /// Bytes that the kernel reads or writes there.
    fn span(self) -> u64 {
        match self {
            Arg::Span(_, bytes) => bytes,
            Arg::Map(map) => map.bytes,
            _ => 0,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Arg::Ptr(_) | Arg::Span(..) | Arg::I64(_) | Arg::U64(_) => 8,
            Arg::I32(_) | Arg::F32(_) => 4,
            Arg::Map(_) | Arg::Floats(_) => 128,
        }
    }
}

/// How the kernels of a [`Gpu`] came to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelStats {
    /// Sources compiled by NVRTC.
    pub compiled: usize,
    /// Sources read from the disk cache.
    pub cached: usize,
    /// Why a compiled source was not kept on disk, if that happened.
    pub not_stored: Option<String>,
}

impl Gpu {
    /// Launches a kernel on the stream; compiles and loads its source if this is the first use.
    ///
    /// Number and sizes of the arguments are held against the kernel's own. A grid with a zero launches nothing.
    /// Dynamic shared memory beyond 48 KiB is opted in to.
    #[expect(clippy::too_many_arguments, reason = "they are the launch")]
    pub fn launch(
        &self,
        source: &Source,
        elem: DType,
        kernel: &str,
        grid: [u32; 3],
        block: [u32; 3],
        shared_bytes: usize,
        args: &[Arg],
    ) -> Result<()> {
        self.bind()?;
        let mut kernels = lock(&self.kernels);
        let function = kernels.function(self, source, elem, kernel)?;
        function.check(args).map_err(|reason| failed(source, kernel, reason))?;
        if grid.contains(&0) {
            return Ok(());
        }
        function.allow_shared(shared_bytes).map_err(|status| {
            failed(source, kernel, format!("{shared_bytes} B of shared memory: {}", check::describe(status)))
        })?;
        let mut values: Vec<[u64; 16]> = args.iter().map(|arg| arg.words()).collect();
        let mut pointers: Vec<*mut c_void> =
            values.iter_mut().map(|value| ptr::from_mut(value).cast()).collect();
        // SAFETY: the function lives as long as `self`; each pointer is to as many bytes as the kernel reads (checked
        // above; little-endian, so a 4-byte value comes first in its 8), and the driver copies them in the call.
        let status = unsafe {
            sys::cuLaunchKernel(
                function.handle,
                grid[0],
                grid[1],
                grid[2],
                block[0],
                block[1],
                block[2],
                shared_bytes as u32,
                self.stream,
                pointers.as_mut_ptr(),
                ptr::null_mut(),
            )
        };
        if status == CUresult::CUDA_SUCCESS {
            drop(kernels);
            return self.note(|| Work {
                name: source.name.trim_end_matches(".cu"),
                detail: kernel.to_owned(),
                bytes: args.iter().map(|arg| arg.span()).sum(),
                flops: 0.0,
            });
        }
        let reason = check::describe(status);
        Err(failed(
            source,
            kernel,
            format!("{reason}, grid {grid:?}, block {block:?}, {shared_bytes} B of shared memory"),
        ))
    }

    /// How the kernels used so far came to be.
    pub fn kernel_stats(&self) -> KernelStats {
        lock(&self.kernels).stats.clone()
    }
}

fn failed(source: &Source, kernel: &str, reason: String) -> Error {
    Error::Cuda { call: format!("kernel {kernel} of {}", source.name), reason }
}

/// The loaded modules of one device.
#[derive(Default)]
pub(super) struct Kernels {
    /// By address of the source's text, which no two sources share.
    modules: HashMap<(usize, DType), Module>,
    stats: KernelStats,
}

struct Module {
    handle: CUmodule,
    functions: HashMap<String, Function>,
}

struct Function {
    handle: CUfunction,
    /// Bytes of each parameter.
    params: Vec<usize>,
    /// Bytes of dynamic shared memory that a launch may ask for.
    shared_limit: usize,
}

impl Kernels {
    fn function(&mut self, gpu: &Gpu, source: &Source, elem: DType, kernel: &str) -> Result<&mut Function> {
        let key = (source.text.as_ptr() as usize, elem);
        if !self.modules.contains_key(&key) {
            let cubin = self.cubin(gpu, source, elem)?;
            self.modules.insert(key, Module::load(source, &cubin)?);
        }
        let module = self.modules.get_mut(&key).expect("inserted above");
        if !module.functions.contains_key(kernel) {
            let function = Function::of(module.handle, source, kernel)?;
            module.functions.insert(kernel.to_owned(), function);
        }
        Ok(module.functions.get_mut(kernel).expect("inserted above"))
    }

    fn cubin(&mut self, gpu: &Gpu, source: &Source, elem: DType) -> Result<Vec<u8>> {
        let arch = gpu.arch();
        let inputs = nvrtc::inputs(source, elem, &arch)?;
        let compile = || nvrtc::compile(source, elem, &arch);
        let (cubin, outcome) = cache::get(cache::folder().as_deref(), &inputs, compile)?;
        match outcome {
            Outcome::Hit => self.stats.cached += 1,
            Outcome::Stored => self.stats.compiled += 1,
            Outcome::NotStored(reason) => {
                self.stats.compiled += 1;
                self.stats.not_stored = Some(reason);
            }
        }
        Ok(cubin)
    }

    /// Needs the context to be current and the stream to be idle.
    pub(super) fn unload(&mut self) {
        for (_, module) in self.modules.drain() {
            // SAFETY: loaded by `Module::load`, unloaded once; an error at the end has no remedy.
            let _ = unsafe { sys::cuModuleUnload(module.handle) };
        }
    }
}

impl Module {
    fn load(source: &Source, cubin: &[u8]) -> Result<Self> {
        let mut handle = ptr::null_mut();
        // SAFETY: the context is current; `cubin` is a whole ELF image, as NVRTC made it, that states its own length.
        let status = unsafe { sys::cuModuleLoadData(&raw mut handle, cubin.as_ptr().cast()) };
        check::driver(&format!("cuModuleLoadData of {}", source.name), status)?;
        Ok(Module { handle, functions: HashMap::new() })
    }
}

impl Function {
    fn of(module: CUmodule, source: &Source, kernel: &str) -> Result<Self> {
        let name =
            CString::new(kernel).map_err(|_| failed(source, kernel, "a zero byte in its name".into()))?;
        let mut handle = ptr::null_mut();
        // SAFETY: the module is loaded and the name terminated.
        let status = unsafe { sys::cuModuleGetFunction(&raw mut handle, module, name.as_ptr()) };
        if status != CUresult::CUDA_SUCCESS {
            let reason = format!("not found in it ({}); is it extern \"C\"?", check::describe(status));
            return Err(failed(source, kernel, reason));
        }
        let mut params = Vec::new();
        loop {
            let (mut offset, mut size) = (0, 0);
            // SAFETY: the function is of a loaded module; an index past the last is refused, which ends the loop.
            match unsafe { sys::cuFuncGetParamInfo(handle, params.len(), &raw mut offset, &raw mut size) } {
                CUresult::CUDA_SUCCESS => params.push(size),
                CUresult::CUDA_ERROR_INVALID_VALUE => break,
                other => check::driver("cuFuncGetParamInfo", other)?,
            }
        }
        let mut fixed: c_int = 0;
        // SAFETY: the function is of a loaded module, the value a local.
        check::driver("cuFuncGetAttribute", unsafe {
            let attribute = Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES;
            sys::cuFuncGetAttribute(&raw mut fixed, attribute, handle)
        })?;
        Ok(Function { handle, params, shared_limit: UNASKED_SHARED.saturating_sub(fixed as usize) })
    }

    fn check(&self, args: &[Arg]) -> std::result::Result<(), String> {
        fits(&self.params, args)
    }

    fn allow_shared(&mut self, bytes: usize) -> std::result::Result<(), CUresult> {
        if bytes <= self.shared_limit {
            return Ok(());
        }
        let attribute = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function is of a loaded module; the driver refuses more than the device has.
        match unsafe { sys::cuFuncSetAttribute(self.handle, attribute, bytes as c_int) } {
            CUresult::CUDA_SUCCESS => {
                self.shared_limit = bytes;
                Ok(())
            }
            refused => Err(refused),
        }
    }
}

/// Bytes of shared memory, fixed and dynamic, that every kernel gets without opting in.
const UNASKED_SHARED: usize = 48 << 10;

/// Whether arguments have the number and the sizes of a kernel's parameters.
fn fits(params: &[usize], args: &[Arg]) -> std::result::Result<(), String> {
    if params.len() != args.len() {
        return Err(format!("it takes {} arguments and was given {}", params.len(), args.len()));
    }
    for (place, (param, arg)) in params.iter().zip(args).enumerate() {
        if *param != arg.bytes() {
            return Err(format!("argument {place} takes {param} bytes and was given {arg:?}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_must_fit_in_number_and_size() {
        let args = [Arg::Ptr(0), Arg::I32(-1), Arg::F32(0.5), Arg::I64(-1), Arg::U64(1)];
        assert_eq!(fits(&[8, 4, 4, 8, 8], &args), Ok(()));
        assert!(fits(&[8, 4, 4, 8], &args).unwrap_err().contains("takes 4"));
        assert!(fits(&[8, 8, 4, 8, 8], &args).unwrap_err().contains("argument 1 takes 8"));
    }

    #[test]
    fn the_low_bytes_of_an_argument_are_its_value() {
        let first = |arg: Arg| arg.words()[0].to_le_bytes();
        assert_eq!(first(Arg::I32(-2))[..4], (-2i32).to_le_bytes());
        assert_eq!(first(Arg::F32(1.5))[..4], 1.5f32.to_le_bytes());
        assert_eq!(first(Arg::I64(-2)), (-2i64).to_le_bytes());
    }
}
