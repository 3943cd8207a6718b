//! A number of bytes as people write it: `650M`, `1G`, `4GB`.

use std::str::FromStr;

use crate::util::text::format_size;

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSize(u64);

/// A string that is not a number of bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "write it as a whole number with K, M or G (powers of 1024), or KB, MB or GB (powers of 1000): 650M, 4GB"
)]
pub struct InvalidByteSize;

impl ByteSize {
    /// Returns the number of bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// Parses a size that must be at least `least` bytes.
    ///
    /// # Errors
    /// If the text is not a size, or the size is too small. The error is a sentence for people.
    pub fn at_least(least: u64, text: &str) -> Result<Self, String> {
        match text.parse::<ByteSize>() {
            Ok(size) if size.0 < least => Err(format!("it must be at least {}", format_size(least))),
            Ok(size) => Ok(size),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl FromStr for ByteSize {
    type Err = InvalidByteSize;

    fn from_str(text: &str) -> Result<Self, InvalidByteSize> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        // The units of split(1).
        let unit: u64 = match unit {
            "" | "B" => 1,
            "K" | "KiB" => 1 << 10,
            "M" | "MiB" => 1 << 20,
            "G" | "GiB" => 1 << 30,
            "KB" => 1000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            _ => return Err(InvalidByteSize),
        };
        let bytes = number.parse().ok().and_then(|number: u64| number.checked_mul(unit));
        bytes.filter(|bytes| *bytes > 0).map(ByteSize).ok_or(InvalidByteSize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_those_of_split() {
        for (text, bytes) in
            [("1", 1), ("2K", 2048), ("650M", 681_574_400), ("1G", 1 << 30), ("4GB", 4_000_000_000)]
        {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for bad in ["", "G", "0", "-1", "1.5G", "1g", "1 G", "99999999999G", "18446744073709551616"] {
            assert_eq!(bad.parse::<ByteSize>(), Err(InvalidByteSize), "{bad}");
        }
        assert_eq!(ByteSize::at_least(1 << 20, "1M"), Ok(ByteSize(1 << 20)));
        assert_eq!(ByteSize::at_least(1 << 20, "1048575"), Err("it must be at least 1.0 MiB".into()));
        assert!(ByteSize::at_least(1 << 20, "x").unwrap_err().contains("650M"));
    }
}
