//! The log that the nodes share: one Redis stream, `fleet`, with the text of each event in a field named `data`.

use redis::{cmd, Cmd, Connection, ConnectionLike, FromRedisValue, RedisResult};
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;
use std::time::Duration;

const STREAM: &str = "fleet";

/// How many entries Redis keeps at least.
pub const KEPT: usize = 1_000;

/// How many there may be. `MAXLEN ~` trims whole blocks, of 100 entries in Redis as it ships, and thus keeps up to one
/// more; twice that is on the safe side.
pub const MOST: usize = KEPT + 200;

/// How long Redis may take to accept a connection, or to answer: a thousand times what it takes, and no longer than one
/// who publishes likes to wait.
const TIMEOUT: Duration = Duration::from_secs(1);

/// How long Redis holds an answer back when there is no news: half of what we wait for it.
const BLOCK: Duration = Duration::from_millis(500);

/// As many connections are kept for those who publish. More are opened when needed.
const IDLE: usize = 8;

/// An entry's place in the stream: milliseconds and a number among them, in that order.
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
    /// Does not connect yet.
    pub fn at(url: &str) -> RedisResult<Log> {
        Ok(Log { client: redis::Client::open(url)?, idle: Mutex::new(Vec::new()) })
    }

    /// Appends an event and returns its id. After an error nobody knows whether it is in the log, so it is never sent
    /// again from here.
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

    /// Asks on a connection of its own, so that nobody waits behind one whom Redis keeps waiting. One that has been idle
    /// may be that of a Redis which has ended since: it is tried first with what may be tried twice.
    fn ask<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        let idle = self.idle.lock().unwrap().pop();
        let alive = idle.and_then(|mut redis| redis.check_connection().then_some(redis));
        let mut redis = alive.map_or_else(|| self.connect(), Ok)?;
        let answer = command.query(&mut redis)?; // after an error, its answer may still come: it is not kept
        let mut idle = self.idle.lock().unwrap();
        if idle.len() < IDLE {
            idle.push(redis);
        }
        Ok(answer)
    }
}

/// Reads the newest entries, the oldest of them first.
pub fn newest(redis: &mut Connection, count: usize) -> RedisResult<Vec<Entry>> {
    let answer = cmd("XREVRANGE").arg(STREAM).arg("+").arg("-").arg("COUNT").arg(count).query(redis)?;
    let mut entries = entries(answer);
    entries.reverse();
    Ok(entries)
}

/// Reads what there is from an id on: that entry too, if it is there.
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

/// Waits until there is something behind an id, but not for ever.
pub fn wait(redis: &mut Connection, id: Id) -> RedisResult<()> {
    let mut read = cmd("XREAD");
    read.arg("COUNT").arg(1).arg("BLOCK").arg(BLOCK.as_millis() as u64);
    read.arg("STREAMS").arg(STREAM).arg(id.to_string()).query::<redis::Value>(redis)?;
    Ok(())
}

/// An entry as Redis sends it: the id, and fields by their names.
type Sent = (String, HashMap<String, Vec<u8>>);

/// Others may write to the stream too, and anything: what is no text is made one, and an entry without `data` is empty.
fn entries(sent: Vec<Sent>) -> Vec<Entry> {
    let entry = |(id, fields): Sent| {
        let data = fields.get("data").map(Vec::as_slice).unwrap_or_default();
        Some(Entry { id: id.parse().ok()?, text: String::from_utf8_lossy(data).into_owned() })
    };
    sent.into_iter().filter_map(entry).collect()
}
