//! For tests: hands a parser mutated inputs and holds it to what must hold for any.
//!
//! Whatever the input: no panic, no abort, an end within [`PATIENCE`], memory within the campaign's bound, and where it is
//! refused, an error that says something (that it is shown as one line is the command's duty). The inputs of a campaign are a function of its name and seeds, so that the test suite
//! does the same few each time; `MUON_FUZZ_SECONDS` makes it go on for so long, `MUON_FUZZ_SEED` gives it other inputs.
//!
//! ```
//! #[global_allocator]
//! static MEMORY: fuzz::Counting = fuzz::Counting;
//!
//! let seeds = [b"12".to_vec(), b"-7".to_vec()];
//! fuzz::Campaign { name: "integer", seeds: &seeds, words: &["-", "0"], cases: 100, memory: 1 << 20 }.run(|input| {
//!     String::from_utf8_lossy(input).parse::<i32>().err().map(|error| error.to_string())
//! });
//! ```

mod memory;
mod mutate;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

pub use memory::Counting;
pub use mutate::Random;

/// A case that takes longer hangs.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Inputs that were accepted and are mutated further.
const POOL: usize = 64;

/// One parser under mutated inputs.
#[derive(Clone, Copy, Debug)]
pub struct Campaign<'a> {
    /// Its name, for messages.
    pub name: &'a str,
    /// Valid inputs.
    pub seeds: &'a [Vec<u8>],
    /// What the parser knows: keys, names, values.
    pub words: &'a [&'a str],
    /// Inputs in a run of the test suite.
    pub cases: u64,
    /// Bytes that a case may take beyond 64 times its input.
    pub memory: usize,
}

/// What a campaign did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Inputs.
    pub cases: u64,
    /// Of them accepted.
    pub accepted: u64,
    /// Most bytes that one took.
    pub memory: usize,
    /// The longest that one took.
    pub longest: Duration,
}

/// One campaign at a time: they count the memory of the whole process.
static ONE: Mutex<()> = Mutex::new(());
/// When the case began that runs now.
static CURRENT: Mutex<Option<Instant>> = Mutex::new(None);

impl Campaign<'_> {
    /// Runs the campaign. `case` gives the text of the error if it refuses the input, and may assert what holds if not.
    ///
    /// Needs [`Counting`] as the global allocator. The input that breaks a rule stays in a file, which the panic names.
    pub fn run(&self, case: impl Fn(&[u8]) -> Option<String>) -> Outcome {
        let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
        let span = number("MUON_FUZZ_SECONDS").map(Duration::from_secs);
        let salt = number("MUON_FUZZ_SEED").unwrap_or(0);
        let file = folder().join(format!("muon-fuzz-{}-{}.input", self.name, std::process::id()));
        let _dog = Watchdog::start(&file);
        let mut pool: Vec<Vec<u8>> = Vec::new();
        let mut outcome = Outcome::default();
        let begin = Instant::now();
        while span.map_or(outcome.cases < self.cases, |span| begin.elapsed() < span) {
            let mut random = Random::new(self.name, salt, outcome.cases);
            let input = mutate::mutated(self.seeds, &pool, self.words, &mut random);
            std::fs::write(&file, &input).expect("a place for the input");
            let (accepted, memory, took) = self.case(&input, &file, &case);
            outcome.cases += 1;
            outcome.accepted += u64::from(accepted);
            outcome.memory = outcome.memory.max(memory);
            outcome.longest = outcome.longest.max(took);
            if accepted && pool.len() < POOL {
                pool.push(input);
            } else if accepted {
                let place = random.below(POOL);
                pool[place] = input;
            }
        }
        std::fs::remove_file(&file).expect("the input is there");
        let seconds = begin.elapsed().as_secs_f64();
        eprintln!(
            "fuzz {}: {} cases in {seconds:.1} s ({:.0}/s), {} accepted, at most {} KiB and {:.0} ms each",
            self.name,
            outcome.cases,
            outcome.cases as f64 / seconds,
            outcome.accepted,
            outcome.memory >> 10,
            1e3 * outcome.longest.as_secs_f64(),
        );
        outcome
    }

    fn case(
        &self,
        input: &[u8],
        file: &Path,
        case: impl Fn(&[u8]) -> Option<String>,
    ) -> (bool, usize, Duration) {
        memory::mark();
        let begin = Instant::now();
        *CURRENT.lock().expect("no one panics with it") = Some(begin);
        let told = catch_unwind(AssertUnwindSafe(|| case(input)));
        *CURRENT.lock().expect("no one panics with it") = None;
        let (took, most) = (begin.elapsed(), memory::most());
        let at = file.display();
        let told = told.unwrap_or_else(|panic| {
            eprintln!("{}: a panic for the input in {at}", self.name);
            resume_unwind(panic)
        });
        assert!(took < PATIENCE, "{}: {took:?} for the input in {at}", self.name);
        let bound = self.memory + 64 * input.len();
        assert!(most <= bound, "{}: {most} bytes of memory for the input in {at}", self.name);
        if let Some(text) = &told {
            assert!(
                !text.trim().is_empty(),
                "{}: an error that says nothing for the input in {at}",
                self.name
            );
        }
        (told.is_none(), most, took)
    }
}

/// Where files of cases go: to memory where the system has such a place, else among the temporary files.
pub fn folder() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

/// Ends the process when a case hangs: nothing else can.
struct Watchdog(std::sync::mpsc::Sender<()>);

impl Watchdog {
    fn start(file: &Path) -> Self {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let file = file.to_owned();
        thread::spawn(move || {
            while let Err(std::sync::mpsc::RecvTimeoutError::Timeout) =
                stopped.recv_timeout(Duration::from_secs(1))
            {
                let began = *CURRENT.lock().expect("no one panics with it");
                if began.is_some_and(|began| began.elapsed() > PATIENCE) {
                    eprintln!("a hang for the input in {}", file.display());
                    std::process::abort();
                }
            }
        });
        Self(stop)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // A dog that is gone already needs no word.
        let _ = self.0.send(());
    }
}
