//! The `Date` field: IMF-fixdate (RFC 9110 5.6.7), made once a second and thread.

use std::cell::Cell;
use std::time::{SystemTime, UNIX_EPOCH};

/// `Sun, 06 Nov 1994 08:49:37 GMT`
const LENGTH: usize = 29;

/// Appends the current time.
pub fn push_now(out: &mut Vec<u8>) {
    thread_local! {
        static LAST: Cell<(u64, [u8; LENGTH])> = const { Cell::new((u64::MAX, [0; LENGTH])) };
    }
    // A clock before 1970 is not worth an error: 1970 is just as wrong, and harmless.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (second, mut text) = LAST.get();
    if second != now {
        text = imf_fixdate(now);
        LAST.set((now, text));
    }
    out.extend_from_slice(&text);
}

/// Days to a date after Howard Hinnant's `civil_from_days`: years that begin in March put the leap day last.
fn imf_fixdate(unix_seconds: u64) -> [u8; LENGTH] {
    const DAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
    const MONTHS: [&[u8; 3]; 12] =
        [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
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
    text[..3].copy_from_slice(DAYS[(days % 7) as usize]);
    text[8..11].copy_from_slice(MONTHS[month as usize]);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        let check = |seconds, text: &str| assert_eq!(std::str::from_utf8(&imf_fixdate(seconds)), Ok(text));
        check(0, "Thu, 01 Jan 1970 00:00:00 GMT");
        check(784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"); // RFC 9110's own example
        check(951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT");
        check(1_735_689_599, "Tue, 31 Dec 2024 23:59:59 GMT");
        check(4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"); // 2100 has no leap day
    }
}
