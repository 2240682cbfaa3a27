//! Migrations and the forecasts that were made before them, in one file (SQLite), for as long as a platform lives.
//!
//! ```text
//!  migration  guest, requested  ─►  observed    what happened   (migcast.observed/1)
//!  forecast   guest, made       ─►  forecast    what was said   (migcast.forecast/1)
//! ```
//! Both as the JSON they are elsewhere: SQLite's own functions read it (`observed ->> '$.downtime_seconds'`). Times are
//! nanoseconds since 1970.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::forecast::{self, Forecast};
use super::{Observed, ObservedError, checked};
use crate::quote::{JsonError, quoted};

/// What stands in an SQLite file for the program whose it is: "migc".
const APPLICATION: i64 = 0x6d69_6763;
/// Version of the tables.
const VERSION: i64 = 1;
/// What every SQLite file begins with.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// How long another program's writing is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite's words.
    #[error("store {}: {}", path.display(), quoted(&source.to_string()))]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// Something else.
    #[error("store {}: is no store of migrations: give a file of its own, which may not exist yet", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Made by a later version of this program.
    #[error("store {}: has version {found}, this program reads {VERSION}", path.display())]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
    /// A forecast in it cannot be read.
    #[error("store {}: a forecast of {guest}: {source}", path.display())]
    Forecast {
        /// The file.
        path: PathBuf,
        /// Whose.
        guest: String,
        /// Why.
        source: JsonError,
    },
    /// A migration in it cannot be read.
    #[error(transparent)]
    Observed(#[from] ObservedError),
}

/// An open store.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    path: PathBuf,
}

/// Whether a file is a database, by its first bytes; false where it cannot be read.
pub fn is_one(path: &Path) -> bool {
    let mut start = [0; MAGIC.len()];
    let read: io::Result<()> = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start == *MAGIC
}

impl Store {
    /// Opens a store, or begins one.
    ///
    /// # Errors
    /// The file is no database, another program's, or a later version's.
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        if std::fs::metadata(path).is_ok_and(|file| file.len() > 0) && !is_one(path) {
            return Err(StoreError::Foreign { path: path.to_owned() });
        }
        let wrong = |source| StoreError::Sqlite { path: path.to_owned(), source };
        let connection = Connection::open(path).map_err(wrong)?;
        connection.busy_timeout(PATIENCE).map_err(wrong)?;
        let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(wrong);
        let (application, version) = (pragma("application_id")?, pragma("user_version")?);
        let tables: i64 =
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(wrong)?;
        if tables == 0 {
            connection
                .execute_batch(&format!(
                    "BEGIN IMMEDIATE;
                     PRAGMA application_id = {APPLICATION};
                     PRAGMA user_version = {VERSION};
                     CREATE TABLE IF NOT EXISTS migration (
                         guest TEXT NOT NULL, requested INTEGER NOT NULL, observed TEXT NOT NULL,
                         PRIMARY KEY (guest, requested)) STRICT, WITHOUT ROWID;
                     CREATE TABLE IF NOT EXISTS forecast (
                         guest TEXT NOT NULL, made INTEGER NOT NULL, forecast TEXT NOT NULL,
                         PRIMARY KEY (guest, made)) STRICT, WITHOUT ROWID;
                     COMMIT;"
                ))
                .map_err(wrong)?;
        } else if application != APPLICATION {
            return Err(StoreError::Foreign { path: path.to_owned() });
        } else if version > VERSION {
            return Err(StoreError::TooNew { path: path.to_owned(), found: version });
        }
        Ok(Store { connection, path: path.to_owned() })
    }

    fn wrong(&self) -> impl Fn(rusqlite::Error) -> StoreError {
        |source| StoreError::Sqlite { path: self.path.clone(), source }
    }

    /// Keeps migrations, all or none; how many of them are new. One of the same guest at the same time is kept already.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep_observed(&mut self, all: &[Observed]) -> Result<usize, StoreError> {
        let path = self.path.clone();
        let wrong = |source| StoreError::Sqlite { path: path.clone(), source };
        let transaction = self.connection.transaction().map_err(wrong)?;
        let mut new = 0;
        for one in all {
            let json = serde_json::to_string(one).expect("an observed migration is plain JSON");
            let kept = transaction.execute(
                "INSERT OR IGNORE INTO migration VALUES (?1, ?2, ?3)",
                params![one.guest, nanoseconds(one.requested), json],
            );
            new += kept.map_err(wrong)?;
        }
        transaction.commit().map_err(wrong)?;
        Ok(new)
    }

    /// Keeps a forecast.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep_forecast(&mut self, one: &Forecast) -> Result<(), StoreError> {
        let json = serde_json::to_string(one).expect("a forecast is plain JSON");
        let kept = self.connection.execute(
            "INSERT OR REPLACE INTO forecast VALUES (?1, ?2, ?3)",
            params![one.guest, nanoseconds(one.made), json],
        );
        kept.map(|_| ()).map_err(self.wrong())
    }

    /// All migrations, the oldest first.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn observed(&self) -> Result<Vec<Observed>, StoreError> {
        let texts = self.texts("SELECT observed FROM migration ORDER BY requested, guest", [])?;
        let read = |(number, text): (usize, String)| Ok(checked(serde_json::from_str(&text), number, &self.path)?);
        (1..).zip(texts).map(read).collect()
    }

    /// The forecasts of a guest that were made in a span of time that ends before `until`, the latest first.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn forecasts(&self, guest: &str, from: Timestamp, until: Timestamp) -> Result<Vec<Forecast>, StoreError> {
        let texts = self.texts(
            "SELECT forecast FROM forecast WHERE guest = ?1 AND made >= ?2 AND made < ?3 ORDER BY made DESC",
            params![guest, nanoseconds(from), nanoseconds(until)],
        )?;
        let foreign = |found: &str| {
            let message = format!("format is `{found}`, this program reads `{}`", forecast::FORMAT);
            <serde_json::Error as serde::de::Error>::custom(message)
        };
        let read = |text: String| {
            let read = serde_json::from_str::<Forecast>(&text);
            let read =
                read.and_then(|one| if one.format == forecast::FORMAT { Ok(one) } else { Err(foreign(&one.format)) });
            let refused = |source: serde_json::Error| StoreError::Forecast {
                path: self.path.clone(),
                guest: quoted(guest),
                source: source.into(),
            };
            read.map_err(refused)
        };
        texts.into_iter().map(read).collect()
    }

    fn texts(&self, query: &str, values: impl rusqlite::Params) -> Result<Vec<String>, StoreError> {
        let mut statement = self.connection.prepare(query).map_err(self.wrong())?;
        let rows = statement.query_map(values, |row| row.get(0)).map_err(self.wrong())?;
        rows.collect::<Result<_, _>>().map_err(self.wrong())
    }
}

/// As the tables have it: from 1677 to 2262, beyond which it is the nearer end.
fn nanoseconds(time: Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(if time < Timestamp::UNIX_EPOCH { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::Known;
    use crate::observed::forecast::Band;

    fn observed(guest: &str, requested: &str) -> Observed {
        let known = Known {
            guest: guest.to_owned(),
            history: None,
            version: "10.0.2".to_owned(),
            accelerator: "kvm".to_owned(),
            link_bits_per_second: 1_000_000_000,
            settings: Vec::new(),
        };
        Observed { migration_time_seconds: Some(4.0), ..Observed::unseen("qemu", &known, requested.parse().unwrap()) }
    }

    fn forecast(guest: &str, made: &str) -> Forecast {
        let band = Band { p5: Some(1.0), p50: Some(2.0), p95: None };
        Forecast {
            format: forecast::FORMAT.to_owned(),
            made: made.parse().unwrap(),
            guest: guest.to_owned(),
            platform: "lab".to_owned(),
            algorithm: "qemu-10.0".to_owned(),
            settings: [("downtime-limit".to_owned(), "300ms".to_owned())].into(),
            manager: None,
            link_bits_per_second: 1_000_000_000,
            migration_time_seconds: band,
            migration_time_reported_seconds: band,
            downtime_seconds: band,
            downtime_reported_seconds: band,
            sent_bytes: band,
        }
    }

    #[test]
    fn what_is_kept_is_there_after_it_was_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts.db");
        let all = ["2026-11-24T08:00:00.5Z", "2026-11-23T08:00:00Z"].map(|at| observed("web", at));
        let mut store = Store::open(&path).unwrap();
        assert_eq!(store.keep_observed(&all).unwrap(), 2);
        assert_eq!(store.keep_observed(&all).unwrap(), 0, "twice is once");
        for made in ["2026-11-24T07:00:00Z", "2026-11-24T07:30:00Z", "2026-11-24T08:00:00.5Z"] {
            store.keep_forecast(&forecast("web", made)).unwrap();
        }
        drop(store);
        assert!(is_one(&path));
        let store = Store::open(&path).unwrap();
        assert_eq!(store.observed().unwrap(), [all[1].clone(), all[0].clone()], "the oldest first");
        let from = |from: &str| store.forecasts("web", from.parse().unwrap(), all[0].requested).unwrap();
        let made: Vec<String> = from("2026-11-24T07:00:00Z").iter().map(|one| one.made.to_string()).collect();
        assert_eq!(
            made,
            ["2026-11-24T07:30:00Z", "2026-11-24T07:00:00Z"],
            "the latest first, none from the request on"
        );
        assert_eq!(from("2026-11-24T07:10:00Z"), [forecast("web", "2026-11-24T07:30:00Z")]);
        assert!(store.forecasts("db", Timestamp::MIN, Timestamp::MAX).unwrap().is_empty());
    }

    #[test]
    fn what_is_no_store_is_refused_in_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |name: &str| {
            let error = Store::open(&dir.path().join(name)).unwrap_err();
            crate::fuzzing::one_line(&error);
            error.to_string()
        };
        std::fs::write(dir.path().join("text"), "hello, this is a text and no database at all\n".repeat(30)).unwrap();
        assert!(refused("text").contains("is no store of migrations"));
        let other = Connection::open(dir.path().join("other")).unwrap();
        other.execute_batch("CREATE TABLE t (x)").unwrap();
        assert!(refused("other").contains("is no store of migrations"));
        drop(Store::open(&dir.path().join("new")).unwrap());
        Connection::open(dir.path().join("new")).unwrap().execute_batch("PRAGMA user_version = 7").unwrap();
        assert!(refused("new").ends_with("has version 7, this program reads 1"));
        assert!(refused("absent/store").contains("unable to open"));
    }
}
