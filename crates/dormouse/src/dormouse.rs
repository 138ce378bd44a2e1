//! An open data directory.

use std::path::PathBuf;

use database::{DatabaseInfo, DatabaseName, Databases, Metrics, Options, Settings, Source};

use crate::Error;
use crate::cache::default_cache_directory;
use crate::handle::Database;

/// An open data directory. Clones share it; one process at a time can have it open.
#[derive(Clone)]
pub struct Dormouse {
    databases: Databases,
}

impl Dormouse {
    /// Opens a data directory, making it if it is not there. The first time on a machine this
    /// compiles PostgreSQL, which takes a while; what comes of it is kept in
    /// [`default_cache_directory`].
    pub async fn open(data_directory: impl Into<PathBuf>) -> Result<Self, Error> {
        Self::open_with(Options::new(data_directory, default_cache_directory())).await
    }

    /// Opens a data directory with other limits, another cache, or a view of the progress.
    pub async fn open_with(options: Options) -> Result<Self, Error> {
        let databases = Databases::open(options).await?;
        Ok(Self { databases })
    }

    /// A database by its name. It is made when it is first queried, unless
    /// [`Options::auto_create`] is off.
    pub fn database(&self, name: &str) -> Result<Database, Error> {
        Ok(Database::new(self.databases.clone(), parse(name)?))
    }

    /// Makes a database. Error `42P04` if there is one of this name.
    pub async fn create(&self, name: &str) -> Result<DatabaseInfo, Error> {
        let name = parse(name)?;
        Ok(self.databases.create(&name, Source::Template).await?)
    }

    /// Makes a database that begins as a copy of another. Error `3D000` if that one is not there.
    pub async fn fork(&self, from: &str, to: &str) -> Result<DatabaseInfo, Error> {
        let (from, to) = (parse(from)?, parse(to)?);
        let source = Source::Database(from);
        Ok(self.databases.create(&to, source).await?)
    }

    /// All databases, by name.
    pub fn list(&self) -> Result<Vec<DatabaseInfo>, Error> {
        Ok(self.databases.list(None, usize::MAX)?)
    }

    /// Databases by name, those after `after`, at most `count`: for directories too large for
    /// [`list`](Self::list).
    pub fn list_page(&self, after: Option<&str>, count: usize) -> Result<Vec<DatabaseInfo>, Error> {
        let after = after.map(parse).transpose()?;
        Ok(self.databases.list(after.as_ref(), count)?)
    }

    /// Replaces the settings of one database: its durability, its maintenance.
    pub async fn configure(&self, name: &str, settings: Settings) -> Result<DatabaseInfo, Error> {
        Ok(self.databases.configure(&parse(name)?, settings).await?)
    }

    /// Waits until everything that a database has acknowledged is on disk, whatever its durability.
    pub async fn flush(&self, name: &str) -> Result<(), Error> {
        Ok(self.databases.flush(&parse(name)?).await?)
    }

    /// What has been counted since the data directory was opened.
    pub fn metrics(&self) -> Metrics {
        self.databases.metrics()
    }

    /// What is known of a database. Error `3D000` if it is not there.
    pub fn info(&self, name: &str) -> Result<DatabaseInfo, Error> {
        Ok(self.databases.info(&parse(name)?)?)
    }

    /// Deletes a database for good. Error `55006` while it has sessions, unless `force` ends them.
    pub async fn delete(&self, name: &str, force: bool) -> Result<(), Error> {
        Ok(self.databases.delete(&parse(name)?, force).await?)
    }

    /// Puts all databases to rest. Afterwards everything committed is on disk.
    pub async fn close(self) -> Result<(), Error> {
        Ok(self.databases.close().await?)
    }
}

fn parse(name: &str) -> Result<DatabaseName, Error> {
    DatabaseName::parse(name).map_err(|rule| Error::Name {
        name: name.to_owned(),
        rule,
    })
}
