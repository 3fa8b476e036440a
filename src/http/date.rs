//! Dates in header fields (RFC 9110 5.6.7). This module writes dates in one format, `IMF-fixdate`, and parses dates in
//! three formats.

use super::ascii;
use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The length in bytes of an IMF-fixdate such as `Sun, 06 Nov 1994 08:49:37 GMT`.
const LENGTH: usize = 29;

/// The last second of the year 9999, in seconds since 1970. Later years have five digits, and the year of an
/// IMF-fixdate has four digits.
const LAST_SECOND: u64 = 253_402_300_799;

/// The names of the days in an `rfc850-date`. The other two formats use the first three letters of each name. Thursday
/// is the first day, because 1970 began on a Thursday.
const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Formats a time as an IMF-fixdate, for a header field such as `Expires` (RFC 9110 5.6.7).
///
/// Fractions of a second are truncated. A time before 1970 is written as the first second of 1970, and a time after
/// 9999 as the last second of 9999.
///
/// ```
/// use std::time::{Duration, UNIX_EPOCH};
///
/// let time = UNIX_EPOCH + Duration::from_secs(784_111_777);
/// assert_eq!(brooklet::http_date(time), "Sun, 06 Nov 1994 08:49:37 GMT");
/// ```
pub fn http_date(time: SystemTime) -> String {
    imf_fixdate(unix_seconds(time)).map(char::from).iter().collect()
}

/// Appends the current time as an IMF-fixdate. Formats a time again only if the second differs from the last call in
/// the same thread.
pub fn push_now(out: &mut Vec<u8>) {
    thread_local! {
        static LAST: Cell<(u64, [u8; LENGTH])> = const { Cell::new((u64::MAX, [0; LENGTH])) };
    }
    let now = unix_seconds(SystemTime::now());
    let (second, mut text) = LAST.get();
    if second != now {
        text = imf_fixdate(now);
        LAST.set((now, text));
    }
    out.extend_from_slice(&text);
}

/// Parses a date in one of the three formats of RFC 9110 5.6.7.
///
/// Returns `None` if the text has another format, if the date does not exist, if the day of the week is wrong, or if
/// the year is before 1970. Returns `None` for a leap second too, because `SystemTime` does not count leap seconds.
pub fn parse_http_date(text: &[u8]) -> Option<SystemTime> {
    let today = imf_fixdate(unix_seconds(SystemTime::now()));
    let fixdate = to_imf_fixdate(text, ascii::decimal(&today[12..16])?)?;
    let number = |at: usize, digits: usize| ascii::decimal(&fixdate[at..at + digits]);
    let month = MONTHS.iter().position(|month| month.as_bytes() == &fixdate[8..11])? as u64 + 1;
    let days = days_since_1970(number(12, 4)?, month, number(5, 2)?)?;
    let seconds = days * 86_400 + number(17, 2)? * 3_600 + number(20, 2)? * 60 + number(23, 2)?;
    // If the weekday, a number or a separator in `fixdate` is wrong, the formatted time differs from `fixdate`. For
    // example, 30 February is formatted as a day in March.
    (imf_fixdate(seconds) == fixdate).then(|| UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Rewrites a date in one of the three formats as an IMF-fixdate. Returns `None` if the text has another format. Does
/// not check most parts of the date, because the caller checks the result.
fn to_imf_fixdate(text: &[u8], this_year: u64) -> Option<[u8; LENGTH]> {
    if let Ok(fixdate) = text.try_into() {
        return Some(fixdate); // an `asctime-date` has 24 bytes, and an `rfc850-date` at least 30
    }
    let text = std::str::from_utf8(text).ok()?;
    let fixdate = match text.split_once(", ") {
        Some((weekday, rest)) => rewrite_rfc850(weekday, rest, this_year)?,
        None => rewrite_asctime(text)?,
    };
    fixdate.into_bytes().try_into().ok()
}

/// Rewrites an `rfc850-date`, such as `Sunday, 06-Nov-94 08:49:37 GMT`. `rest` is the text after the comma and the
/// space that follow the weekday.
fn rewrite_rfc850(weekday: &str, rest: &str, this_year: u64) -> Option<String> {
    let date: Vec<_> = rest.get(..9)?.split('-').collect();
    let [day, month, year] = date[..] else { return None };
    if !DAYS.contains(&weekday) {
        return None;
    }
    let mut year = this_year / 100 * 100 + ascii::decimal(year.as_bytes())?;
    if year > this_year + 50 {
        year -= 100; // RFC 9110 5.6.7: a year that would be more than 50 years in the future is in the past
    }
    Some(format!("{}, {day} {month} {year}{}", &weekday[..3], &rest[9..]))
}

/// Rewrites an `asctime-date`, such as `Sun Nov  6 08:49:37 1994`.
fn rewrite_asctime(text: &str) -> Option<String> {
    let is_space = |at: usize| text.as_bytes()[at] == b' ';
    if text.len() != 24 || ![3, 7, 10, 19].into_iter().all(is_space) {
        return None;
    }
    let (weekday, month, day, time, year) = (&text[..3], &text[4..7], &text[8..10], &text[11..19], &text[20..]);
    Some(format!("{weekday}, {:0>2} {month} {year} {time} GMT", day.strip_prefix(' ').unwrap_or(day)))
}

/// Returns the whole seconds from the start of 1970 to `time`. Returns 0 for an earlier time, and [`LAST_SECOND`] for a
/// time after the year 9999.
fn unix_seconds(time: SystemTime) -> u64 {
    // A machine whose clock shows a time before 1970 already has a wrong date, so writing 1970 instead does no harm.
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()).min(LAST_SECOND)
}

/// Returns the number of days from 1970-01-01 to a date. Returns `None` for a date before 1970. Inverts the computation
/// in [`imf_fixdate`].
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let march_month = (month + 9) % 12;
    let year = year.checked_sub(u64::from(month <= 2))?;
    let leap_days = year / 4 - year / 100 + year / 400;
    let since_year_0 = 365 * year + leap_days + (153 * march_month + 2) / 5 + day; // day 1 is 0000-03-01
    since_year_0.checked_sub(719_469)
}

/// Formats a number of seconds since 1970 as an IMF-fixdate. Computes the date as Howard Hinnant's `civil_from_days`
/// does: a year begins in March, so that the leap day is the last day of a year.
fn imf_fixdate(unix_seconds: u64) -> [u8; LENGTH] {
    let (days, second_of_day) = (unix_seconds / 86_400, unix_seconds % 86_400);
    let since_year_0 = days + 719_468; // days from 0000-03-01 to 1970-01-01
    let (era, day_of_era) = (since_year_0 / 146_097, since_year_0 % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = (march_month + 2) % 12;
    let year = era * 400 + year_of_era + u64::from(month < 2);

    let mut text = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    let mut two_digits = |at: usize, n: u64| {
        text[at] = b'0' + (n / 10 % 10) as u8;
        text[at + 1] = b'0' + (n % 10) as u8;
    };
    two_digits(5, day);
    two_digits(12, year / 100);
    two_digits(14, year);
    two_digits(17, second_of_day / 3_600);
    two_digits(20, second_of_day / 60 % 60);
    two_digits(23, second_of_day % 60);
    text[..3].copy_from_slice(&DAYS[(days % 7) as usize].as_bytes()[..3]);
    text[8..11].copy_from_slice(MONTHS[month as usize].as_bytes());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: u64 = 784_111_777; // the example of RFC 9110 5.6.7

    fn parse(text: &str) -> Option<u64> {
        parse_http_date(text.as_bytes()).map(unix_seconds)
    }

    #[test]
    fn known_dates_are_formatted_and_parsed() {
        for (seconds, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (EXAMPLE, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"), // 2100 has no leap day
            (LAST_SECOND, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(http_date(UNIX_EPOCH + Duration::from_secs(seconds)), text);
            assert_eq!(parse(text), Some(seconds), "{text}");
        }
    }

    #[test]
    fn time_out_of_range_is_formatted_as_nearest_limit() {
        assert_eq!(http_date(UNIX_EPOCH - Duration::from_secs(1)), "Thu, 01 Jan 1970 00:00:00 GMT");
        let next = UNIX_EPOCH + Duration::from_secs(LAST_SECOND + 1);
        assert_eq!(http_date(next), "Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(http_date(UNIX_EPOCH + Duration::from_nanos(1_999_999_999)), "Thu, 01 Jan 1970 00:00:01 GMT");
    }

    #[test]
    fn obsolete_formats_are_parsed() {
        assert_eq!(parse("Sunday, 06-Nov-94 08:49:37 GMT"), Some(EXAMPLE));
        assert_eq!(parse("Sun Nov  6 08:49:37 1994"), Some(EXAMPLE));
        assert_eq!(parse("Sun Nov 06 08:49:37 1994"), Some(EXAMPLE));
        assert_eq!(parse("Wed Nov 16 08:49:37 1994"), Some(EXAMPLE + 10 * 86_400));
    }

    #[test]
    fn two_digit_year_is_at_most_fifty_years_in_the_future() {
        let year = |digits: &str, this_year: u64| {
            let text = format!("Sunday, 06-Nov-{digits} 08:49:37 GMT");
            let fixdate = to_imf_fixdate(text.as_bytes(), this_year).unwrap();
            ascii::decimal(&fixdate[12..16]).unwrap()
        };
        assert_eq!((year("76", 2026), year("77", 2026), year("94", 2026)), (2076, 1977, 1994));
        assert_eq!((year("00", 2099), year("99", 2099), year("49", 2100)), (2000, 2099, 2149));
    }

    #[test]
    fn malformed_date_is_refused() {
        for bad in [
            "", "0", "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Nov 1994 08:49:37 GMT ", "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 gmt", "sun, 06 Nov 1994 08:49:37 GMT", "Mon, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 nov 1994 08:49:37 GMT", "Sun, 06 Nvo 1994 08:49:37 GMT", "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun,  6 Nov 1994 08:49:37 GMT", "Sun, 06-Nov-1994 08:49:37 GMT", "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 1994 08:60:37 GMT", "Sun, 06 Nov 1994 08:49:60 GMT", "Sun, 06 Nov 1994 08:49:+7 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT", "Wed, 30 Feb 1994 08:49:37 GMT", "Thu, 29 Feb 2100 00:00:00 GMT",
            "Wed, 31 Dec 1969 23:59:59 GMT", "Sat, 01 Jan 0000 00:00:00 GMT", "Sun, 06-Nov-94 08:49:37 GMT",
            "Monday, 06-Nov-94 08:49:37 GMT", "sunday, 06-Nov-94 08:49:37 GMT", "Sunday, 06-Nov-1994 08:49:37 GMT",
            "Sunday, 6-Nov-94 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GM", "Sunday, 06 Nov 94 08:49:37 GMT",
            "Sunday, ", "Sun Nov 6 08:49:37 1994", "Sun Nov  6 08:49:37 94", "Sun Nov  6 08:49:37 1994 ",
            "Mon Nov  6 08:49:37 1994", "Sun-Nov- 6-08:49:37-1994", "Sun Nov \t6 08:49:37 1994",
            "Sun Nov \u{a0} 08:49:37 1994", "S\u{e9} \u{e9}v  6 08:49:37 1994", "Sun Nov    08:49:37 1994",
            "Sun, 06 Nov 1994 08:49:3\u{e9} GM", "Sun Nov  6 08:49:37 19\u{e9}",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    /// Formats random times in each of the three formats and parses the texts. Then changes one byte of each text. If
    /// the changed text still parses, the text must contain the time of day and the month of the result. Finally
    /// shortens the text: the short text must not parse.
    #[test]
    fn random_dates_round_trip_and_random_bytes_do_not_panic() {
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = |end: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % end
        };
        for _ in 0..20_000 {
            let seconds = random(LAST_SECOND + 1);
            let fixdate = http_date(UNIX_EPOCH + Duration::from_secs(seconds));
            let (weekday, day, month) = (&fixdate[..3], &fixdate[5..7], &fixdate[8..11]);
            let (year, time) = (&fixdate[12..16], &fixdate[17..25]);
            let asctime = format!("{weekday} {month} {day} {time} {year}");
            assert_eq!((parse(&fixdate), parse(&asctime)), (Some(seconds), Some(seconds)), "{fixdate}");
            let this_year = year.parse().unwrap();
            let full = DAYS.iter().find(|name| name.starts_with(weekday)).unwrap();
            let rfc850 = format!("{full}, {day}-{month}-{} {time} GMT", &year[2..]);
            assert_eq!(to_imf_fixdate(rfc850.as_bytes(), this_year), fixdate.clone().into_bytes().try_into().ok());
            for text in [fixdate, asctime, rfc850] {
                let mut bytes = text.into_bytes();
                let at = random(bytes.len() as u64) as usize;
                bytes[at] = random(256) as u8;
                let Some(read) = parse_http_date(&bytes) else { continue };
                let shown = String::from_utf8(bytes).unwrap();
                let (time, date) = (http_date(read), shown.replace('-', " "));
                assert!(shown.contains(&time[17..25]) && date.contains(&time[8..11]), "{shown} is not {time}");
                bytes = shown.into_bytes();
                bytes.truncate(random(bytes.len() as u64) as usize);
                assert_eq!(parse_http_date(&bytes), None);
            }
        }
    }
}
