//! The log that the nodes share: the Redis stream `fleet`. Each entry has the text of an event in the field `data`.

use redis::{cmd, Cmd, Connection, ConnectionLike, FromRedisValue, RedisResult};
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;
use std::time::Duration;

const STREAM: &str = "fleet";

/// The minimum number of entries that Redis keeps.
pub const KEPT: usize = 1_000;

/// The maximum number of entries. `MAXLEN ~` trims only whole blocks, which have 100 entries by default, and so keeps
/// up to one block more than [`KEPT`]. This constant allows two.
pub const MOST: usize = KEPT + 200;

/// How long Redis may take to accept a connection or to answer. It normally takes a thousandth of this time. If Redis
/// does not answer, a client that publishes an event waits until this time is over.
const TIMEOUT: Duration = Duration::from_secs(1);

/// How long Redis delays an answer without new entries. This is half of [`TIMEOUT`].
const BLOCK: Duration = Duration::from_millis(500);

/// The number of idle connections that are kept for publishing. More connections are opened when they are needed.
const IDLE: usize = 8;

/// The id of an entry: a Unix time in milliseconds, and the number of the entry within this millisecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id(u64, u64);

impl FromStr for Id {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Id, Self::Err> {
        let (milliseconds, number) = text.split_once('-').unwrap_or((text, "0"));
        Ok(Id(milliseconds.parse()?, number.parse()?))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

pub struct Entry {
    pub id: Id,
    pub text: String,
}

pub struct Log {
    client: redis::Client,
    idle: Mutex<Vec<Connection>>,
}

impl Log {
    /// Returns the log of the Redis at this URL. The first command opens a connection.
    pub fn at(url: &str) -> RedisResult<Log> {
        Ok(Log { client: redis::Client::open(url)?, idle: Mutex::new(Vec::new()) })
    }

    /// Appends an event, and returns its id. After an error, the event may or may not be in the log. It is not sent
    /// again, because that could append it twice.
    pub fn append(&self, text: &str) -> RedisResult<String> {
        self.ask(cmd("XADD").arg(STREAM).arg("MAXLEN").arg("~").arg(KEPT).arg("*").arg("data").arg(text))
    }

    pub fn has(&self, id: Id) -> RedisResult<bool> {
        let found = entries(self.ask(cmd("XRANGE").arg(STREAM).arg(id.to_string()).arg(id.to_string()))?);
        Ok(!found.is_empty())
    }

    pub fn connect(&self) -> RedisResult<Connection> {
        let redis = self.client.get_connection_with_timeout(TIMEOUT)?;
        redis.set_read_timeout(Some(TIMEOUT))?;
        redis.set_write_timeout(Some(TIMEOUT))?;
        Ok(redis)
    }

    /// Sends a command on a connection of its own, so that it does not wait for other commands. Redis may have
    /// restarted while a connection was idle, so an idle connection is first checked with a PING.
    fn ask<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        let idle = self.idle.lock().unwrap().pop();
        let alive = idle.and_then(|mut redis| redis.check_connection().then_some(redis));
        let mut redis = alive.map_or_else(|| self.connect(), Ok)?;
        let answer = command.query(&mut redis)?; // after an error, the answer may arrive later: drop the connection
        let mut idle = self.idle.lock().unwrap();
        if idle.len() < IDLE {
            idle.push(redis);
        }
        Ok(answer)
    }
}

/// Reads the newest `count` entries, in the order of the log.
pub fn newest(redis: &mut Connection, count: usize) -> RedisResult<Vec<Entry>> {
    let answer = cmd("XREVRANGE").arg(STREAM).arg("+").arg("-").arg("COUNT").arg(count).query(redis)?;
    let mut entries = entries(answer);
    entries.reverse();
    Ok(entries)
}

/// Reads the entry with this id, if it exists, and the entries after it.
pub fn from(redis: &mut Connection, id: Id) -> RedisResult<Vec<Entry>> {
    let answer = cmd("XRANGE")
        .arg(STREAM)
        .arg(id.to_string())
        .arg("+")
        .arg("COUNT")
        .arg(KEPT)
        .query(redis)?;
    Ok(entries(answer))
}

/// Waits until there is an entry after this id, or until [`BLOCK`] has passed.
pub fn wait(redis: &mut Connection, id: Id) -> RedisResult<()> {
    let mut read = cmd("XREAD");
    read.arg("COUNT").arg(1).arg("BLOCK").arg(BLOCK.as_millis() as u64);
    read.arg("STREAMS").arg(STREAM).arg(id.to_string()).query::<redis::Value>(redis)?;
    Ok(())
}

/// An entry as Redis sends it: the id, and the fields by their names.
type Sent = (String, HashMap<String, Vec<u8>>);

/// Converts entries. Other programs may write to the stream too: bytes that are not UTF-8 become U+FFFD, and an entry
/// without `data` becomes an empty event.
fn entries(sent: Vec<Sent>) -> Vec<Entry> {
    let entry = |(id, fields): Sent| {
        let data = fields.get("data").map(Vec::as_slice).unwrap_or_default();
        Some(Entry { id: id.parse().ok()?, text: String::from_utf8_lossy(data).into_owned() })
    };
    sent.into_iter().filter_map(entry).collect()
}
