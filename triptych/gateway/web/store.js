// What stays in this browser: pictures, those on their way, those to start from. In IndexedDB, since
// what notes.js has holds no files. Where the browser allows none, everything works but is gone with the page.

const STORES = ["pictures", "coming", "start"];
let opened;
let isAsked = false; // the browser, not to drop what is kept when the disk is full

function database() {
  opened ??= new Promise((resolve, reject) => {
    const request = indexedDB.open("triptych", 1);
    request.onupgradeneeded = () => STORES.forEach((name) => request.result.createObjectStore(name));
    request.onsuccess = () => {
      request.result.onversionchange = () => {
        request.result.close();
        opened = undefined;
      };
      request.result.onclose = () => (opened = undefined); // by the browser, as when its data are deleted
      resolve(request.result);
    };
    request.onerror = () => {
      opened = undefined;
      reject(request.error);
    };
  });
  return opened;
}

async function within(store, mode, work) {
  const transaction = (await database()).transaction(store, mode);
  const request = work(transaction.objectStore(store));
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve(request.result);
    transaction.onabort = transaction.onerror = () => reject(transaction.error ?? request.error);
  });
}

/** Keep a value under a key; false where there is no room or no such storage. */
export async function keep(store, key, value) {
  if (!isAsked) navigator.storage?.persist?.().catch(() => {});
  isAsked = true;
  try {
    await within(store, "readwrite", (objects) => objects.put(value, key));
    return true;
  } catch {
    return false;
  }
}

/** Everything in a store, by key. */
export async function kept(store) {
  try {
    return await within(store, "readonly", (objects) => objects.getAll());
  } catch {
    return [];
  }
}

export async function forget(store, key) {
  try {
    await within(store, "readwrite", (objects) => (key === undefined ? objects.clear() : objects.delete(key)));
  } catch {
    // nothing was kept
  }
}
