//! The stores that this process has open: one for each directory, shared by all who ask.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError, Weak};

use super::error::CursorError;
use super::flusher::Flushed;
use super::store::Store;

static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::default);

#[derive(Default)]
struct Registry {
    /// By canonical path. A store that cannot be upgraded is being opened or closed.
    stores: Mutex<HashMap<PathBuf, Weak<Registered>>>,
    /// One was opened, closed, or could not be opened.
    changed: Condvar,
}

impl Registry {
    fn stores(&self) -> MutexGuard<'_, HashMap<PathBuf, Weak<Registered>>> {
        self.stores.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An open store, and its place in the registry: it is given back once the store is closed.
#[derive(Debug)]
pub(super) struct Registered {
    flushed: Flushed,
    /// Dropped behind the store.
    _place: Place,
}

impl Registered {
    pub(super) fn store(&self) -> &Store {
        &self.flushed.store
    }
}

/// The directory's place in the registry, for as long as its files are in use.
#[derive(Debug)]
struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        REGISTRY.stores().remove(&self.0);
        REGISTRY.changed.notify_all();
    }
}

/// The store of the directory, if it is open here; otherwise what `open` opens.
pub(super) fn shared(
    dir: &Path,
    open: impl FnOnce(&Path) -> Result<Store, CursorError>,
) -> Result<Arc<Registered>, CursorError> {
    let dir = canonical(dir)?;
    match reserve(&dir) {
        Ok(place) => register(place, open),
        Err(open_already) => Ok(open_already),
    }
}

/// What `open` opens, unless the directory's store is open here.
pub(super) fn alone(
    dir: &Path,
    open: impl FnOnce(&Path) -> Result<Store, CursorError>,
) -> Result<Arc<Registered>, CursorError> {
    let dir = canonical(dir)?;
    match reserve(&dir) {
        Ok(place) => register(place, open),
        Err(_open_already) => Err(CursorError::Held {
            path: dir,
            pid: Some(std::process::id()),
        }),
    }
}

fn canonical(dir: &Path) -> Result<PathBuf, CursorError> {
    dir.canonicalize()
        .map_err(|e| CursorError::io("open", dir, e))
}

/// Takes the directory's place, or finds it taken. Waits while another thread is opening or closing
/// its store.
fn reserve(dir: &Path) -> Result<Place, Arc<Registered>> {
    let mut stores = REGISTRY.stores();
    loop {
        match stores.get(dir).map(Weak::upgrade) {
            None => {
                stores.insert(dir.to_owned(), Weak::new());
                return Ok(Place(dir.to_owned()));
            }
            Some(Some(store)) => return Err(store),
            Some(None) => {
                let changed = REGISTRY.changed.wait(stores);
                stores = changed.unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

fn register(
    place: Place,
    open: impl FnOnce(&Path) -> Result<Store, CursorError>,
) -> Result<Arc<Registered>, CursorError> {
    let flushed = Flushed::start(open(&place.0)?)?;
    let dir = place.0.clone();
    let registered = Arc::new(Registered {
        flushed,
        _place: place,
    });
    REGISTRY.stores().insert(dir, Arc::downgrade(&registered));
    REGISTRY.changed.notify_all();
    Ok(registered)
}
