//! What kubectl makes of a scalar without quotes: YAML 1.1 as its parser knows it.
//!
//! An API server never sees YAML: kubectl turns the text into JSON, where `on` is a boolean, `010`
//! is 8, and as a key `1.10` becomes "1.1". A reader of YAML 1.2 sees strings and other numbers
//! there. Source: `resolve` of sigs.k8s.io/yaml/goyaml.v2, which kubectl uses.

/// The type that an unquoted scalar has for kubectl.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plain {
    Text,
    Null,
    Bool(bool),
    Number,
}

impl Plain {
    pub fn of(text: &str) -> Self {
        match text {
            "" | "~" | "null" | "Null" | "NULL" => return Plain::Null,
            "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
                return Plain::Bool(true);
            }
            "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off"
            | "OFF" => return Plain::Bool(false),
            ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF"
            | "-.inf" | "-.Inf" | "-.INF" => return Plain::Number,
            _ => {}
        }
        if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
            return Plain::Text;
        }
        // Underscores may stand anywhere behind the first digit.
        let digits = text.replace('_', "");
        if integer(&digits) || float(&digits) || signed_binary(&digits) {
            Plain::Number
        } else {
            Plain::Text
        }
    }

    /// What a message calls it.
    pub fn name(self) -> &'static str {
        match self {
            Plain::Text => "a string",
            Plain::Null => "nothing (null)",
            Plain::Bool(true) => "true",
            Plain::Bool(false) => "false",
            Plain::Number => "a number",
        }
    }
}

/// `ParseInt(text, 0, 64)`, or `ParseUint`: a sign, a prefix for the base, digits.
fn integer(text: &str) -> bool {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (base, digits) = match unsigned.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &unsigned[2..]),
        [b'0', b'o' | b'O', ..] => (8, &unsigned[2..]),
        [b'0', b'b' | b'B', ..] => (2, &unsigned[2..]),
        [b'0', _, ..] => (8, &unsigned[1..]),
        _ => (10, unsigned),
    };
    if digits.is_empty() || !digits.bytes().all(|c| char::from(c).is_digit(base)) {
        return false;
    }
    match u64::from_str_radix(digits, base) {
        Ok(number) => !negative || number <= i64::MIN.unsigned_abs(),
        Err(_) => false,
    }
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`, and finite.
fn float(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let digits = |text: &str| text.bytes().all(|c| c.is_ascii_digit());
    let mantissa = match mantissa.split_once('.') {
        Some(("", fraction)) => !fraction.is_empty() && digits(fraction),
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => !mantissa.is_empty() && digits(mantissa),
    };
    let exponent = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !exponent.is_empty() && digits(exponent)
    });
    mantissa && exponent && text.parse::<f64>().is_ok_and(f64::is_finite)
}

/// `0b-1` is -1: the prefix is taken off by hand, and what is left is parsed as a signed number.
fn signed_binary(text: &str) -> bool {
    let digits = text.strip_prefix("0b").and_then(|rest| rest.strip_prefix(['-', '+']));
    digits.is_some_and(|digits| i64::from_str_radix(digits, 2).is_ok() && !digits.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each line was given to kubectl 1.32 as a label's value and as a label's key:
    /// `kubectl annotate --local -f FILE a=b -o json`.
    #[test]
    fn unquoted_scalars_have_the_type_that_kubectl_gives_them() {
        for (expected, texts) in [
            (Plain::Bool(true), "on On ON yes Yes YES y Y true True TRUE"),
            (Plain::Bool(false), "off OFF Off no No NO n N false False FALSE"),
            (Plain::Null, "null Null NULL ~"),
            (
                Plain::Number,
                "0 010 0o10 0O10 0x10 0X1F 0b11 0B11 1_000 1__0 1_ 9_ 08 09 0_7 +1 -1 -0 1.10 1.0 \
                 1. .5 +.5 -.5 1e3 1E3 1e+3 1.5e3 1e-7 1.e3 .5e1 .5_0 .inf .Inf .INF -.inf +.inf \
                 .nan .NaN .NAN 1_0.5 9223372036854775807 9223372036854775808 \
                 18446744073709551615 18446744073709551616 99999999999999999999 \
                 -9223372036854775808 0xffffffffffffffff 077777 0777_7 123456789012 1234567.0 \
                 0.1 1e21 1e20 100000000000000000000000.0 -0x10 +0x10 -010 0x_1 0b1_1 -0b11 \
                 +010 0.0 -0.0 00 000 0_ 1e3_0 1_000.5e1_0 0b-1 0b+1 1.7976931348623157e308",
            ),
            (
                Plain::Text,
                "oN yEs nO tRue nUll 0xg 0b12 _1 1e400 1:30 1:30:15 190:20:30 190:20:30.15 \
                 12:30.5 2024-01-01 2024-01-01T00:00:00Z 2024-1-1 2001-12-14T21:59:43.1-05:00 0b \
                 0x 0o8 1e 1.2.3 = <<x infinity nan inf 0x1.8p3 0x1p3 -0b-1 0o-1 0x-1 .e5 .. - + \
                 0xFFFFFFFFFFFFFFFFF 1e309 -1e309 0b102 00x1 1-2 a",
            ),
        ] {
            for text in texts.split_whitespace() {
                assert_eq!(Plain::of(text), expected, "{text}");
            }
        }
    }
}
