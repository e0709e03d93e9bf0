//! Inputs that are nearly valid: pieces moved, numbers made extreme, bits flipped, nesting made deep.

use std::ops::Range;

/// No input is longer.
const LONGEST: usize = 1 << 18;
/// Numbers at edges.
const NUMBERS: [&str; 22] = [
    "0",
    "1",
    "-1",
    "2",
    "255",
    "256",
    "65535",
    "65536",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "-1e-320",
    "1e999",
    "0.1",
    "null",
];
/// Bytes that mean something to parsers or terminals.
const BYTES: [u8; 8] = [0, b'\n', b'"', 0x7f, 0x80, 0xff, b'\\', 0x1b];
/// What opens and closes, in the languages of the inputs.
const BRACKETS: [(&str, &str); 5] = [("(", ")"), ("[", "]"), ("{\"a\":", "}"), ("{a=", "}"), ("\"", "\"")];

/// Numbers that follow from a name and two numbers alone.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The stream of a case.
    pub fn new(name: &str, salt: u64, case: u64) -> Self {
        let named =
            name.bytes().fold(salt, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let mut random = Self(named ^ case.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        random.draw();
        random
    }

    /// 64 random bits (splitmix64).
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, or 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.draw() % end.max(1) as u64) as usize
    }

    fn range(&mut self, end: usize, longest: usize) -> Range<usize> {
        let (start, length) = (self.below(end + 1), self.below(longest) + 1);
        start..(start + length).min(end)
    }

    fn of<'a, T: ?Sized>(&mut self, these: &[&'a T]) -> &'a T {
        these[self.below(these.len())]
    }
}

/// A seed, or what became of one, mutated one to six times.
pub(crate) fn mutated(seeds: &[Vec<u8>], pool: &[Vec<u8>], words: &[&str], random: &mut Random) -> Vec<u8> {
    let from = if pool.is_empty() || random.below(3) > 0 { seeds } else { pool };
    let mut input = from[random.below(from.len())].clone();
    for _ in 0..=random.below(6) {
        once(&mut input, seeds, words, random);
    }
    input.truncate(LONGEST);
    input
}

fn once(input: &mut Vec<u8>, seeds: &[Vec<u8>], words: &[&str], random: &mut Random) {
    let at = random.below(input.len());
    match random.below(13) {
        0 if !input.is_empty() => input[at] ^= 1 << random.below(8),
        1 if !input.is_empty() => input[at] = BYTES[random.below(BYTES.len())],
        2 => drop(input.drain(random.range(input.len(), 64))),
        3 => {
            let piece = input[random.range(input.len(), 64)].to_vec();
            splice(input, at, &piece);
        }
        4 => {
            let other = &seeds[random.below(seeds.len())];
            splice(input, at, &other[random.range(other.len(), 256)]);
        }
        5 if !words.is_empty() => splice(input, at, random.of(words).as_bytes()),
        6 | 7 => replace(input, random, |byte| byte.is_ascii_digit() || b"+-._".contains(&byte), &NUMBERS),
        8 | 9 if !words.is_empty() => {
            replace(input, random, |byte| byte.is_ascii_alphanumeric() || b"_-|<>".contains(&byte), words);
        }
        10 => {
            let (open, close) = BRACKETS[random.below(BRACKETS.len())];
            let depth = [1, 2, 40, 130, 1500, 20_000][random.below(6)];
            let middle = random.of(&["", "1"]);
            splice(input, at, format!("{}{middle}{}", open.repeat(depth), close.repeat(depth)).as_bytes());
        }
        11 => input.truncate(at),
        12 if input.len() > 8 => {
            let at = at.min(input.len() - 8);
            let number = [0, 1, 7, 8, 1 << 31, 1 << 32, 1 << 62, u64::MAX - 7, u64::MAX][random.below(9)];
            input[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        _ => {
            let mut lines: Vec<Vec<u8>> =
                input.split_inclusive(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
            let (one, other) = (random.below(lines.len()), random.below(lines.len()));
            if one != other {
                lines.swap(one, other);
                *input = lines.concat();
            }
        }
    }
}

fn splice(input: &mut Vec<u8>, at: usize, piece: &[u8]) {
    input.splice(at..at, piece.iter().copied());
}

/// Puts one of `by` in the place of one run of bytes that belong together.
fn replace(input: &mut Vec<u8>, random: &mut Random, belongs: impl Fn(u8) -> bool, by: &[&str]) {
    let begins = |at: &usize| belongs(input[*at]) && (*at == 0 || !belongs(input[*at - 1]));
    let starts: Vec<usize> = (0..input.len()).filter(begins).collect();
    if starts.is_empty() {
        return;
    }
    let start = starts[random.below(starts.len())];
    let length = input[start..].iter().take_while(|&&byte| belongs(byte)).count();
    input.splice(start..start + length, random.of(by).bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_case_is_the_same_input_and_most_are_new() {
        let seeds = [b"{\"a\": 1, \"b\": [2, 3]}\n".to_vec(), b"c = 4\n".to_vec()];
        let case = |i| mutated(&seeds, &[], &["a", "b"], &mut Random::new("test", 0, i));
        let inputs: std::collections::BTreeSet<_> = (0..1000).map(case).collect();
        assert_eq!(case(7), case(7));
        assert!(inputs.len() > 700, "{}", inputs.len());
        assert!(mutated(&[Vec::new()], &[], &[], &mut Random::new("test", 0, 1)).len() <= LONGEST);
    }
}
