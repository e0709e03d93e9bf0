//! Numbers for people: one way to write each kind, used by tables, plots and the progress line. All output is ASCII.

/// A whole number with its thousands apart: `1,461,538,368`.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Three significant digits and a suffix, `k`, `M`, `B` (10^9, as parameters are counted) or `T`: `340M`, `1.46B`, `28.1k`, `9.50`.
pub fn short(value: f64) -> String {
    scaled(value, 1000.0, &["", "k", "M", "B", "T"])
}

/// A size in binary units, three significant digits: `512 B`, `1.35 GiB`.
pub fn bytes(value: u64) -> String {
    if value < 1024 {
        format!("{value} B")
    } else {
        scaled(value as f64, 1024.0, &[" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"])
    }
}

/// A time in seconds: `350 ms`, `12.3 s`, `4 min 05 s`, `2 h 03 min`, `3 d 04 h`.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "unknown".to_owned();
    }
    if seconds < 0.9995 {
        return format!("{:.0} ms", seconds * 1e3);
    }
    if seconds < 59.95 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    let (minutes, hours) = (whole / 60, whole / 3600);
    if hours == 0 {
        format!("{minutes} min {:02} s", whole % 60)
    } else if hours < 24 {
        format!("{hours} h {:02} min", minutes % 60)
    } else {
        format!("{} d {:02} h", hours / 24, hours % 24)
    }
}

/// A loss in nats with four decimals: `2.1309`; `nan`, `inf` where it is not finite.
pub fn loss(value: f64) -> String {
    if value.is_nan() {
        "nan".to_owned()
    } else if value.abs() < 1e6 || value.is_infinite() {
        format!("{value:.4}")
    } else {
        format!("{value:.3e}")
    }
}

/// Dollars: `$3.50`, `$0.0012`.
pub fn dollars(value: f64) -> String {
    if value == 0.0 || value.abs() >= 0.01 { format!("${value:.2}") } else { format!("${value:.4}") }
}

/// Three significant digits, divided by `base` as often as the rounded number allows.
fn scaled(value: f64, base: f64, suffixes: &[&str]) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    let mut value = value;
    let mut at = 0;
    // Just below a power, three digits round up to it: 999.6k is 1.00M.
    while value.abs() >= base - 0.5 && at + 1 < suffixes.len() {
        value /= base;
        at += 1;
    }
    let decimals = match value.abs() {
        _ if at == 0 && value.fract() == 0.0 => 0,
        x if x < 9.995 => 2,
        x if x < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}{}", suffixes[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        for (value, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_461_538_368, "1,461,538,368")] {
            assert_eq!(count(value), text);
        }
    }

    #[test]
    fn short_numbers_keep_three_digits() {
        for (value, text) in [
            (0.0, "0"),
            (7.0, "7"),
            (9.5, "9.50"),
            (512.0, "512"),
            (999.4, "999"),
            (999.6, "1.00k"),
            (28_123.0, "28.1k"),
            (340_332_224.0, "340M"),
            (999_700_000.0, "1.00B"),
            (1_461_538_368.0, "1.46B"),
            (5e15, "5000T"),
            (f64::NAN, "nan"),
        ] {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn sizes() {
        for (value, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1 << 20, "1.00 MiB"),
            ((1 << 30) - 1, "1.00 GiB"),
            (14 << 30, "14.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(value), text);
        }
    }

    #[test]
    fn durations_never_show_sixty() {
        for (value, text) in [
            (0.0, "0 ms"),
            (0.35, "350 ms"),
            (0.9996, "1.0 s"),
            (59.94, "59.9 s"),
            (59.96, "1 min 00 s"),
            (245.0, "4 min 05 s"),
            (3599.6, "1 h 00 min"),
            (7380.0, "2 h 03 min"),
            (86_400.0 * 3.0 + 4.0 * 3600.0, "3 d 04 h"),
            (-1.0, "unknown"),
            (f64::INFINITY, "unknown"),
        ] {
            assert_eq!(duration(value), text);
        }
    }

    #[test]
    fn losses_and_dollars() {
        assert_eq!(
            [loss(2.13094), loss(f64::NAN), loss(f64::INFINITY), loss(1.5e9)],
            ["2.1309", "nan", "inf", "1.500e9"]
        );
        assert_eq!([dollars(3.5), dollars(0.0012), dollars(0.0)], ["$3.50", "$0.0012", "$0.00"]);
    }
}
